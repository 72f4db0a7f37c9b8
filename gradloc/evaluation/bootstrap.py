"""Means of items with their intervals: 95 % percentile intervals of a paired cluster bootstrap.

Entities are resampled, not probes, because probes of one entity stand or fall together. All systems
see the same resamples: what two of them share cancels in their difference or ratio.
"""

import zlib
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gradloc.evaluation.results import MetricValue

N_BOOTSTRAP = 2000
LEVEL = 95.0
# Resampled cluster counts held at once, 8 bytes each: 32 MiB however large the suite is.
_COUNTS_AT_ONCE = 4_000_000


class ClusterSums(NamedTuple):
    """Sums of several systems over each cluster of their items.

    Args:
        totals: Weighted sums of the values, (n_systems, n_clusters).
        sizes: Weights, (n_clusters,).
        n_items: Number of items.
    """

    totals: np.ndarray
    sizes: np.ndarray
    n_items: int

    def resample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Means of resampled items, (n_systems, n).

        Whole clusters are drawn with replacement, as many as there are.
        """
        n_clusters = len(self.sizes)
        chosen = np.full(n_clusters, 1 / n_clusters)
        replicates = np.empty((len(self.totals), n))
        step = max(1, _COUNTS_AT_ONCE // n_clusters)
        for start in range(0, n, step):
            stop = min(start + step, n)
            counts = rng.multinomial(n_clusters, chosen, size=stop - start)
            replicates[:, start:stop] = (self.totals @ counts.T) / (counts @ self.sizes)
        return replicates


def cluster_sums(
    values: ArrayLike, clusters: Sequence[int] | None = None, weights: ArrayLike | None = None
) -> ClusterSums:
    """Sum the items of each cluster.

    Args:
        values: One row a system, (n_systems, n_items).
        clusters: Number of the cluster of each item; ``None``: each item is one.
        weights: Weight of each item, (n_items,); ``None``: all equal.
    """
    values = np.asarray(values, float)
    n_items = values.shape[1]
    numbers = range(n_items) if clusters is None else clusters
    _, index = np.unique(np.asarray(numbers), return_inverse=True)
    weights = np.ones(n_items) if weights is None else np.asarray(weights, float)
    n_clusters = int(index.max()) + 1
    totals = np.stack([np.bincount(index, weights * row, n_clusters) for row in values])
    return ClusterSums(totals, np.bincount(index, weights, n_clusters), n_items)


def cluster_numbers(names: Sequence[Hashable]) -> tuple[int, ...]:
    """Numbers for names, in the order in which names first occur.

    Example:
        >>> cluster_numbers(["b", "a", "b"])
        (0, 1, 0)
    """
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return tuple(numbers[name] for name in names)


def derive_seed(seed: int, name: str) -> int:
    """A seed of its own for the items called ``name``, so that two sets are drawn apart.

    Example:
        >>> derive_seed(0, "new_paraphrase") == derive_seed(0, "general_text")
        False
    """
    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0])


def interval(replicates: ArrayLike) -> tuple[float | None, float | None]:
    """Ends of the 95 % percentile interval; an end that is not finite is ``None``."""
    replicates = np.asarray(replicates, float)
    if not replicates.size:
        return None, None
    tail = (100 - LEVEL) / 2
    # "lower"/"higher" pick a replicate instead of interpolating, which is NaN beside an infinity.
    ends = (
        np.percentile(replicates, tail, method="lower"),
        np.percentile(replicates, 100 - tail, method="higher"),
    )
    low, high = (float(end) if np.isfinite(end) else None for end in ends)
    return low, high


class BootstrapEstimate(NamedTuple):
    """A number and its bootstrap replicates, before it becomes a ``MetricValue``.

    Args:
        value: The estimate from all items.
        replicates: Its value in each resample, (n_bootstrap,).
        n: Number of items.
        n_clusters: Number of entities or texts that were resampled.
    """

    value: float
    replicates: np.ndarray
    n: int
    n_clusters: int

    def minus(self, other: "BootstrapEstimate") -> "BootstrapEstimate":
        """The paired difference; both must come from the same resamples."""
        return self._replace(
            value=self.value - other.value, replicates=self.replicates - other.replicates
        )

    def exp(self) -> "BootstrapEstimate":
        """Exponential of the number and of each replicate."""
        return self._replace(value=float(np.exp(self.value)), replicates=np.exp(self.replicates))


def estimate(
    values: ArrayLike,
    clusters: Sequence[Hashable],
    *,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
    weights: ArrayLike | None = None,
) -> tuple[BootstrapEstimate, ...]:
    """Mean of every system's items, and the means of resampled items, the same for all systems.

    Nats per token of a set of texts is the mean of each text's nats per token, weighted by its
    number of tokens: sum of nats / sum of tokens.

    Args:
        values: One row a system, (n_systems, n_items).
        clusters: Which cluster (entity or text) each item belongs to, (n_items,).
        n_bootstrap: Number of resamples.
        seed: Seed of the draws. Two sets of items with the same number of clusters get the same
            draws from the same seed; use ``derive_seed`` for sets that are independent.
        weights: Weight of each item, (n_items,); ``None``: all equal.

    Example:
        >>> one, two = estimate([[1, 1, 4], [2, 2, 5]], ["a", "a", "b"], n_bootstrap=50)
        >>> one.value, np.unique(one.replicates).tolist(), two.minus(one).value
        (2.0, [1.0, 2.0, 4.0], 1.0)
    """
    values = np.asarray(values, float)
    weights = None if weights is None else np.asarray(weights, float)
    sums = cluster_sums(values, cluster_numbers(clusters), weights)
    means = np.average(values, axis=-1, weights=weights)
    replicates = sums.resample(n_bootstrap, np.random.default_rng(seed))
    return tuple(
        BootstrapEstimate(float(mean), row, sums.n_items, len(sums.sizes))
        for mean, row in zip(means, replicates, strict=True)
    )


def estimate_over_seeds(
    seeds: Mapping[int, ClusterSums], name: str, *, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0
) -> tuple[BootstrapEstimate, ...]:
    """Mean over seeds of the mean over items, of every system.

    Two things vary between repetitions of an experiment: its seed (another world of facts, another
    split, another order of training), and the facts and texts that stand for all others. So seeds
    are drawn with replacement, and within each drawn seed its clusters.

    With K seeds the intervals lean two ways. Where seeds do not differ, the scatter of items is
    counted at both levels, and intervals are too wide by sqrt(2 - 1/K). Where seeds differ more
    than items do, drawing K of K shows only (K - 1)/K of their variance, and with two or three
    seeds intervals are too narrow.

    Args:
        seeds: Seed of the experiment -> sums of its items, the same systems in each.
        name: What the items are called, so that two sets of them are drawn apart.
        n_bootstrap: Number of resamples.
        seed: Seed of the draws.
    """
    n_seeds = len(seeds)
    # The seeds drawn are those of every metric: a world that is easy to learn may also be easy to
    # forget in.
    rng = np.random.default_rng(derive_seed(seed, "seeds"))
    drawn = rng.integers(n_seeds, size=(n_seeds, n_bootstrap))
    n_systems = len(next(iter(seeds.values())).totals)
    means, replicates = np.zeros(n_systems), np.zeros((n_systems, n_bootstrap))
    for place, (number, own) in enumerate(seeds.items()):
        means += own.totals.sum(axis=1) / own.sizes.sum()
        for slot in range(n_seeds):
            # A seed that is drawn twice has its clusters drawn twice, independently.
            rng = np.random.default_rng(derive_seed(seed, f"{name}/{number}/{slot}"))
            where = np.flatnonzero(drawn[slot] == place)
            replicates[:, where] += own.resample(len(where), rng)
    n_items = sum(own.n_items for own in seeds.values())
    n_clusters = sum(len(own.sizes) for own in seeds.values())
    return tuple(
        BootstrapEstimate(float(mean), row, n_items, n_clusters)
        for mean, row in zip(means / n_seeds, replicates / n_seeds, strict=True)
    )


def figure(
    found: BootstrapEstimate, unit: str, higher_is_better: bool, note: str = ""
) -> MetricValue:
    """The figure of an estimate, with its 95 % interval.

    One cluster says nothing of the spread between clusters: then there is no interval.

    Example:
        >>> found = BootstrapEstimate(0.5, np.array([0.4, 0.5, 0.6]), n=8, n_clusters=3)
        >>> figure(found, "nats", True)
        MetricValue(value=0.5, low=0.4, high=0.6, n=8, unit='nats', higher_is_better=True, note='')
    """
    low, high = interval(found.replicates)
    value = found.value
    if not np.isfinite(value):
        value = low = high = None
        note = _also(note, "scores are not finite; the weights may have diverged")
    elif found.n_clusters < 2:
        low = high = None
        note = _also(note, "one entity or text only, so no interval")
    return MetricValue(value, low, high, found.n, unit, higher_is_better, note)


def undefined(n: int, unit: str, higher_is_better: bool, why: str) -> MetricValue:
    """A figure without value."""
    return MetricValue(None, None, None, n, unit, higher_is_better, why)


def ratio_replicates(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Replicates of a ratio; one in which the bottom is not above 0 counts as infinite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(bottom > 0, top / bottom, np.copysign(np.inf, top))


def _also(note: str, more: str) -> str:
    return f"{note}; {more}" if note else more
