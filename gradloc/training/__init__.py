"""Freezing, protecting and watching inside the Hugging Face Trainer.

The names below are imported when they are first used, so each costs what it needs and no more.
"""

from importlib import import_module

_HOME = {
    "InputProjectionCallback": "methods.input_projection",
    "InterpolationCallback": "methods.interpolation",
    "ReferenceKLCallback": "methods.reference_kl",
}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f"gradloc.training.{_HOME[name]}"), name)
    raise AttributeError(f"module 'gradloc.training' has no attribute {name!r}")
