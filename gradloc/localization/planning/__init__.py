"""What plans cost before any is trained, and which one buys most for its cost.

Comes in: a profile or a model. Goes out: plans beside each other, as a table or as JSON. It trains
nothing. Nothing is imported here, so that the command line answers at once.
"""
