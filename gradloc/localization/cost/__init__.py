"""What a plan will cost: step time and memory against full training, predicted.

No model is measured; ``calibrate`` times the machine alone.
"""

from gradloc.localization.cost.machine import MACHINE, Machine, calibrate
from gradloc.localization.cost.prediction import (
    predict_cost,
    step_memory,
    step_seconds,
)
from gradloc.localization.cost.step_shape import DEFAULT_KL_TOKENS, KL_LENGTH, StepShape
from gradloc.localization.cost.work import StepWork, step_work

__all__ = [
    "DEFAULT_KL_TOKENS",
    "KL_LENGTH",
    "MACHINE",
    "Machine",
    "StepShape",
    "StepWork",
    "calibrate",
    "predict_cost",
    "step_memory",
    "step_seconds",
    "step_work",
]
