"""Sizes and counts of a benchmark, without torch: the command line reads its options from them."""

from dataclasses import dataclass
from typing import Literal

from gradloc.errors import GradlocError

# Steps of a run before the timed ones; Adam makes its state in the first.
WARMUP_STEPS = 1


@dataclass(frozen=True)
class BenchConfig:
    """Sizes and counts of a benchmark, the same for all arms.

    Args:
        model: Model to train; gradloc --help says what it may be.
        batch_size: Sequences a step.
        sequence_length: Tokens a sequence; all of them are labelled.
        dtype: Type of the weights in all arms.
        turns: How often each arm is timed; intervals are over turns.
        steps: Timed steps of an arm in each turn.
        memory_repeats: How often each arm's peak memory is measured; 0: not at all.
        seed: Seed of the token ids, of the order of the arms and of what arms draw.

    Raises:
        GradlocError: A count is too small.
    """

    model: str
    batch_size: int = 8
    sequence_length: int = 128
    dtype: Literal["float32", "bfloat16"] = "float32"
    turns: int = 5
    steps: int = 3
    memory_repeats: int = 2
    seed: int = 0

    def __post_init__(self):
        least = {"batch_size": 1, "sequence_length": 2, "turns": 1, "steps": 1, "memory_repeats": 0}
        low = [f"{n} {getattr(self, n)} (at least {m})" for n, m in least.items()
               if getattr(self, n) < m]  # fmt: skip
        if low:
            raise GradlocError(f"bench: too small: {', '.join(low)}.")

    @property
    def steps_a_run(self) -> int:
        """Steps of an arm in each turn, which is one pass over the rows."""
        return WARMUP_STEPS + self.steps
