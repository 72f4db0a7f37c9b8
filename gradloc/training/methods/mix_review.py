"""Mix-review: old rows beside the new ones, fewer from epoch to epoch.

Comes in: rows of the update documents, and texts whose behaviour is to be kept. Goes out: the rows
of all epochs, laid out in the order in which they are read. It changes no loss.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradloc.data.injection.rows import rows_per_step
from gradloc.errors import MethodError
from gradloc.training.methods.anchor_texts import Source, check_texts
from gradloc.training.methods.base import Method, Rows, TrainContext
from gradloc.training.methods.replay import draw_rows, old_rows


@dataclass(frozen=True)
class MixReview(Method):
    """Mix-review: each epoch reviews old rows, fewer from epoch to epoch.

    Epoch e (counted from 0) holds all n new rows and ``int(n * mix_ratio * decay ** e)`` old rows,
    drawn anew. The epochs are laid out one after the other, each shuffled by seed, and read in
    that order, so training becomes one pass over the whole layout by ``max_steps``.

    How many epochs there are follows from the arguments: ``num_train_epochs``, or as many visits
    of new rows as ``max_steps`` would make without review. With ``extra``, training is as much
    longer as there are old rows; without it (training by ``max_steps`` only), the layout is cut.

    Args:
        mix_ratio: Old rows for each new row in the first epoch, >= 0.
        decay: Factor on the ratio from each epoch to the next, 0 to 1.
        source: As in ``Replay``.
        n_texts: As in ``Replay``.
        packing: As in ``Replay``.
        extra: As in ``Replay``.

    References: He et al. 2021, arXiv:1910.07117, section 4. Ratio 4 and decay 0.7 are those that
        "Continual Knowledge Learning" (arXiv:2110.03215) uses.
    """

    mix_ratio: float = 4.0
    decay: float = 0.7
    source: Source = "reference"
    n_texts: int = 256
    packing: bool = False
    extra: bool = True

    def check(self) -> None:
        """Refuse options that cannot work.

        Raises:
            MethodError: A negative ratio, a decay outside [0, 1], an unknown source, or no texts.
        """
        if self.mix_ratio < 0 or not 0 <= self.decay <= 1:
            raise MethodError(
                f"mix_review: mix_ratio is {self.mix_ratio} and decay {self.decay}; the ratio must "
                "be 0 or more and the decay from 0 to 1."
            )
        check_texts("mix_review", self.source, self.n_texts)

    def training_arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        """The same with rows read in the order of the layout.

        Raises:
            MethodError: Another order is asked for.
        """
        strategy = given.get("train_sampling_strategy", "sequential")
        if strategy != "sequential":
            raise MethodError(
                f"mix_review: train_sampling_strategy is {strategy!r}, but the epochs are laid out "
                "in order (each of them shuffled). Remove that argument."
            )
        return {**given, "train_sampling_strategy": "sequential"}

    def rows(self, rows: Rows, context: TrainContext) -> Rows:
        """All epochs in order; ``context.arguments.max_steps`` becomes the length of one pass.

        Raises:
            MethodError: There is no text to replay, or the rows have columns that replayed rows
                cannot have.
        """
        arguments, n_new = context.arguments, len(rows)
        by_steps = arguments.max_steps > 0
        per_step = rows_per_step(arguments)
        visits = (
            arguments.max_steps * per_step
            if by_steps
            else math.ceil(arguments.num_train_epochs * n_new)
        )
        counts = review_counts(n_new, visits, self.mix_ratio, self.decay)
        pool, most = [], max(n_old for _, n_old in counts)
        if most:
            pool = old_rows(self.source, context, rows, min(self.n_texts, most), self.packing)
        laid_out: Rows = []
        for epoch, (n_fresh, n_old) in enumerate(counts):
            generator = np.random.default_rng([arguments.seed, 1, epoch])
            mixed = [*draw_rows(rows, n_fresh, generator), *draw_rows(pool, n_old, generator)]
            laid_out += [mixed[place] for place in generator.permutation(len(mixed))]
        if by_steps and not self.extra:
            return laid_out[:visits]
        # The number of new rows was not known when the arguments were made.
        arguments.max_steps = math.ceil(len(laid_out) / per_step)
        return laid_out


def review_counts(n_new: int, visits: int, mix_ratio: float, decay: float) -> list[tuple[int, int]]:
    """New and old rows of each epoch.

    Args:
        n_new: Number of new rows.
        visits: How many new rows are read in all; the last epoch may be a part of one.
        mix_ratio: Old rows for each new row in the first epoch.
        decay: Factor from each epoch to the next.

    Returns:
        (new, old) for each epoch, old = int(new * mix_ratio * decay ** epoch).

    Example:
        >>> review_counts(10, 25, 4.0, 0.5)
        [(10, 40), (10, 20), (5, 5)]

    References: He et al. 2021, arXiv:1910.07117, section 4.
    """
    counts = []
    while visits > 0:
        fresh = min(n_new, visits)
        counts.append((fresh, int(fresh * mix_ratio * decay ** len(counts))))
        visits -= fresh
    return counts
