"""Time and memory of a plan against full training, predicted.

Both are linear in which units are trained and which ones the backward pass reaches, so that a
budget can choose among plans by the same rows that predict them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
from typing_extensions import TypedDict

from gradloc.localization.cost.machine import Machine
from gradloc.localization.cost.step_shape import StepShape
from gradloc.localization.cost.work import StepWork, step_work
from gradloc.models.unit_info import Count, UnitInfo, lowest_block

_WITHOUT_BYTES = Machine(1.0, math.inf, math.inf, math.inf)


class PredictedCost(TypedDict, total=False):
    """Cost of a plan relative to full training; see ``predict_cost``."""

    time_ratio: float | None
    memory_ratio: float | None
    ideal_time_ratio: float | None
    forward_ratio: float | None
    backward_ratio: float | None
    optimizer_ratio: float | None
    lowest_block: Count | None


class CostRows(NamedTuple):
    """Costs as ``fixed + trained @ t + reached @ r``, with 0-1 vectors t and r over the units.

    Args:
        trained: Cost of each unit where it is trained, (m, n_units).
        reached: Cost of each unit where the backward pass reaches it, (m, n_units).
        fixed: What every plan costs, (m,).
    """

    trained: np.ndarray
    reached: np.ndarray
    fixed: np.ndarray

    def of(self, work: StepWork, trained: np.ndarray) -> np.ndarray:
        """The costs of training some units, (m,)."""
        reached = work.depth >= work.depth[trained].min()
        return self.fixed + self.trained @ trained + self.reached @ reached


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
    shape: Mapping[str, Any],
    step: StepShape | None = None,
) -> PredictedCost:
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
        unknown = dict.fromkeys(PredictedCost.__annotations__)
        return PredictedCost(**unknown | {"lowest_block": lowest})
    full_seconds, full_bytes = full_training(units, shape, step)
    work = step_work(units, shape, step)
    seconds = step_seconds(units, work, trained, step)
    ideal_step = replace(step, machine=_WITHOUT_BYTES)
    ideal = step_seconds(units, step_work(units, shape, ideal_step), trained, ideal_step)
    return {
        "time_ratio": round(seconds.total / full_seconds, 4),
        "memory_ratio": round(step_memory(work, trained) / full_bytes, 4),
        "ideal_time_ratio": round(ideal.total / full_training(units, shape, ideal_step)[0], 4),
        "forward_ratio": round(seconds.forward / full_seconds, 4),
        "backward_ratio": round(seconds.backward / full_seconds, 4),
        "optimizer_ratio": round(seconds.optimizer / full_seconds, 4),
        "lowest_block": lowest,
    }


def full_training(
    units: tuple[UnitInfo, ...], shape: Mapping[str, Any], step: StepShape
) -> tuple[float, float]:
    """Seconds and bytes of a step of full training by the plain Trainer: what ratios are to."""
    everything, work = np.ones(len(units), dtype=bool), step_work(units, shape, step.plain)
    seconds = step_seconds(units, work, everything, step.plain)
    return seconds.total, step_memory(work, everything)


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
    only_head = all(unit.kind == "head" for unit in compress(units, trained))
    rows = time_rows(units, work, step, through_head=not only_head)
    return StepSeconds(*rows.of(work, trained).tolist())


def time_rows(
    units: tuple[UnitInfo, ...], work: StepWork, step: StepShape, *, through_head: bool = True
) -> CostRows:
    """Seconds of forward pass, backward pass and optimizer, three rows.

    Args:
        units: All units.
        work: Their work.
        step: As the work was counted for.
        through_head: Whether anything but a head is trained.
    """
    reached = np.array([np.zeros(len(units)), work.through, np.zeros(len(units))])
    trained = np.array([np.zeros(len(units)), work.weights, work.update + work.projection])
    head = work.loss_backward + through_head * work.head_through
    # With gradloc's loss, the gradient of the hidden states comes in the forward pass.
    fixed = np.array([head, 0.0, 0.0] if step.label_loss else [0.0, head, 0.0])
    fixed[0] += work.head_forward
    if step.cached:
        # A block runs forward if anything up to its last unit is trained.
        last = {unit.block: i for i, unit in enumerate(units) if unit.in_stack}
        for i, unit in enumerate(units):
            reached[0, last.get(unit.block, i)] += work.forward[i]
    else:
        fixed[0] += work.forward.sum()
    if work.kl is not None:
        of_pass, passes = work.kl
        extra = time_rows(units, of_pass, step.kl_pass, through_head=through_head)
        for mine, theirs in zip((trained, reached, fixed), extra, strict=True):
            mine[:2] += passes * theirs[:2]  # the optimizer steps once
    return CostRows(trained, reached, fixed)


def step_memory(work: StepWork, trained: np.ndarray) -> float:
    """Peak bytes above the weights."""
    return float(memory_rows(work).of(work, trained).max())


def memory_rows(work: StepWork) -> CostRows:
    """Bytes above the weights at every moment of a step that may be the fullest, a row each.

    Adam's moments, projections and a copy of the start are there all the time. While the backward
    pass goes down, activations are let go and gradients come; the peak is the largest sum on that
    way, or, where steps are projected, in the optimizer's step, which needs a copy of what it
    changes. A KL pass over old text comes first, and its gradients stay for the others to be
    added.
    """
    moments = [(work.gradient + work.copied, 0 * work.kept, 0.0), *_backward_moments(work)]
    if work.kl is not None:
        moments += _backward_moments(work.kl[0])
        moments.append((work.gradient + work.kept_trained, work.kept, work.logits))
    trained, reached, fixed = (np.array(column) for column in zip(*moments, strict=True))
    always = 2 * work.gradient + work.projections + work.start
    return CostRows(always + trained, reached, fixed)


def _backward_moments(work: StepWork) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Bytes of trained units, of reached ones and in any case, as a backward pass goes down."""
    moments = [
        (work.kept_trained, work.kept, work.logits),
        (work.kept_trained + work.early, work.kept, work.logits_in_head),
    ]
    for depth in np.unique(work.depth):
        waiting, there = work.depth < depth, (work.depth >= depth) | (work.early > 0)
        trained = work.gradient * there + work.kept_trained * waiting
        moments.append((trained + work.late * (depth == -1), work.kept * waiting, 0.0))
    return moments
