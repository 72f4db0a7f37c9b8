"""Gradient-localised lifelong pretraining of language models.

Measure where new facts pull, train only there, and see what was learned and what was lost.
The names below are imported when they are first used, so ``import gradloc`` costs nothing.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "AcquisitionCallback": "acquisition",
    "EvalResult": "results",
    "GradLocCallback": "callback",
    "GradientProfile": "profile",
    "GradlocError": "errors",
    "InputShieldCallback": "methods.input_shield",
    "LayerPlan": "plan",
    "ProbeSet": "probes",
    "PullBackCallback": "methods.pull_back",
    "Recipe": "recipe",
    "ReferenceKLCallback": "methods.reference_kl",
    "attach": "callback",
    "evaluate": "evaluation",
    "freeze_layers": "freezing",
    "load_probes": "probes",
    "load_recipe": "recipe",
    "measure_gradients": "gradients",
    "merge_checkpoints": "merging",
    "select_layers": "selection",
    "train": "training",
    "write_report": "report",
}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f"gradloc.{_HOME[name]}"), name)
    raise AttributeError(f"module 'gradloc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
