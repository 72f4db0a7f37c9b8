"""What the cost model says of an arm, beside what is measured.

Comes in: an arm and a model. Goes out: predicted ratios. It is the benchmark's only use of
``gradloc.localization.cost``.
"""

from torch import nn

from gradloc.experiments.bench.arms import REFERENCE, Arm
from gradloc.experiments.bench.settings import BenchSettings
from gradloc.localization.cost import StepShape, predict_cost
from gradloc.models.units import model_shape

NOTHING = {"time_ratio": None, "memory_ratio": None, "ideal_time_ratio": None}


def predict(arm: Arm, model: nn.Module, settings: BenchSettings) -> dict[str, float | None]:
    """Predicted ratios to full training.

    Args:
        arm: The arm.
        model: The model, for its sizes.
        settings: Batch size and length.

    Returns:
        ``time_ratio``, ``memory_ratio`` and ``ideal_time_ratio`` (multiply-adds alone). All
        ``None`` for arms without a plan, of which the cost model says nothing, and for those in
        bfloat16, whose speed depends on the processor.
    """
    if arm.name == REFERENCE:
        return dict.fromkeys(NOTHING, 1.0)
    if arm.plan is None or arm.bf16:
        return dict(NOTHING)
    step = StepShape(
        sequence_length=settings.sequence_length,
        batch_size=settings.batch_size,
        cached=arm.cached,
        label_loss=arm.label_loss,
        projected=arm.projected,
        dtype=settings.dtype,
    )
    found = predict_cost(arm.plan.units, arm.plan.scale, model_shape(model), step)
    return {name: found[name] for name in NOTHING}
