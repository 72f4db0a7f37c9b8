"""Means of a sweep's cells, with replicates that all arms share.

Comes in: the cells of one corpus. Goes out: ``BootstrapEstimate`` for an arm at a learning rate.
It compares no arms.

Two things vary between repetitions of a sweep: the seed (another world of facts, another split,
another order of training) and the facts and texts that stand for all others. So seeds are drawn
anew, and within each drawn seed its entities and texts. Every arm sees the same draws: what two
arms share cancels in their difference or ratio.

With K seeds the intervals lean two ways. Where seeds do not differ, the scatter of items is counted
at both levels, and intervals are too wide by sqrt(2 - 1/K). Where seeds differ more than items do,
drawing K of K shows only (K - 1)/K of their variance, and with two or three seeds intervals are too
narrow.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gradloc.errors import GradlocError
from gradloc.evaluation.metrics import BootstrapEstimate
from gradloc.evaluation.metrics.intervals import N_BOOTSTRAP, derive_seed
from gradloc.experiments.sweep.records import CellRecord, MeasureRecord


class Kind(NamedTuple):
    """What a measure is: ``uptake`` or ``forgetting``, and its unit as results name it."""

    kind: str
    unit: str

    @property
    def higher_is_better(self) -> bool:
        """Direction: much uptake is good, much forgetting is bad."""
        return self.kind == "uptake"


class CorpusCells:
    """The cells of one corpus, and their estimates from shared draws.

    Args:
        cells: Cells of one corpus; at least one.
        n_bootstrap: Number of resamples.
        seed: Seed of the draws.

    Raises:
        GradlocError: Two cells are the same arm, rate and seed, or the arms of one seed were not
            measured on the same items, so that they cannot be paired.
    """

    def __init__(
        self, cells: Sequence[CellRecord], *, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0
    ):
        self.corpus = cells[0].corpus
        self.cells = {(cell.arm, cell.learning_rate, cell.seed): cell for cell in cells}
        self.n_bootstrap, self.seed = n_bootstrap, seed
        self._done: dict[tuple, dict[tuple[str, float], BootstrapEstimate]] = {}
        if len(self.cells) < len(cells):
            raise GradlocError(
                f"corpus {self.corpus}: {len(cells) - len(self.cells)} cells have the arm, rate "
                "and seed of another one. Keep one of each."
            )
        self._check_items()

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms, in the order of the record."""
        return tuple(dict.fromkeys(arm for arm, _, _ in self.cells))

    @property
    def measures(self) -> dict[str, Kind]:
        """Measure -> what it is; a share is called ``fraction``, as in results."""
        return {
            name: Kind(measure.kind, {"share": "fraction"}.get(measure.unit, measure.unit))
            for cell in self.cells.values()
            for name, measure in cell.measures.items()
        }

    def of_arm(self, arm: str) -> list[CellRecord]:
        """The cells of an arm, by rate and seed."""
        return sorted(
            (cell for cell in self.cells.values() if cell.arm == arm),
            key=lambda cell: (cell.learning_rate, cell.seed),
        )

    def rates(self, arm: str) -> tuple[float, ...]:
        """Learning rates of an arm, ascending."""
        return tuple(sorted({rate for name, rate, _ in self.cells if name == arm}))

    def shared_seeds(self, *arms: str) -> tuple[int, ...]:
        """Seeds that every rate of every one of these arms has."""
        wanted = [(arm, rate) for arm in arms for rate in self.rates(arm)]
        seeds = sorted({seed for _, _, seed in self.cells})
        return tuple(s for s in seeds if all((*key, s) in self.cells for key in wanted))

    def estimate(
        self, arm: str, rate: float, measure: str, seeds: tuple[int, ...]
    ) -> BootstrapEstimate | None:
        """Mean over seeds of an arm's (weighted) mean over items, and its replicates.

        Returns:
            ``None`` where a cell of these seeds lacks the measure. The value is NaN where a
            score is not finite, as after weights have diverged.
        """
        asked = (measure, seeds)
        if asked not in self._done:
            self._done[asked] = self._resample(measure, seeds)
        return self._done[asked].get((arm, rate))

    def _resample(
        self, measure: str, seeds: tuple[int, ...]
    ) -> dict[tuple[str, float], BootstrapEstimate]:
        keys = [
            key
            for key in dict.fromkeys((arm, rate) for arm, rate, _ in self.cells)
            if all(s in seeds_of(self.cells, key, measure) for s in seeds)
        ]
        if not keys or not seeds:
            return {}
        means = np.zeros(len(keys))
        replicates = np.zeros((len(keys), self.n_bootstrap))
        # The seeds drawn are those of every measure: a world that is easy to learn may also be
        # easy to forget in.
        rng = np.random.default_rng(derive_seed(self.seed, "seeds"))
        drawn = rng.integers(len(seeds), size=(len(seeds), self.n_bootstrap))
        n_items = n_clusters = 0
        for place, seed in enumerate(seeds):
            records = [self.cells[(*key, seed)].measures[measure] for key in keys]
            totals, sizes = _cluster_sums(records)
            means += totals.sum(axis=1) / sizes.sum()
            n_items += len(records[0].values)
            n_clusters += len(sizes)
            for slot in range(len(seeds)):
                # A seed that is drawn twice has its entities drawn twice, independently.
                name = f"{self.corpus}/{measure}/{seed}/{slot}"
                rng = np.random.default_rng(derive_seed(self.seed, name))
                where = np.flatnonzero(drawn[slot] == place)
                chosen = np.full(len(sizes), 1 / len(sizes))
                counts = rng.multinomial(len(sizes), chosen, size=len(where))
                replicates[:, where] += (totals @ counts.T) / (counts @ sizes)
        return {
            key: BootstrapEstimate(float(mean), row, n_items, n_clusters)
            for key, mean, row in zip(
                keys, means / len(seeds), replicates / len(seeds), strict=True
            )
        }

    def _check_items(self) -> None:
        """Arms of one seed must have been measured on the same items, or nothing is paired."""
        first: dict[tuple[int, str], tuple[str, tuple]] = {}
        for (arm, _, seed), cell in self.cells.items():
            for name, measure in cell.measures.items():
                if not measure.values:
                    raise GradlocError(
                        f"corpus {self.corpus}, seed {seed}: {name} of arm {arm} has no items. "
                        "Leave the measure out where there is nothing to measure."
                    )
                items = (len(measure.values), measure.clusters, measure.weights)
                other, same = first.setdefault((seed, name), (arm, items))
                if items != same:
                    raise GradlocError(
                        f"corpus {self.corpus}, seed {seed}: {name} was measured on other items "
                        f"for arm {arm} than for arm {other}, so they cannot be compared. Run "
                        "the cells of this seed again with one suite."
                    )


def seeds_of(
    cells: dict[tuple[str, float, int], CellRecord], key: tuple[str, float], measure: str
) -> set[int]:
    """Seeds in which an arm has this measure at this rate."""
    return {
        seed
        for (*own, seed), cell in cells.items()
        if tuple(own) == key and measure in cell.measures
    }


def _cluster_sums(records: list[MeasureRecord]) -> tuple[np.ndarray, np.ndarray]:
    """Weighted sums of each cluster, (n_cells, n_clusters), and the weights, (n_clusters,)."""
    first = records[0]
    n_items = len(first.values)
    clusters = range(n_items) if first.clusters is None else first.clusters
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    weights = np.ones(n_items) if first.weights is None else np.asarray(first.weights, float)
    # A score that is not finite is null in JSON, None here and NaN from here on.
    values = np.array([record.values for record in records], dtype=float)
    n_clusters = int(index.max()) + 1
    totals = np.stack([np.bincount(index, weights * row, n_clusters) for row in values])
    return totals, np.bincount(index, weights, n_clusters)
