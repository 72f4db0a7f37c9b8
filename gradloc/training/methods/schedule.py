"""Learning-rate schedules for continued training.

Comes in: a recipe's training arguments. Goes out: the same with a schedule of Transformers set.
It makes no scheduler of its own.
"""

from dataclasses import dataclass
from typing import Any

from gradloc.errors import MethodError
from gradloc.training.methods.base import Method

_SET_HERE = ("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio")


@dataclass(frozen=True)
class Rewarm(Method):
    """Re-warm the learning rate from 0 to its peak, then re-decay it along a cosine.

    With p = ``learning_rate`` and T steps: linear from 0 to p over the first ``warmup`` x T
    steps, then p (r + (1 - r) (1 + cos(pi x)) / 2) with r = ``min_ratio`` and x the share of the
    remaining steps that is done.

    Args:
        warmup: Share of all steps, 0 to below 1.
        min_ratio: The last rate / the peak, 0 to 1.

    References:
        Ibrahim et al. 2024, arXiv:2403.08763, sections 4 and 6 (re-warming and re-decaying; ends
        at a tenth of the peak).
    """

    warmup: float = 0.1
    min_ratio: float = 0.1

    def check(self) -> None:
        """Refuse shares out of range."""
        if not 0 <= self.warmup < 1:
            raise MethodError(f"rewarm: warmup must lie in [0, 1); found {self.warmup!r}.")
        if not 0 <= self.min_ratio <= 1:
            raise MethodError(f"rewarm: min_ratio must lie in [0, 1]; found {self.min_ratio!r}.")

    def training_arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments with ``cosine_with_min_lr`` and a warm-up.

        Raises:
            MethodError: The recipe sets a schedule too.
        """
        both = [name for name in _SET_HERE if name in given]
        if both:
            raise MethodError(
                f"rewarm sets the schedule, and so does training.{both[0]}. Leave out one of them."
            )
        return {
            **given,
            "lr_scheduler_type": "cosine_with_min_lr",
            "lr_scheduler_kwargs": {"min_lr_rate": self.min_ratio},
            # Below 1, Transformers takes it as a share of all steps.
            "warmup_steps": self.warmup,
        }
