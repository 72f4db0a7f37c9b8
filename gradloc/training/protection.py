"""What protects the rest of a model from the training of what trains."""

import logging
from collections.abc import Sequence

import torch
from torch import nn
from transformers import TrainerCallback

from gradloc.config.default import GradLocConfig
from gradloc.errors import MethodError
from gradloc.models.units import find_units
from gradloc.training.methods.base import TrainContext
from gradloc.training.methods.input_projection import InputProjectionCallback
from gradloc.training.methods.interpolation import InterpolationCallback
from gradloc.training.methods.reference_kl import ReferenceKLCallback

logger = logging.getLogger(__name__)


def set_momentum(config: GradLocConfig, model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """Give an Adam optimizer the first beta of the configuration.

    Momentum goes on pushing where a document pulled some steps ago, though the model has learnt
    it by then: in a training that sees each document once or a few times, updates overshoot.

    Args:
        config: Its ``momentum`` counts, whatever the training arguments say.
        model: The model, frozen by the plan. Where adapters alone train, nothing is changed that
            was not asked for.
        optimizer: The Trainer's. One that is not torch's Adam or AdamW is left alone.

    Returns:
        What was overridden, and how to keep it; empty if nothing was.

    Raises:
        MethodError: ``momentum`` was given, and the optimizer is another.
    """
    beta = config.resolved().momentum
    if beta is None or (config.momentum is None and not trains_own_weights(model)):
        return ""
    # Others call something else by the name of betas (schedule-free ones, for instance).
    if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        if config.momentum is not None:
            raise MethodError(
                f"momentum={beta:g} sets the first beta of torch's Adam and AdamW; found "
                f"{type(optimizer).__name__}. Leave it out and set adam_beta1, or what this "
                "optimizer has instead, in the training arguments."
            )
        return ""
    before = {group["betas"][0] for group in optimizer.param_groups} - {beta}
    for group in optimizer.param_groups:
        group["betas"] = (beta, *group["betas"][1:])
    if not before or config.momentum is not None:
        return ""
    found = max(before)
    return f"adam_beta1 is {beta:g}, not {found:g} (keep that with momentum={found:g})"


def protecting_callbacks(
    config: GradLocConfig, context: TrainContext, given: Sequence[TrainerCallback] = ()
) -> list[TrainerCallback]:
    """What protects the rest from the training of what trains now.

    Args:
        config: Which parts, and how strong each is.
        context: The training, its model frozen by the plan.
        given: The Trainer's own callbacks. What is among them already is not added.

    Returns:
        At most an ``InputProjectionCallback``, a ``ReferenceKLCallback`` and an
        ``InterpolationCallback``. Where adapters alone train, those that were asked for.

    Raises:
        MethodError: A part was asked for and cannot act, or stands among ``given`` as well.
    """
    from gradloc.training.methods.method_table import build_methods  # brings all methods along

    methods = build_methods(config.methods())
    own = trains_own_weights(context.model)
    found: list[TrainerCallback] = []
    if (method := methods.get("input_projection")) and not _is_given(
        InputProjectionCallback, given, projection=config.projection
    ):
        try:
            found += method.callbacks(context)
        except MethodError as error:
            if config.projection is not None:
                raise
            logger.warning("gradloc trains without a projection. %s", error)
    if (
        (method := methods.get("reference_kl"))
        and (own or config.kl is not None)
        and not _is_given(ReferenceKLCallback, given, kl=config.kl)
    ):
        found += method.callbacks(context)
    has_matrices = any(p.requires_grad and p.dim() > 1 for p in context.model.parameters())
    if (
        (method := methods.get("interpolate_to_start"))
        and (config.interpolation is not None or (own and has_matrices))
        and not _is_given(InterpolationCallback, given, interpolation=config.interpolation)
    ):
        if not has_matrices:
            raise MethodError(
                f"interpolation={config.interpolation:g}: nothing but norms and biases trains, and "
                "those return to their start, so nothing would be left of the training. Leave "
                "interpolation out, or take a plan that trains more."
            )
        found += method.callbacks(context)
    return found


def _is_given(
    kind: type[TrainerCallback], given: Sequence[TrainerCallback], **asked: float | None
) -> bool:
    """Whether the Trainer has a callback of a kind already.

    Raises:
        MethodError: It has, and the option that makes one was given as well.
    """
    if not any(isinstance(callback, kind) for callback in given):
        return False
    ((option, value),) = asked.items()
    if value is not None:
        raise MethodError(
            f"There is a callback {kind.__name__} beside GradLocCallback({option}=...), and they "
            "would act twice. Leave one of them out."
        )
    return True


def trains_own_weights(model: nn.Module) -> bool:
    """Whether nothing but the model's own weights trains: no adapter does."""
    return not any(p.requires_grad for unit in find_units(model) for p in unit.adapters.values())
