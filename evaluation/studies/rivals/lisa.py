"""LISA: a few random blocks train at a time."""

from dataclasses import dataclass

import numpy as np
from transformers import TrainerCallback

from evaluation.studies.rivals.block_switch import BlockSwitch
from gradloc.errors import MethodError
from gradloc.training.methods.base import Count, Method, TrainContext


class LisaCallback(BlockSwitch):
    """LISA: in each period train a few random blocks, and what lies outside the blocks.

    Args:
        n_blocks: Blocks awake at a time.
        period: Optimizer steps between two draws.
        ends: Keep embeddings, head and final norm awake, as far as the plan trains them; else
            they rest throughout.
        seed: Seed of the draws; ``None``: that of the training.

    Raises:
        MethodError: When training starts: no more blocks train than are to be awake, so that none
            would ever rest.

    Example:
        >>> callbacks = [GradLocCallback(plan), LisaCallback(n_blocks=2)]   # doctest: +SKIP

    References: Pan et al. 2024, arXiv:2403.17919, algorithm 1. The paper writes a draw for each
        block on its own, with probability n_blocks / number of blocks; here, as in implementations
        of it, exactly ``n_blocks`` are drawn.
    """

    def __init__(
        self, n_blocks: int = 2, period: int = 20, *, ends: bool = True, seed: int | None = None
    ):
        super().__init__("lisa", period, seed, outside="awake" if ends else "rest", fresh=False)
        self.n_blocks = n_blocks

    def choose(self, turn: int, n_groups: int, seed: int) -> list[int]:
        """Random blocks; no draw depends on those before it."""
        drawn = np.random.default_rng([seed, turn]).choice(n_groups, self.n_blocks, replace=False)
        return drawn.tolist()

    def check_groups(self, n_groups: int) -> None:
        """Refuse a model in which no block would ever rest."""
        if n_groups <= self.n_blocks:
            raise MethodError(
                f"lisa: {n_groups} blocks train under this plan and n_blocks is {self.n_blocks}, "
                "so no block would ever rest. Lower n_blocks, or take a plan that trains more "
                "blocks."
            )


@dataclass(frozen=True)
class Lisa(Method):
    """LISA in a recipe; see ``LisaCallback``.

    Args:
        n_blocks: Blocks awake at a time.
        period: Optimizer steps between two draws.
        ends: Keep what lies outside the blocks awake, as far as the plan trains it.
    """

    n_blocks: Count = 2
    period: Count = 20
    ends: bool = True

    def callbacks(self, context: TrainContext) -> list[TrainerCallback]:
        """The one callback."""
        return [LisaCallback(self.n_blocks, self.period, ends=self.ends)]
