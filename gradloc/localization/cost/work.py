"""What a training step does in each unit, in seconds and bytes.

Multiply-adds per token: a linear layer of p parameters costs 2p forward, 2p for the gradient of
its input and 2p for that of its weights; attention over T tokens with queries of width q costs
4 T q forward and 2.5 times as much backward (the scores are computed again); the head 2 V d each
way. Beside them stand bytes: elementwise work in the blocks and over the logits, new gradients,
the optimizer's step. A frozen unit needs no weight gradient and no step, and below the lowest
trained unit nothing is passed backward. The lowest unit itself passes the gradient through its
projections, since the norm that feeds them is part of it. Attention and MLP count as one above the
other; where they stand side by side, up to half of the lowest block is counted too much.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradloc.localization.cost.step_shape import StepShape
from gradloc.models.unit_info import UnitInfo

# Tensors read and written per token by elementwise work, counted in Transformers' Llama: a norm
# touches its width 8 times, rotary embeddings queries and keys 8 times, a residual sum its width
# 3 times, an activation 2 and the gate's product 3 times.
_NORM_AND_RESIDUAL, _ROTARY, _ACTIVATION, _GATE = 11, 8, 2, 3
# Backward touches more, but in pages that the forward pass was given already. Fitted to steps of a
# model as large as SmolLM2-135M, 512 tokens, one core of an AMD EPYC (tests/test_cost.py).
_BACKWARD = 0.7
# Elementwise work over the logits: forward they are read and turned into log-probabilities;
# backward a gradient is zeroed, read with the log-probabilities, written and read by the head.
_LOGITS_FORWARD, _LOGITS_BACKWARD = 3, 5 * _BACKWARD / 2
# A gradient is written once, to memory that is new at every step, since the Trainer drops gradients
# after it. Fitted to the same steps.
_GRADIENT = 4
# A tied embedding's second gradient is zeroed, filled and added to the first.
_SECOND_GRADIENT = 5
# Log-probabilities and two gradients of the logits, all float32, when the backward pass begins.
_LOGITS_KEPT = 3
# A gradient is read by clipping and scaled in place; AdamW reads gradient, weight and two moments
# and writes the last three.
_UPDATE = 10
# A projected update: the weights are copied, subtracted, the update multiplied, added, written
# back.
_PROJECTED_UPDATE = 10
_PROJECTION_BYTES = 4  # projections are float32
# gradloc.models.label_loss: logits of one chunk, and their probabilities.
_CHUNK_BYTES, _CHUNK_COPIES = 64 * 2**20, 2


@dataclass(frozen=True)
class StepWork:
    """Work of one step by unit; arrays are (n_units,), in the units' order.

    Args:
        depth: Place of each unit between the embeddings (-1) and what stands above the blocks;
            the backward pass goes from high to low.
        forward: Seconds of its forward pass.
        through: Seconds for the gradient of its input.
        weights: Seconds for the gradient of its weights.
        update: Seconds of clipping and of the optimizer's step.
        kept: Bytes of activations kept once the backward pass goes through it.
        kept_trained: Bytes kept beside them where it is trained.
        gradient: Bytes of its gradient; Adam's moments take twice as many.
        early: Bytes of its gradient that exist from the beginning of the backward pass (a head).
        late: Bytes of a second copy at its end (a tied embedding, which gets two gradients).
        head_forward: Seconds of head and loss forward.
        head_through: Seconds for the gradient of the head's input.
        loss_backward: Seconds of the loss backward.
        logits: Bytes of logits and what is made of them, at their most.
        logits_in_head: Bytes of logits while the head's weight gradient is computed.
        projection: Seconds of projecting its update; 0 where steps are not projected.
        projections: Bytes of its projections, which are there all the time.
        copied: Bytes of its weights' copy while the optimizer steps.
        start: Bytes of the copy of where its weights started, which is there all the time.
        kl: Work of a KL pass over old text, and how many there are a step; ``None``: none.
    """

    depth: np.ndarray
    forward: np.ndarray
    through: np.ndarray
    weights: np.ndarray
    update: np.ndarray
    kept: np.ndarray
    kept_trained: np.ndarray
    gradient: np.ndarray
    early: np.ndarray
    late: np.ndarray
    head_forward: float
    head_through: float
    loss_backward: float
    logits: float
    logits_in_head: float
    projection: np.ndarray
    projections: np.ndarray
    copied: np.ndarray
    start: np.ndarray
    kl: tuple["StepWork", float] | None = None


def step_work(units: tuple[UnitInfo, ...], shape: Mapping[str, Any], step: StepShape) -> StepWork:
    """Count the work of one step in every unit.

    Args:
        units: All units of the model, in order.
        shape: ``gradloc.models.units.model_shape``; sizes that an older profile lacks are
            estimated.
        step: Batch, length, type, machine.
    """
    machine, n_tokens, each = step.machine, step.n_tokens, step.bytes_each
    sizes = np.array([float(unit.n_parameters) for unit in units])
    in_stack = np.array([unit.in_stack for unit in units])
    heads = _heads(units, shape)
    widths = np.array([_widths(unit, shape) for unit in units]).reshape(len(units), 3)
    moved, kept, kept_trained = widths.T * n_tokens * each
    linear = 2 * n_tokens * np.array([_used(unit, shape) for unit in units]) * in_stack
    attends = np.array([unit.kind in ("attention", "block") for unit in units])
    context = 4 * step.sequence_length * _query_size(shape) * n_tokens * attends
    head = 2 * shape["vocab_size"] * shape["hidden_size"] * _scored(step)
    fresh, new = machine.fresh_bytes_per_second, machine.new_bytes_per_second
    logits = 4 * shape["vocab_size"] * _scored(step)  # float32 in every case
    kept_logits = _LOGITS_KEPT * logits
    if step.label_loss:
        kept_logits = _CHUNK_COPIES * min(logits, _CHUNK_BYTES)
    products, moments, copied = np.array(
        [_projected(unit, shape) if step.projected else (0, 0, 0) for unit in units], dtype=float
    ).reshape(len(units), 3).T  # fmt: skip
    copied = copied * each
    gradient = sizes * each
    is_tied = not any(unit.kind == "head" for unit in units)
    kl = None
    if step.kl_tokens:
        kl = step_work(units, shape, step.kl_pass), step.kl_tokens / step.kl_pass.n_tokens
    return StepWork(
        depth=_depth(units),
        forward=(linear + context) / machine.products_per_second + moved / fresh,
        # What is kept for the backward pass is memory that the step takes anew; what is dropped
        # at once lends its own to what comes next.
        through=(linear + 2.5 * context) / machine.products_per_second
        + _BACKWARD * moved / fresh
        + kept / new,
        weights=(linear + head * heads) / machine.products_per_second
        + kept_trained / new
        # A tied embedding gets a second gradient, which is added to the first.
        + gradient * (_GRADIENT + _SECOND_GRADIENT * (heads & is_tied)) / fresh,
        update=_UPDATE * gradient / machine.stream_bytes_per_second,
        kept=kept,
        kept_trained=kept_trained,
        gradient=gradient,
        early=gradient * heads,
        late=gradient * (heads & is_tied),
        head_forward=head / machine.products_per_second
        + _LOGITS_FORWARD * logits / fresh
        + kept_logits / new,
        head_through=head / machine.products_per_second,
        loss_backward=_LOGITS_BACKWARD * logits / fresh,
        logits=kept_logits,
        logits_in_head=kept_logits if step.label_loss else logits,
        projection=2 * products / machine.products_per_second
        + _PROJECTED_UPDATE * copied / machine.stream_bytes_per_second,
        projections=_PROJECTION_BYTES * moments,
        copied=copied,
        start=gradient * step.projected,
        kl=kl,
    )


def _scored(step: StepShape) -> float:
    """Positions at which head and loss are computed."""
    return step.n_tokens * (step.labelled_fraction if step.label_loss else 1.0)


def _depth(units: tuple[UnitInfo, ...]) -> np.ndarray:
    """Embeddings below the blocks, final norm and head above, whatever their order of names."""
    return np.array(
        [
            i if unit.in_stack else -1 if unit.kind == "embedding" else len(units)
            for i, unit in enumerate(units)
        ]
    )


def _heads(units: tuple[UnitInfo, ...], shape: Mapping[str, Any]) -> np.ndarray:
    """Which units hold the head's weight: a head, or the embedding that it is tied to."""
    is_tied = not any(unit.kind == "head" for unit in units)
    least = shape["vocab_size"] * shape["hidden_size"]
    return np.array(
        [
            unit.kind == "head"
            or (is_tied and unit.kind == "embedding" and unit.n_parameters >= least)
            for unit in units
        ]
    )


def _query_size(shape: Mapping[str, Any]) -> int:
    return shape.get("query_size") or shape["hidden_size"]


def _used(unit: UnitInfo, shape: Mapping[str, Any]) -> float:
    """Parameters of a unit that one token meets: of routed experts only those it is sent to."""
    experts = shape.get("expert_parameters") or []
    if unit.kind not in ("mlp", "block") or unit.block is None or unit.block >= len(experts):
        return unit.n_parameters
    idle = 1 - shape["n_experts_per_token"] / shape["n_experts"]
    return unit.n_parameters - idle * experts[unit.block]


def _inner_width(unit: UnitInfo, shape: Mapping[str, Any]) -> tuple[float, bool]:
    """Width between the projections of an MLP, as one token meets it, and whether it is gated."""
    hidden = shape["hidden_size"]
    attention = 2 * hidden * (_query_size(shape) + shape["kv_size"]) if unit.kind == "block" else 0
    weights = max(0.0, _used(unit, shape) - attention)
    # A gated MLP has three projections, another two; 2.5 lies between, biases on either side.
    ffn = shape.get("ffn_size")
    gated = not ffn or bool(shape.get("n_experts")) or weights / (hidden * ffn) > 2.5
    return weights / ((3 if gated else 2) * hidden), gated


def _projected(unit: UnitInfo, shape: Mapping[str, Any]) -> tuple[float, float, float]:
    """Of a unit's linear layers: multiply-adds of projecting them, sizes of projections and
    weights.

    Layers that read the same share a projection. Routed experts are no linear layers of their own
    and get none.
    """
    hidden, query, kv = shape["hidden_size"], _query_size(shape), shape["kv_size"]
    layers: list[tuple[float, float]] = []  # (outputs, inputs) of all that read the same
    if unit.in_stack and unit.kind in ("attention", "block"):
        layers += [(query + 2 * kv, hidden), (hidden, query)]
    if unit.in_stack and unit.kind in ("mlp", "block") and not shape.get("n_experts"):
        inner, gated = _inner_width(unit, shape)
        layers += [(inner * (1 + gated), hidden), (hidden, inner)]
    return (
        sum(outputs * inputs**2 for outputs, inputs in layers),
        sum(inputs**2 for _, inputs in layers),
        sum(outputs * inputs for outputs, inputs in layers),
    )


def _widths(unit: UnitInfo, shape: Mapping[str, Any]) -> np.ndarray:
    """Numbers a token: touched by elementwise work, kept, and kept beside where trained.

    Kept are the unit's input and what its own products need backward (queries, keys, values and
    their mixture; gate, its activation and the other projection); where the unit is trained also
    what its weights are multiplied with (the normed input twice, the MLP's inner product). Checked
    against the tensors that autograd saves.
    """
    hidden, query, kv = shape["hidden_size"], _query_size(shape), shape["kv_size"]
    found = np.zeros(3)
    if not unit.in_stack:
        return found
    if unit.kind in ("attention", "block"):
        found += (
            _NORM_AND_RESIDUAL * hidden + _ROTARY * (query + kv) + 2 * query,
            hidden + 2 * query + 2 * kv,
            2 * hidden,
        )
    if unit.kind in ("mlp", "block"):
        inner, gated = _inner_width(unit, shape)
        found += (
            _NORM_AND_RESIDUAL * hidden + (_ACTIVATION + _GATE * gated) * inner,
            hidden + (3 if gated else 1) * inner,
            2 * hidden + inner,
        )
    return found
