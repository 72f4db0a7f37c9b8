"""Arms by learning rates by seeds, and the frontier that they draw.

Comes in: a sweep file. Goes out: ordinary run folders, ``sweep.json`` and ``frontier.html``.
Nothing is imported here, so that the command line answers at once.
"""
