"""What a plan will cost: predicted step time and memory against full training.

Comes in: units with their scales and the sizes of the model. Goes out: ratios. It runs nothing.

Multiply-adds per token: a linear layer of p parameters costs 2p forward, 2p for the gradient of
its input and 2p for that of its weights; attention over a context of T tokens costs 4 T d forward
and 2.5 times as much backward; the head 2 V d each way. A frozen unit needs no weight gradient,
and below the lowest trained unit nothing needs any.
"""

from gradloc.profile import UnitInfo

# Sequence length and batch size the ratios are predicted for when nothing else is said.
SEQUENCE_LENGTH = 128
BATCH_SIZE = 8


def predict_cost(
    units: tuple[UnitInfo, ...],
    scale: dict[str, float],
    shape: dict[str, int],
    *,
    sequence_length: int = SEQUENCE_LENGTH,
    batch_size: int = BATCH_SIZE,
) -> dict[str, float | int | None]:
    """Predict step time and memory of a plan relative to full training.

    Args:
        units: All units of the model, in order.
        scale: Unit name -> scale; 0 is frozen.
        shape: ``gradloc.layers.model_shape``.
        sequence_length: Tokens a sequence.
        batch_size: Sequences a step.

    Returns:
        ``time_ratio`` (forward and backward, without the optimizer's own step), ``memory_ratio``
        (gradients, Adam's moments, kept activations and logits, above the weights, fp32) and
        ``lowest_block``: the lowest block the backward pass reaches, ``None`` if none.
        Without ``shape`` only ``lowest_block``.
    """
    trained = {unit.name for unit in units if scale[unit.name] > 0}
    lowest = next((i for i, unit in enumerate(units) if unit.name in trained), None)
    if lowest is None:
        return {"time_ratio": None, "memory_ratio": None, "lowest_block": None}
    lowest_unit = units[lowest]
    lowest_block = 0 if lowest_unit.kind == "embedding" else lowest_unit.block
    if not shape:
        return {"time_ratio": None, "memory_ratio": None, "lowest_block": lowest_block}
    everything = {unit.name for unit in units}
    time = [_step_time(units, names, shape, sequence_length) for names in (trained, everything)]
    memory = [
        _step_memory(units, names, shape, sequence_length * batch_size)
        for names in (trained, everything)
    ]
    return {
        "time_ratio": round(time[0] / time[1], 3),
        "memory_ratio": round(memory[0] / memory[1], 3),
        "lowest_block": lowest_block,
    }


def _step_time(
    units: tuple[UnitInfo, ...], trained: set[str], shape: dict[str, int], sequence_length: int
) -> float:
    """Multiply-adds of one token, forward and backward."""
    hidden = shape["hidden_size"]
    attention = 4 * sequence_length * hidden
    head = 2 * shape["vocab_size"] * hidden
    total, reached = 2.0 * head, False  # the head runs forward and passes its input's gradient
    total += head * any(
        unit.name in trained and unit.kind in ("embedding", "head") for unit in units
    )
    for unit in units:
        if not unit.in_stack:
            reached |= unit.kind == "embedding" and unit.name in trained
            continue
        linear = 2 * unit.n_parameters
        context = attention if unit.kind in ("attention", "block") else 0
        total += linear + context
        if reached:
            total += linear + 2.5 * context
        elif unit.name in trained:
            # The lowest trained unit passes no gradient below itself: its first projections
            # (queries, keys and values; up and gate) need none for their input.
            first = 2 * (hidden**2 + 2 * hidden * shape["kv_size"])
            total += linear * 0.5 if unit.kind == "mlp" else linear - first + 2.5 * context
            reached = True
        total += linear * (unit.name in trained)
    return total


def _step_memory(
    units: tuple[UnitInfo, ...], trained: set[str], shape: dict[str, int], n_tokens: int
) -> float:
    """Bytes above the weights: gradient and two moments, kept activations, logits."""
    hidden = shape["hidden_size"]
    parameters = sum(unit.n_parameters for unit in units if unit.name in trained)
    reached, activations = False, 0.0
    for unit in units:
        reached |= unit.name in trained and unit.kind != "head"
        if unit.in_stack and reached:
            # Attention keeps its input, normed input, queries, keys, values and output; an MLP
            # its input, normed input and about four tensors of its inner width. assumption:
            # three projections to an MLP, as in gated ones.
            attention = 5 * hidden + 2 * shape["kv_size"]
            inner = 4 * unit.n_parameters / (3 * hidden)
            activations += {"attention": attention, "mlp": 2 * hidden + inner}.get(
                unit.kind, attention + 2 * hidden + inner
            )
    logits = 3 * shape["vocab_size"]  # logits, their float32 copy and their gradient
    return 12.0 * parameters + 4.0 * n_tokens * (activations + logits)
