"""The line at the start of a training: what trains, what protects the rest, and at which rate."""

import logging
import sys
from typing import Any

from torch.optim import Optimizer
from tqdm.auto import tqdm
from transformers import Trainer

from gradloc.localization.plan import LayerPlan
from gradloc.training.methods.input_projection import InputProjectionCallback
from gradloc.training.methods.interpolation import InterpolationCallback
from gradloc.training.methods.reference_kl import ReferenceKLCallback

logger = logging.getLogger(__name__)

# assumption: projected steps need 20 to 40 times the rate of full training, which even the largest
# models seldom take below 1e-5.
_LOW_PROJECTED_RATE = 1e-4


def announce(trainer: Trainer, plan: LayerPlan, trainable_fraction: float) -> None:
    """Show what a training will do, and warn of what is likely to spoil it.

    The line goes through ``logging`` where that shows information, else to the terminal, past
    the progress bars.

    Args:
        trainer: The trainer, its optimizer made and all callbacks added.
        plan: The plan in force.
        trainable_fraction: Parameters that train / all of the model, 0-1.
    """
    line = describe(trainer, plan, trainable_fraction)
    if logger.isEnabledFor(logging.INFO) and logger.hasHandlers():
        logger.info(line)
    else:
        tqdm.write(line, file=sys.stderr)
    if warning := plan.reliability.get("warning"):
        logger.warning("The ranking behind the plan: %s", warning)
    rate = _learning_rate(trainer)
    if _first(trainer, InputProjectionCallback) and rate < _LOW_PROJECTED_RATE:
        logger.warning(
            "learning_rate is %g, and steps are projected: they need twenty to forty times the "
            "rate of full training, or next to nothing is learned.",
            rate,
        )


def describe(trainer: Trainer, plan: LayerPlan, trainable_fraction: float) -> str:
    """The line itself; arguments as for ``announce``."""
    chosen = f"chosen by {plan.policy}" if plan.policy else "chosen by hand"
    split_half = plan.reliability.get("split_half")
    if split_half is not None:
        chosen += f", reliability {split_half:.2f}"
    protection = ", ".join(_protection(trainer)) or "none"
    return (
        f"gradloc trains {len(plan.trained)} of {len(plan.scale)} units, "
        f"{trainable_fraction:.1%} of the parameters ({chosen}). Protection: {protection}. "
        f"Learning rate {_learning_rate(trainer):g}."
    )


def _protection(trainer: Trainer) -> list[str]:
    """What protects, each with its strength."""
    parts = []
    if projection := _first(trainer, InputProjectionCallback):
        strength = projection.strength
        parts.append("projection" + ("" if strength is None else f" {strength:g}"))
    if kl := _first(trainer, ReferenceKLCallback):
        rhythm = "" if kl.every == 1 else f" once in {kl.every} steps"
        parts.append(f"KL {kl.weight:g}{rhythm}")
    if interpolation := _first(trainer, InterpolationCallback):
        parts.append(f"interpolation {interpolation.interpolation:g}")
    groups = _groups(trainer)
    if parts and "betas" in groups[0]:
        parts.append(f"momentum {groups[0]['betas'][0]:g}")
    return parts


def _learning_rate(trainer: Trainer) -> float:
    """The highest rate of the optimizer's groups, before any schedule."""
    return max(float(group.get("initial_lr", group["lr"])) for group in _groups(trainer))


def _groups(trainer: Trainer) -> list[dict[str, Any]]:
    assert isinstance(trainer.optimizer, Optimizer)  # the line is written when it has been made
    return trainer.optimizer.param_groups


def _first(trainer: Trainer, kind: type):
    callbacks = trainer.callback_handler.callbacks
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)
