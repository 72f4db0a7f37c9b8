"""What plans cost before any is trained, and which one buys most for its cost."""
