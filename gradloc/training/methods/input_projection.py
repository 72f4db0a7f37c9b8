"""Projection text from each step: update weights only where its inputs have little weight.

Comes in: projections, or texts to make them from. Goes out: a callback that multiplies every update
of a trained linear layer by a matrix on its input side (``input_covariance`` says which and why).
It adds no loss, and reads none of the text while training.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.pytorch_utils import Conv1D

from gradloc.data.batches import pad_token_id
from gradloc.errors import MethodError
from gradloc.localization.probe_profile import reference_texts
from gradloc.models.units import find_units
from gradloc.models.wrappers import reshard, unwrap
from gradloc.training.methods.anchor_texts import (
    anchor_rows,
    check_texts,
    encoded_rows,
    fact_texts,
    new_rows,
)
from gradloc.training.methods.base import Method, TrainContext
from gradloc.training.methods.extra_loss import planned_parameters
from gradloc.training.methods.input_covariance import (
    input_projections,
    linear_modules,
    mean_covariance,
    projected_names,
)


class InputProjectionCallback(TrainerCallback):
    """Multiply each update of a projected layer's weight by its projection, on the input side.

        W <- W_before + (W_after - W_before) S

    It works with any optimizer, since it acts on what ``step`` did, weight decay included, with
    any plan, and under DDP and FSDP2, whose shards of a weight are whole rows. Biases and norms
    have no input to projection and are left to the plan. While a step runs, a copy of the projected
    weights is held.

    Args:
        projections: Canonical name of a weight (``model.layers.3.mlp.up_proj.weight``) -> S, of
        shape
            (in, in), from ``input_projections``.

    Raises:
        MethodError: A projected weight is not in the model, does not train, has another shape or
            is sharded over its inputs, or DeepSpeed trains.

    Example:
        >>> projection = InputProjectionCallback.from_texts(old_texts, new_texts)   # doctest: +SKIP
        >>> Trainer(model, processing_class=tokenizer,   # doctest: +SKIP
        ...         callbacks=[GradLocCallback(plan), projection])

    References:
        Zeng et al. 2019 (OWM), arXiv:1810.01256, equation 1: the same matrix, built up task by
        task; Wang et al. 2021 (Adam-NSCL), arXiv:2103.07113: updates in the null space of C.
    """

    def __init__(self, projections: Mapping[str, Tensor]):
        self.projections = dict(projections)
        self._request: _Request | None = None
        self._weights: dict[str, nn.Parameter] = {}
        self._transposed: set[str] = set()
        self._before: dict[str, Tensor] = {}
        self._hooks: list = []

    @classmethod
    def from_texts(
        cls,
        *groups: Sequence[str],
        facts: bool = True,
        strength: float = 1.0,
        max_length: int = 128,
        n_texts: int = 256,
        seed: int = 0,
    ) -> "InputProjectionCallback":
        """Projection all linear layers that train, as measured when training starts.

        A resumed training measures anew, on the weights that it goes on from.

        Args:
            *groups: Lists of texts, each of which counts the same: text whose behaviour is to be
                kept; the new documents themselves, so that what they share moves less than what
                is particular to each. None: the general passages that ship with gradloc.
            facts: The passages on people, places, companies and works that ship with gradloc are
                another group.
            strength: As for ``input_projections``.
            max_length: Tokens of a text that count.
            n_texts: Texts of a group at most.
            seed: Which of them, where there are more.

        Raises:
            MethodError: The strength is not above 0, or a group is a single text or empty.
        """
        if not strength > 0:
            raise MethodError(f"input_projection: strength must be above 0; found {strength!r}.")
        for group in groups:
            if isinstance(group, str) or not len(group):
                raise MethodError("InputProjectionCallback.from_texts takes lists of texts.")
        drawn = [
            random.Random(seed).sample(list(group), min(n_texts, len(group)))
            for group in groups or (reference_texts(None),)
        ]
        if facts:
            drawn.append(fact_texts(n_texts, seed))
        callback = cls({})
        callback._request = _Request(drawn, strength, max_length)
        return callback

    def on_train_begin(
        self, args, state, control, model=None, optimizer=None, processing_class=None, **kwargs
    ):
        """Find the weights and hook into the optimizer; plans are applied by now."""
        if getattr(args, "deepspeed", None):
            raise MethodError(
                "input_projection: DeepSpeed's optimizer steps on parts of its own. Train on one "
                "device, with DDP or with FSDP2."
            )
        if self._request is not None:
            self.projections = self._request.measure(unwrap(model), processing_class)
        self.attach(model, getattr(optimizer, "optimizer", optimizer))

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Projection every step of an optimizer from here on, in a loop of your own as well.

        Args:
            model: The model, wrapped or not; what is projected trains.
            optimizer: The optimizer of its weights.

        Raises:
            MethodError: A projected weight is not in the model, does not train, has another shape
                or is sharded over its inputs.
        """
        self.remove()
        model = unwrap(model)
        reshard(model)  # an optimizer steps on the parts
        self._weights, self._transposed = {}, set()
        modules = linear_modules(model)
        for name, projection in self.projections.items():
            module = modules.get(name)
            if module is None or not module.weight.requires_grad:
                raise MethodError(
                    f"input_projection: {name} is no weight of a linear layer that trains. Make "
                    f"the "
                    "projections for the plan that trains; adapters (LoRA) cannot be projected."
                )
            transposed = isinstance(module, Conv1D)
            n_inputs = module.weight.shape[0 if transposed else 1]
            if projection.shape != (n_inputs, n_inputs):
                raise MethodError(
                    f"input_projection: the projection of {name} is {tuple(projection.shape)}, "
                    f"its layer has "
                    f"{n_inputs} inputs."
                )
            placements = getattr(module.weight, "placements", ())
            if any(placement.is_shard(0 if transposed else 1) for placement in placements):
                raise MethodError(
                    f"input_projection: {name} is sharded over its inputs, and a projection "
                    f"needs all of "
                    "them. Train on one device, with DDP, or without a projection "
                    "(GradLocCallback.from_probes(..., projection=0))."
                )
            projection = projection.to(module.weight.device).contiguous()
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                # Processes may round differently, and must not drift apart.
                torch.distributed.broadcast(projection, 0)
            self.projections[name] = projection
            self._weights[name] = module.weight
            if transposed:
                self._transposed.add(name)
        self._hooks = [
            optimizer.register_step_pre_hook(self._keep),
            optimizer.register_step_post_hook(self._projection),
        ]

    def on_train_end(self, args, state, control, **kwargs):
        """Leave the optimizer as it was."""
        self.remove()

    def remove(self) -> None:
        """Projection no further step. A training that was broken off has not done so itself."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    @torch.no_grad()
    def _keep(self, optimizer, args, kwargs) -> None:
        self._before = {
            name: _here(weight).clone()
            for name, weight in self._weights.items()
            if weight.grad is not None
        }

    @torch.no_grad()
    def _projection(self, optimizer, args, kwargs) -> None:
        for name, before in self._before.items():
            weight, projection = _here(self._weights[name]), self.projections[name]
            update = (weight - before).to(projection.dtype)
            # Conv1D holds its weight as (in, out); a projection is symmetric.
            projected = projection @ update if name in self._transposed else update @ projection
            weight.copy_(before + projected.to(before.dtype))
        self._before = {}


def _here(weight: nn.Parameter) -> Tensor:
    """The weight's values on this process: FSDP2 shards it by rows, each with all its inputs."""
    return weight.to_local() if hasattr(weight, "to_local") else weight


def trained_projections(
    model: nn.Module, groups: Sequence[Sequence[Sequence[int]]], pad_id: int, strength: float
) -> dict[str, Tensor]:
    """Projections of the model's own linear layers that train now; adapters get none.

    Args:
        model: The model, frozen by a plan or not.
        groups: Token rows, each group of which counts the same.
        pad_id: Token id that fills batches.
        strength: As for ``input_projections``.

    Raises:
        MethodError: No linear layer inside the blocks trains.
    """
    model = unwrap(model)
    trained = {  # adapters are no parameters of a unit
        name
        for unit in find_units(model, "block")
        for name, parameter in unit.parameters.items()
        if parameter.requires_grad
    }
    return input_projections(
        mean_covariance(model, groups, projected_names(model, trained), pad_id), strength
    )


@dataclass(frozen=True)
class _Request:
    """What ``from_texts`` was asked to measure."""

    groups: list[list[str]]
    strength: float
    max_length: int

    def measure(self, model: nn.Module, processing_class) -> dict[str, Tensor]:
        """Projections of the linear layers that train."""
        if processing_class is None:
            raise MethodError(
                "InputProjectionCallback.from_texts needs the Trainer's processing_class: its "
                "tokenizer."
            )
        tokenizer = getattr(processing_class, "tokenizer", processing_class)
        groups = [encoded_rows(tokenizer, texts, self.max_length) for texts in self.groups]
        return trained_projections(model, groups, pad_token_id(tokenizer), self.strength)


@dataclass(frozen=True)
class InputProjection(Method):
    """Projection reference text from each step.

    Args:
        strength: How strongly, see ``input_projections``. Stronger projections want a higher
        learning
            rate.
        source: ``reference``: the context's reference texts; ``facts``: passages on people and
            places that ship with gradloc; ``generated``: texts sampled once from the base model;
            ``continued``: what it makes of a few words of the new documents; ``new``: the new
            documents themselves, so that what they share with one another (their manner, common
            words) moves less than what is particular to each. Only the first needs old text. Of
            several, each counts the same.
        n_texts: How many texts of each source at most. A few thousand tokens are needed for as
            many inputs.
    """

    strength: float = 1.0
    source: str | tuple[str, ...] = ("reference", "facts", "new")
    n_texts: int = 256

    def check(self) -> None:
        """Refuse options that cannot work.

        Raises:
            MethodError: A strength that is not positive, an unknown source, no text.
        """
        if not self.strength > 0:
            raise MethodError(
                f"input_projection: strength must be above 0; found {self.strength!r}."
            )
        if not self._sources():
            raise MethodError("input_projection: source names no source of text.")
        for source in self._sources():
            if source != "new":
                check_texts("input_projection", source, self.n_texts)

    def callbacks(self, context: TrainContext) -> list[TrainerCallback]:
        """The callback, with projections of the layers that the plan trains.

        Raises:
            MethodError: The plan trains no linear layer inside the blocks.
        """
        names = projected_names(context.model, planned_parameters(context.model, context.plan))
        groups = [
            new_rows(context, self.n_texts)
            if source == "new"
            else anchor_rows(context, source, self.n_texts)
            for source in self._sources()
        ]
        pad_id = pad_token_id(context.tokenizer)
        moments = mean_covariance(context.model, groups, names, pad_id)
        return [InputProjectionCallback(input_projections(moments, self.strength))]

    def _sources(self) -> tuple[str, ...]:
        return (self.source,) if isinstance(self.source, str) else tuple(self.source)
