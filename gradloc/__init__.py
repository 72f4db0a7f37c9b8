"""Gradient-localised lifelong pretraining of language models.

Measure where new facts pull, train only there, and see what was learned and what was lost.
The names below are imported when they are first used, so ``import gradloc`` costs nothing.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "EvalResult": "evaluation.results",
    "GradLocCallback": "training.callback",
    "GradLocConfig": "config.default",
    "GradientProfile": "localization.profile",
    "GradlocError": "errors",
    "LayerPlan": "localization.plan",
    "ProbeSet": "data.probes",
    "attach": "training.callback",
    "evaluate": "evaluation.evaluate",
    "freeze_layers": "training.freezing",
    "load_probes": "data.probes",
    "load_recipe": "experiments.recipes",
    "measure_gradients": "localization.gradients.measure",
    "run": "experiments.run",
    "select_layers": "localization.layer_selection",
}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f"gradloc.{_HOME[name]}"), name)
    raise AttributeError(f"module 'gradloc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
