"""Time and memory of a plan against full training.

Comes in: units, scales, the sizes of the model, a step. Goes out: ratios, apart for forward,
backward and optimizer. It runs nothing.
"""

import math
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np

from gradloc.localization.cost.machine import Machine
from gradloc.localization.cost.step_shape import StepShape
from gradloc.localization.cost.work import StepWork, step_work
from gradloc.models.unit_info import UnitInfo, lowest_block

_WITHOUT_BYTES = Machine(1.0, math.inf, math.inf, math.inf)

_RATIOS = ("time_ratio", "memory_ratio", "ideal_time_ratio")
_PARTS = ("forward_ratio", "backward_ratio", "optimizer_ratio")


@dataclass(frozen=True)
class StepSeconds:
    """Predicted seconds of one step on ``StepShape.machine``; their ratios are what counts.

    Args:
        forward: Forward pass with the loss.
        backward: Backward pass.
        optimizer: Clipping and the optimizer's step, projected where it is.
    """

    forward: float
    backward: float
    optimizer: float

    @property
    def total(self) -> float:
        """Seconds of the step."""
        return self.forward + self.backward + self.optimizer


def predict_cost(
    units: tuple[UnitInfo, ...],
    scale: dict[str, float],
    shape: dict,
    step: StepShape | None = None,
) -> dict[str, float | int | None]:
    """Predict step time and memory of a plan relative to full training by the plain Trainer.

    Full training means the same model, batch and type with every parameter trained, the model's
    own loss, no cache, AdamW (fused) and gradient clipping, without activation checkpointing.

    Args:
        units: All units of the model, in order.
        scale: Unit name -> scale; 0 is frozen.
        shape: ``gradloc.models.units.model_shape``.
        step: How steps are set up; ``None``: 8 x 128 tokens, nothing saved or added.

    Returns:
        ``time_ratio``, and its parts ``forward_ratio``, ``backward_ratio``, ``optimizer_ratio``
        (each against the whole step of full training, so that they add up to it);
        ``ideal_time_ratio`` (multiply-adds alone); ``memory_ratio`` (peak above the weights:
        gradients, Adam's moments, kept activations, logits); ``lowest_block``: the lowest block
        the backward pass reaches. Ratios are ``None`` without ``shape`` and where nothing is
        trained.
    """
    step = step or StepShape()
    trained = np.array([scale[unit.name] > 0 for unit in units])
    lowest = lowest_block(compress(units, trained))
    if not trained.any() or not shape:
        return {**dict.fromkeys((*_RATIOS, *_PARTS)), "lowest_block": lowest}
    full, work, full_work, seconds = _against_full(units, trained, shape, step)
    ideal_full, _, _, ideal = _against_full(
        units, trained, shape, replace(step, machine=_WITHOUT_BYTES)
    )
    memory = step_memory(work, trained) / step_memory(full_work, np.ones(len(units), dtype=bool))
    ratios = (seconds.total / full.total, memory, ideal.total / ideal_full.total)
    parts = (seconds.forward, seconds.backward, seconds.optimizer)
    return {
        **{name: round(value, 4) for name, value in zip(_RATIOS, ratios, strict=True)},
        **{n: round(part / full.total, 4) for n, part in zip(_PARTS, parts, strict=True)},
        "lowest_block": lowest,
    }


def full_step(step: StepShape) -> StepShape:
    """The step of full training by the plain Trainer: what every ratio is to."""
    return replace(step, cached=False, label_loss=False, projected=False, kl_tokens=0.0)


def _against_full(units, trained, shape, step):
    """Seconds of full training, work of the plan and of full training, seconds of the plan."""
    plain = full_step(step)
    full_work, work = step_work(units, shape, plain), step_work(units, shape, step)
    full = step_seconds(units, full_work, np.ones(len(units), dtype=bool), plain)
    return full, work, full_work, step_seconds(units, work, trained, step)


def added_by(
    units: tuple[UnitInfo, ...],
    scale: dict[str, float],
    shape: dict,
    step: StepShape | None = None,
) -> dict[str, dict[str, float]]:
    """What training the embedding or the head as well would add to a plan's cost.

    Returns:
        Unit name -> ``time_ratio`` and ``memory_ratio`` added, and ``lowest_block`` then, for
        every embedding and head that the plan leaves frozen. Empty without ``shape``.
    """
    before = predict_cost(units, scale, shape, step)
    added = {}
    for unit in units if shape else ():
        if unit.kind in ("embedding", "head") and scale[unit.name] == 0:
            after = predict_cost(units, {**scale, unit.name: 1.0}, shape, step)
            added[unit.name] = {
                name: round(after[name] - (before[name] or 0.0), 4)
                for name in ("time_ratio", "memory_ratio")
            } | {"lowest_block": after["lowest_block"]}
    return added


def step_seconds(
    units: tuple[UnitInfo, ...], work: StepWork, trained: np.ndarray, step: StepShape
) -> StepSeconds:
    """Seconds of one step in which some units are trained.

    Args:
        units: All units.
        work: Their work.
        trained: Which are trained, (n_units,).
        step: ``cached`` and ``label_loss`` matter here.
    """
    reached = work.depth >= work.depth[trained].min()
    lowest = lowest_block(compress(units, trained))
    # What stands above the blocks runs in any case; with a cache, blocks from the lowest one up.
    runs = np.array(
        [
            not (step.cached and unit.in_stack and (lowest is None or unit.block < lowest))
            for unit in units
        ]
    )
    forward = work.forward[runs].sum() + work.head_forward
    backward = work.through[reached].sum() + work.weights[trained].sum()
    head = work.loss_backward
    if any(unit.kind != "head" for unit, is_it in zip(units, trained, strict=True) if is_it):
        head += work.head_through
    if step.label_loss:  # the gradient of the hidden states comes with the loss
        forward += head
    else:
        backward += head
    optimizer = work.update[trained].sum() + work.projection[trained].sum()
    if work.kl is not None:
        of_pass, passes = work.kl
        extra = step_seconds(units, of_pass, trained, step.kl_pass)
        forward += passes * extra.forward
        backward += passes * extra.backward
    return StepSeconds(float(forward), float(backward), float(optimizer))


def step_memory(work: StepWork, trained: np.ndarray) -> float:
    """Peak bytes above the weights.

    Adam's moments, projections and a copy of the start are there all the time. While the backward
    pass goes down, activations are let go and gradients come; the peak is the largest sum on that
    way, or, where steps are projected, in the optimizer's step, which needs a copy of what it
    changes. A pass over old text comes first, and its gradients stay for the others to be added.
    """
    gradient = work.gradient * trained
    there_always = 2 * gradient.sum() + ((work.projections + work.start) * trained).sum()
    peaks = [_backward_peak(work, trained), gradient.sum() + (work.copied * trained).sum()]
    if work.kl is not None:
        reached = work.depth >= work.depth[trained].min()
        kept = (work.kept * reached + work.kept_trained * trained).sum()
        peaks += [_backward_peak(work.kl[0], trained), gradient.sum() + kept + work.logits]
    return float(there_always + max(peaks))


def _backward_peak(work: StepWork, trained: np.ndarray) -> float:
    """Bytes of activations, logits and gradients at the fullest moment of a backward pass."""
    reached = work.depth >= work.depth[trained].min()
    kept = work.kept * reached + work.kept_trained * trained
    gradient = work.gradient * trained
    early = (work.early * trained).sum()
    on_the_way = [kept.sum() + work.logits, kept.sum() + work.logits_in_head + early]
    for depth in np.unique(work.depth):
        there = (work.depth >= depth) | (work.early > 0)
        late = (work.late * trained).sum() * (depth == -1)
        on_the_way.append(kept[work.depth < depth].sum() + gradient[there].sum() + late)
    return max(on_the_way)
