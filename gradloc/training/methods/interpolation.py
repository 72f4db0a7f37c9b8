"""Interpolate to the start: when training ends, keep a share of what it changed.

Why: near its end a training that went far gains little with each further part of the way, while
what it disturbs grows with the square. Half of a long way has more of the gain, and less of the
disturbance, than the whole of a shorter one. Norm weights and biases, which no projection covers,
take up the style of the text while they train with the rest; by default they return to the start.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback

from gradloc.errors import MethodError
from gradloc.models.units import find_units
from gradloc.models.wrappers import canonical_name, reshard, unwrap
from gradloc.training.methods.base import Method, TrainContext
from gradloc.training.trainer_hooks import ResumableCallback, resumed_checkpoint, saved_checkpoint
from gradloc.utils.numbers import check_number

START_FILE = "interpolate_to_start_start.safetensors"


class InterpolationCallback(ResumableCallback):
    """Keep a share of each trained weight's change when training ends.

        W <- W_start + interpolation (W_end - W_start)

    Weights with one dimension (norms, biases) have ``vector_interpolation`` in place of
    ``interpolation``. The starting weights are held while training runs and saved in each
    checkpoint, whose own weights are not interpolated; only what is saved after the end is. It
    works under DDP and FSDP2. The learning rate should be higher than without.

    Args:
        interpolation: Share of the change that stays, above 0 and up to 1.
        vector_interpolation: The same of weights with one dimension, 0-1.

    Raises:
        MethodError: A share is out of range, a checkpoint holds no starting weights, adapters
            train, or DeepSpeed does.

    Example:
        >>> Trainer(model, callbacks=[   # doctest: +SKIP
        ...     GradLocCallback(plan), InterpolationCallback(0.5)])

    References:
        Wortsman et al. 2022 (WiSE-FT), arXiv:2109.01903, section 3: the same line between two
        models, for robustness. That norm weights return to the start is ours.
    """

    def __init__(self, interpolation: float = 0.5, *, vector_interpolation: float = 0.0):
        check_shares(interpolation, vector_interpolation)
        self.interpolation, self.vector_interpolation = interpolation, vector_interpolation
        self._start: dict[str, Tensor] = {}

    def on_train_begin(self, args, state, control, model, **kwargs):
        """Note where the trained weights start, or read it from the checkpoint."""
        model = unwrap(model)
        # FSDP's first version makes every weight a part of one long vector.
        flat = any(type(part).__name__ == "FullyShardedDataParallel" for part in model.modules())
        if getattr(args, "deepspeed", None) or flat:
            raise MethodError(
                "interpolate_to_start: DeepSpeed and the first version of FSDP keep weights in "
                "parts of their own. Train on one device, with DDP or with FSDP2."
            )
        adapters = {name for unit in find_units(model) for name in unit.adapters}
        weights = {name: p for name, p in _weights(model).items() if p.requires_grad}
        if adapters & set(weights):
            raise MethodError(
                "interpolate_to_start: adapters train, and their product is no straight line from "
                "the start. Scale them when they are merged, or train the model's own weights."
            )
        if state.global_step == 0:
            self._start = {name: p.detach().clone() for name, p in weights.items()}
            return
        path = resumed_checkpoint(args, state) / START_FILE
        try:
            saved = load_file(path)
            self._start = {name: _like(saved[name], p) for name, p in weights.items()}
        except (OSError, SafetensorError, KeyError) as error:
            raise MethodError(
                f"{path} cannot be read, or lacks a weight that trains: it holds the weights that "
                "training started from. Start again, or resume without interpolate_to_start "
                "(GradLocCallback.from_probes(..., interpolation=1))."
            ) from error

    def on_save(self, args, state, control, **kwargs):
        """Put the starting weights beside each checkpoint's own."""
        # Gathered on every process: where weights are sharded, all have to take part.
        whole = {name: _whole(start) for name, start in self._start.items()}
        folder = saved_checkpoint(args, state)
        if state.is_world_process_zero and folder.is_dir():
            save_file({name: start.cpu() for name, start in whole.items()}, folder / START_FILE)

    def on_train_end(self, args, state, control, model, **kwargs):
        """Interpolate."""
        interpolate_to_start(
            _weights(model), self._start, self.interpolation, self.vector_interpolation
        )
        self._start = {}


@torch.no_grad()
def interpolate_to_start(
    weights: Mapping[str, Tensor],
    start: Mapping[str, Tensor],
    interpolation: float,
    vector_interpolation: float = 0.0,
) -> None:
    """Keep a share of each weight's change, in place and computed in float32.

    Args:
        weights: Name -> weight, as training left it.
        start: Name -> the same before training; weights without one stay as they are.
        interpolation: Share of the change that stays.
        vector_interpolation: The same of weights with one dimension.
    """
    for name, before in start.items():
        weight = weights[name]
        share = vector_interpolation if weight.dim() == 1 else interpolation
        change = weight.float() - before.float()
        weight.copy_((before.float() + share * change).to(weight.dtype))


def check_shares(interpolation: float, vector_interpolation: float = 0.0) -> None:
    """Refuse shares out of range.

    Raises:
        MethodError: One is.
    """
    name = "interpolate_to_start: interpolation"
    check_number(name, interpolation, 0, 1, above=True, error=MethodError)
    name = "interpolate_to_start: vector_interpolation"
    check_number(name, vector_interpolation, 0, 1, error=MethodError)


def _weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """All weights by name, looked up again each time, since FSDP2 puts others in place.

    Which ones trained cannot be read off ``requires_grad`` at the end: a method may let blocks
    take turns.
    """
    model = unwrap(model)
    reshard(model)
    return {canonical_name(name): weight for name, weight in model.named_parameters()}


def _whole(weight: Tensor) -> Tensor:
    gather = getattr(weight, "full_tensor", None)
    return weight if gather is None else gather()


def _like(saved: Tensor, weight: nn.Parameter) -> Tensor:
    """A whole tensor on the weight's device, and in parts where the weight is."""
    saved = saved.to(weight.device, weight.dtype)
    if not hasattr(weight, "to_local"):
        return saved
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(weight, DTensor)
    return distribute_tensor(saved, weight.device_mesh, weight.placements)


@dataclass(frozen=True)
class InterpolateToStart(Method):
    """Keep a share of what training changed.

    Args:
        interpolation: Share of each weight's change that stays. A smaller share needs a higher
            learning rate.
        vector_interpolation: The same of norm weights and biases.
    """

    interpolation: Annotated[float, Field(gt=0, le=1)] = 0.5
    vector_interpolation: Annotated[float, Field(ge=0, le=1)] = 0.0

    def callbacks(self, context: TrainContext) -> list[TrainerCallback]:
        """The callback that interpolates at the end."""
        return [InterpolationCallback(**vars(self))]
