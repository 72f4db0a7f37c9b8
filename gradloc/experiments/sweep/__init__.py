"""Arms by learning rates by seeds, and the frontier that they draw."""
