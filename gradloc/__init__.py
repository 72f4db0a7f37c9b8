"""Gradient-localised lifelong pretraining of language models.

Measure where new facts pull, train only there, and see what was learned and what was lost.
The names below are imported when they are first used, so ``import gradloc`` costs nothing.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "AcquisitionCallback": "training.acquisition",
    "EvalResult": "evaluation.results",
    "GradLocCallback": "training.callback",
    "GradientProfile": "localization.profile",
    "GradlocError": "errors",
    "InputProjectionCallback": "training.methods.input_projection",
    "LayerPlan": "localization.plan",
    "ProbeSet": "data.probes",
    "InterpolationCallback": "training.methods.interpolation",
    "Recipe": "config.recipe",
    "ReferenceKLCallback": "training.methods.reference_kl",
    "attach": "training.callback",
    "evaluate": "evaluation.evaluate",
    "freeze_layers": "training.freezing",
    "load_probes": "data.probes",
    "load_recipe": "experiments.recipes",
    "measure_gradients": "localization.gradients.measure",
    "merge_checkpoints": "training.merging",
    "select_layers": "localization.policies",
    "train": "experiments.train",
    "write_report": "report",
}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f"gradloc.{_HOME[name]}"), name)
    raise AttributeError(f"module 'gradloc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
