"""A loss that is added to the Trainer's own, by way of its gradient.

Why it is exact: ``on_step_begin`` fires once an optimizer step, when gradients have just been
cleared. What is put there stays, the backward passes of the micro-batches accumulate onto it, and
clipping and optimizer see the sum: training on the own loss plus the extra one. Under DDP the
reducer averages it over the processes with the rest.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from gradloc.errors import MethodError
from gradloc.localization.plan import LayerPlan, as_plan
from gradloc.models.units import find_units
from gradloc.models.wrappers import canonical_name, unwrap
from gradloc.utils.numbers import check_number

# Parameters by canonical name.
Weights = dict[str, nn.Parameter]


class ExtraLoss(TrainerCallback):
    """Base of callbacks that add the gradient of an extra loss.

    It composes with ``GradLocCallback`` and any plan: only parameters that require gradients get
    any. Works on one device and under DDP; under FSDP2 where a subclass says so.

    Args:
        weight: Factor of the extra loss; the Trainer's loss has factor 1.
        every: Add it at every n-th step only, n times as strong, so that its share in the sum
            over steps stays. Cheaper; under Adam a rare strong gradient is not the same as a steady
            weak one, and may protect better.

    Attributes:
        value: The loss at the last step that had it, unweighted, in the subclass's unit. It is
            logged beside the Trainer's loss under the name of the class attribute ``log_key``.
    """

    log_key = "extra_loss"
    takes_shards = False  # whether ``add_gradients`` copes with what FSDP2 makes of parameters

    def __init__(self, weight: float, every: int = 1):
        check_number(f"{self.log_key}: weight", weight, 0, above=True, error=MethodError)
        check_number(f"{self.log_key}: every", every, 1, whole=True, error=MethodError)
        self.weight, self.every = weight, every
        self.value: Tensor | None = None
        self._parameters: Weights = {}

    def begin(self, parameters: Weights) -> None:
        """Get ready for these trained parameters; called once a training."""

    def add_gradients(
        self, model: nn.Module, parameters: Weights, turn: int, factor: float, args
    ) -> Tensor:
        """Add the gradient of ``factor`` x loss to ``grad`` of parameters.

        Args:
            model: The model, not wrapped.
            parameters: Those that train in this step, by canonical name.
            turn: How many times this was called before, counted from the start of the whole
                training, so that a resumed training goes on where it was.
            factor: What the loss is multiplied by.
            args: The ``TrainingArguments``.

        Returns:
            The loss without the factor, a scalar.
        """
        raise NotImplementedError

    def on_train_begin(self, args, state, control, model, **kwargs):
        """Note what trains; plans are applied by now."""
        self._parameters = trainable_parameters(model)
        refuse_shards(self.log_key, self._parameters, args, fsdp2=self.takes_shards)
        self.begin(self._parameters)

    def on_step_begin(self, args, state, control, model, optimizer, **kwargs):
        """Put the extra gradient where the backward passes will accumulate."""
        if (state.global_step + 1) % self.every:  # before the first step nothing has moved yet
            return
        # float16: the Trainer's loss is scaled up, and all gradients are scaled down together.
        scaler = getattr(optimizer, "scaler", None)
        factor = self.weight * self.every * (scaler.get_scale() if scaler is not None else 1.0)
        turn = state.global_step // self.every
        # Methods that train blocks in turn let the others rest by this flag.
        awake = {name: p for name, p in self._parameters.items() if p.requires_grad}
        self.value = self.add_gradients(unwrap(model), awake, turn, factor, args)

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Log the value with the training loss."""
        if self.value is not None and logs is not None and "loss" in logs:
            logs[self.log_key] = float(self.value)
            # The Trainer has put a copy into its history already.
            state.log_history[-1][self.log_key] = logs[self.log_key]


def refuse_shards(what: str, parameters: Weights, args, *, fsdp2: bool = False) -> None:
    """Refuse to go on where a process holds parts of parameters; those of FSDP2 may be allowed.

    Raises:
        MethodError: FSDP or DeepSpeed shards them.
    """
    if getattr(args, "deepspeed", None) or (not fsdp2 and are_sharded(parameters)):
        raise MethodError(
            f"{what} needs whole parameters on each process; found sharded ones. Train on one "
            "device or with DDP."
        )


def are_sharded(parameters: Weights) -> bool:
    """Whether FSDP2 leaves each process a part of them."""
    return any(hasattr(parameter, "to_local") for parameter in parameters.values())


def trainable_parameters(model: nn.Module) -> Weights:
    """Parameters that require gradients, by canonical name."""
    return {
        canonical_name(name): parameter
        for name, parameter in unwrap(model).named_parameters()
        if parameter.requires_grad
    }


def planned_parameters(model: nn.Module, plan: LayerPlan | str | Path | None = None) -> Weights:
    """The model's own parameters that a plan trains, by canonical name.

    Args:
        model: The model, frozen or not; adapters are not its own.
        plan: A plan or the path of its file; ``None``: all that require gradients.

    Raises:
        PlanMismatchError: The plan is for a model with other units.
    """
    if plan is None:
        return trainable_parameters(model)
    plan = as_plan(plan)
    units = find_units(model, plan.granularity)
    plan.check_units(tuple(unit.info for unit in units))
    return {
        name: parameter
        for unit in units
        if plan.scale[unit.name] > 0
        for name, parameter in unit.parameters.items()
    }


def starting_weights(
    model: nn.Module, plan: LayerPlan | str | Path | None = None
) -> dict[str, Tensor]:
    """Copies of the weights that a plan trains, as they are now.

    Take them of the base model, before a Trainer is built or resumes.

    Args:
        model: The model.
        plan: A plan or the path of its file; ``None``: all that require gradients.

    Returns:
        Canonical name -> copy, in the weights' own dtype and on their device.
    """
    return {name: p.detach().clone() for name, p in planned_parameters(model, plan).items()}


def match_start(parameters: Weights, start: dict[str, Tensor], what: str) -> dict[str, Tensor]:
    """Of the starting weights, those of the parameters that train, on their devices.

    Raises:
        MethodError: A parameter that trains has no starting weight.
    """
    missing = [name for name in parameters if name not in start]
    if missing:
        raise MethodError(
            f"{what} needs the starting weight of every parameter that trains; {len(missing)} of "
            f"{len(parameters)} have none, {missing[0]} for one. Adapters have no weight to stay "
            "near: train the model's own weights, and take starting_weights with the same plan."
        )
    return {name: start[name].to(p.device) for name, p in parameters.items()}


def add_to_gradients(parameters: Sequence[nn.Parameter], extras: Sequence[Tensor | None]) -> None:
    """Add to ``grad``, which is made where there is none; an extra of ``None`` adds nothing."""
    with torch.no_grad():
        for parameter, extra in zip(parameters, extras, strict=True):
            if extra is None:
                continue
            if parameter.grad is None:
                parameter.grad = extra.to(parameter.dtype)
            else:
                parameter.grad.add_(extra)
