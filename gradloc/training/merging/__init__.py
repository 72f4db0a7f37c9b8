"""Two checkpoints of one model as one: how much of each unit's change stays.

The names below are imported when they are first used, so that the command line answers at once.
"""

from importlib import import_module

_HOME = {
    "MergeSolution": "solution",
    "merge_checkpoints": "streaming",
    "solve_merge": "solving",
}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f"gradloc.training.merging.{_HOME[name]}"), name)
    raise AttributeError(f"module 'gradloc.training.merging' has no attribute {name!r}")
