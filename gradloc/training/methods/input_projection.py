"""Input-covariance projection: change weights least where anchor text uses their inputs most.

``input_covariance`` says which matrix a step is multiplied by, and why. No loss is added, and the
texts are not read again while training.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.pytorch_utils import Conv1D

from gradloc.data.batches import pad_token_id
from gradloc.data.corpora import general_passages
from gradloc.errors import MethodError
from gradloc.localization.plan import LayerPlan
from gradloc.models.units import find_units
from gradloc.models.wrappers import local_part, reshard, unwrap
from gradloc.training.methods.anchor_texts import (
    Source,
    anchor_rows,
    drawn,
    encoded_rows,
    fact_texts,
    new_rows,
)
from gradloc.training.methods.base import Count, Method, Positive, TrainContext
from gradloc.training.methods.extra_loss import planned_parameters
from gradloc.training.methods.input_covariance import (
    input_projections,
    linear_modules,
    mean_covariance,
    projected_names,
)
from gradloc.training.trainer_hooks import shows_progress
from gradloc.utils.numbers import check_number

logger = logging.getLogger(__name__)


class InputProjectionCallback(TrainerCallback):
    """Multiply each update of a projected layer's weight by its projection, on the input side.

        W <- W_before + (W_after - W_before) S

    It works with any optimizer, since it acts on what ``step`` did, weight decay included, with
    any plan, and under DDP and FSDP2, whose shards of a weight are whole rows. Biases and norms
    have no input to project. While a step runs, a copy of the projected weights is held.

    Args:
        projections: Canonical name of a weight (``model.layers.3.mlp.up_proj.weight``) -> S, of
            shape (in, in), from ``input_projections``; or use ``from_texts``.
        strength: Strength that they were made with, to be shown.

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

    def __init__(self, projections: Mapping[str, Tensor], strength: float | None = None):
        self.projections, self.strength = dict(projections), strength
        # Measures the projections when training starts: (model, processing_class, progress)
        # -> projections.
        self._measure: Callable[[nn.Module, Any, bool | None], dict[str, Tensor]] | None = None
        # Name -> weight, and whether it is held as (in, out).
        self._weights: dict[str, tuple[Tensor, bool]] = {}
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
        """Project all linear layers that train, as measured when training starts.

        A resumed training measures again, on the weights that it goes on from.

        Args:
            *groups: Lists of texts, each of which counts the same: anchor texts; the new documents
                themselves, so that what they share moves less than what is particular to each.
                None: the general passages that ship with gradloc.
            facts: The passages on people, places, companies and works that ship with gradloc are
                another group.
            strength: As for ``input_projections``.
            max_length: Tokens of a text that count.
            n_texts: Texts of a group at most.
            seed: Which of them, where there are more.

        Raises:
            MethodError: The strength is not above 0, or a group is a single text or empty.
        """
        check_number("input_projection: strength", strength, 0, above=True, error=MethodError)
        if any(isinstance(group, str) or not len(group) for group in groups):
            raise MethodError("InputProjectionCallback.from_texts takes lists of texts.")
        groups = groups or ([passage.text for passage in general_passages("reference")],)
        chosen = [drawn(group, n_texts, seed) for group in groups]
        if facts:
            chosen.append(fact_texts(n_texts, seed))

        def measure(model: nn.Module, processing_class, progress) -> dict[str, Tensor]:
            if processing_class is None:
                raise MethodError(
                    "InputProjectionCallback.from_texts needs the Trainer's processing_class: its "
                    "tokenizer."
                )
            tokenizer = getattr(processing_class, "tokenizer", processing_class)
            rows = [encoded_rows(tokenizer, texts, max_length) for texts in chosen]
            pad_id = pad_token_id(tokenizer)
            return trained_projections(model, rows, pad_id, strength, progress=progress)

        callback = cls({}, strength)
        callback._measure = measure
        return callback

    def on_train_begin(
        self, args, state, control, model, optimizer, processing_class=None, **kwargs
    ):
        """Find the weights and hook into the optimizer; plans are applied by now."""
        if getattr(args, "deepspeed", None):
            raise MethodError(
                "input_projection: DeepSpeed's optimizer steps on parts of its own. Train on one "
                "device, with DDP or with FSDP2."
            )
        if self._measure is not None:
            self.projections = self._measure(unwrap(model), processing_class, shows_progress(args))
        self.attach(model, getattr(optimizer, "optimizer", optimizer))

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Project every step of an optimizer from here on, in a loop of your own as well.

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
        modules = linear_modules(model)
        self._weights = {}
        for name, projection in self.projections.items():
            weight, transposed = _checked_weight(name, modules.get(name), projection)
            projection = projection.to(weight.device).contiguous()
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                # Processes may round differently, and must not drift apart.
                torch.distributed.broadcast(projection, 0)
            self.projections[name] = projection
            self._weights[name] = weight, transposed
        self._hooks = [
            optimizer.register_step_pre_hook(self._copy),
            optimizer.register_step_post_hook(self._project),
        ]

    def on_train_end(self, args, state, control, **kwargs):
        """Leave the optimizer as it was."""
        self.remove()

    def remove(self) -> None:
        """Project no further step. A training that was broken off has not done so itself."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    @torch.no_grad()
    def _copy(self, optimizer, args, kwargs) -> None:
        self._before = {
            name: local_part(weight).clone()
            for name, (weight, _) in self._weights.items()
            if weight.grad is not None
        }

    @torch.no_grad()
    def _project(self, optimizer, args, kwargs) -> None:
        for name, before in self._before.items():
            parameter, transposed = self._weights[name]
            weight, projection = local_part(parameter), self.projections[name]
            update = (weight - before).to(projection.dtype)
            # A projection is symmetric.
            projected = projection @ update if transposed else update @ projection
            weight.copy_(before + projected.to(before.dtype))
        self._before = {}


def _checked_weight(
    name: str, module: nn.Linear | Conv1D | None, projection: Tensor
) -> tuple[Tensor, bool]:
    """The weight that a projection is for, and whether it is held as (in, out), as by Conv1D."""
    if module is None or not module.weight.requires_grad:
        raise MethodError(
            f"input_projection: {name} is no weight of a linear layer that trains. Make the "
            "projections for the plan that trains; adapters (LoRA) cannot be projected."
        )
    transposed = isinstance(module, Conv1D)
    n_inputs = module.weight.shape[0 if transposed else 1]
    if projection.shape != (n_inputs, n_inputs):
        raise MethodError(
            f"input_projection: the projection of {name} is {tuple(projection.shape)}, its layer "
            f"has {n_inputs} inputs."
        )
    placements = getattr(module.weight, "placements", ())
    if any(placement.is_shard(0 if transposed else 1) for placement in placements):
        raise MethodError(
            f"input_projection: {name} is sharded over its inputs, and a projection needs all of "
            "them. Train on one device, with DDP, or without a projection "
            "(GradLocCallback.from_probes(..., projection=0))."
        )
    return module.weight, transposed


def trained_projections(
    model: nn.Module,
    groups: Sequence[Sequence[Sequence[int]]],
    pad_id: int,
    strength: float,
    plan: LayerPlan | None = None,
    progress: bool | None = None,
) -> dict[str, Tensor]:
    """Projections of the model's own linear layers that train; adapters get none.

    Args:
        model: The model.
        groups: Token rows, each group of which counts the same.
        pad_id: Token id that fills batches.
        strength: As for ``input_projections``.
        plan: Which units will train; ``None``: what requires gradients now.
        progress: Show a progress bar; ``None``: when on a terminal.

    Raises:
        MethodError: No linear layer inside the blocks trains.
    """
    model = unwrap(model)
    if plan is not None:
        trained = {n for n, p in planned_parameters(model, plan).items() if p.requires_grad}
    else:  # adapters are no parameters of a unit
        units = find_units(model, "block")
        trained = {name for u in units for name, p in u.parameters.items() if p.requires_grad}
    names = projected_names(model, trained)
    covariance = mean_covariance(model, groups, names, pad_id, progress)
    return input_projections(covariance, strength)


@dataclass(frozen=True)
class InputProjection(Method):
    """Project each step away from what anchor text sends into the layers.

    Args:
        strength: How strongly, see ``input_projections``. A stronger projection needs a higher
            learning rate.
        source: ``reference``: the context's reference texts; ``facts``: passages on people and
            places that ship with gradloc; ``new``: the rows that are trained on, so that what they
            share with one another (their style, common words) moves less than what is particular
            to each. Only the first needs old text. Of several, each counts the same.
        n_texts: How many texts of each source at most. A few thousand tokens are needed for as
            many inputs.
    """

    strength: Positive = 1.0
    source: (
        Source
        | Literal["new"]
        | Annotated[tuple[Source | Literal["new"], ...], Field(min_length=1)]
    ) = ("reference", "facts", "new")
    n_texts: Count = 256

    def callbacks(self, context: TrainContext) -> list[TrainerCallback]:
        """The callback, with projections of the layers that the plan trains.

        Raises:
            MethodError: The plan trains no linear layer inside the blocks.
        """
        sources = (self.source,) if isinstance(self.source, str) else self.source
        groups = [
            new_rows(context, self.n_texts)
            if source == "new"
            else anchor_rows(context, source, self.n_texts)
            for source in sources
        ]
        if not any(groups):
            raise MethodError(
                "input_projection: source 'new' needs training rows with input_ids that can be "
                "read ahead, and there are none. Name another source."
            )
        if not all(groups):
            logger.warning(
                "input_projection: the training rows have no input_ids that can be read ahead, so "
                "the projection is made from old text alone."
            )
            groups = [rows for rows in groups if rows]
        pad_id = pad_token_id(context.tokenizer)
        projections = trained_projections(
            context.model, groups, pad_id, self.strength, context.plan, context.progress
        )
        return [InputProjectionCallback(projections, self.strength)]
