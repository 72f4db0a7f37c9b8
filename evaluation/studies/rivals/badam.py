"""BAdam: block coordinate descent, one block at a time with a fresh Adam."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from transformers import TrainerCallback

from evaluation.studies.rivals.block_switch import BlockSwitch
from gradloc.training.methods.base import Count, Method, TrainContext


class BAdamCallback(BlockSwitch):
    """BAdam: block coordinate descent, one block at a time with a fresh Adam.

    Each turn begins with zero moments and its own bias correction. The learning-rate schedule
    runs on over all turns.

    Args:
        period: Optimizer steps of one turn. ``None``: max_steps / number of blocks, so that every
            block has one turn.
        order: ``random`` (a new permutation for each round), ``ascending`` (from the input on) or
            ``descending``.
        ends: Let embeddings, head and final norm together be one more block, the last; else they
            rest throughout.
        seed: Seed of the permutations; ``None``: that of the training.

    Raises:
        MethodError: When training starts: fewer than two blocks train.

    Example:
        >>> callbacks = [GradLocCallback(plan), BAdamCallback(period=50)]   # doctest: +SKIP

    References: Luo et al. 2024, arXiv:2404.02827, algorithm 1. The authors' code suggests
        max(batches an epoch / number of blocks, 50) steps for a turn, for long trainings.
    """

    def __init__(
        self,
        period: int | None = None,
        order: str = "random",
        *,
        ends: bool = False,
        seed: int | None = None,
    ):
        super().__init__("badam", period, seed, outside="turn" if ends else "rest", fresh=True)
        self.order = order

    def choose(self, turn: int, n_groups: int, seed: int) -> list[int]:
        """One block; each has had as many turns as any other when a round ends."""
        cycle, place = divmod(turn, n_groups)
        if self.order == "random":
            return [int(np.random.default_rng([seed, cycle]).permutation(n_groups)[place])]
        return [place if self.order == "ascending" else n_groups - 1 - place]


@dataclass(frozen=True)
class BAdam(Method):
    """BAdam in a recipe; see ``BAdamCallback``.

    Args:
        period: Optimizer steps of one turn; ``None``: such that every block has one turn.
        order: ``random``, ``ascending`` or ``descending``.
        ends: Let what lies outside the blocks be one more block.
    """

    period: Count | None = None
    order: Literal["random", "ascending", "descending"] = "random"
    ends: bool = False

    def callbacks(self, context: TrainContext) -> list[TrainerCallback]:
        """The one callback."""
        return [BAdamCallback(self.period, self.order, ends=self.ends)]
