"""Per-sequence gradients of a whole batch in one backward pass, without weight gradients."""

from gradloc.localization.gradients.check import unknown_parameters
from gradloc.localization.gradients.passes import mean_and_per_sequence, mean_gradient, per_sequence

__all__ = ["mean_and_per_sequence", "mean_gradient", "per_sequence", "unknown_parameters"]
