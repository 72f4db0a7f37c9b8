"""Means of items with their intervals.

Comes in: numpy arrays, one value an item. Goes out: ``BootstrapEstimate`` and ``MetricValue``.
Intervals are
95 % percentile intervals of a cluster bootstrap: entities are resampled, not probes, because
probes of one entity stand or fall together.
"""

import zlib
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gradloc.evaluation.results import MetricValue

N_BOOTSTRAP = 2000
LEVEL = 95.0
# Resampled cluster counts held at once, 8 bytes each: 32 MiB however large the suite is.
_COUNTS_AT_ONCE = 4_000_000


def item_mean(values: ArrayLike, weights: ArrayLike | None = None) -> np.ndarray:
    """Mean over the last axis; weighted by ``weights`` where given.

    Nats per token of a set of texts is the mean of each text's nats per token, weighted by its
    number of tokens: sum of nats / sum of tokens.

    Example:
        >>> float(item_mean([2.0, 4.0], weights=[30, 10]))
        2.5
    """
    return np.average(np.asarray(values, float), axis=-1, weights=weights)


def bootstrap_replicates(
    values: ArrayLike,
    clusters: Sequence[Hashable],
    *,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
    weights: ArrayLike | None = None,
) -> np.ndarray:
    """Means of resampled items, the same resamples for every system.

    Whole clusters are drawn with replacement, as many as there are; a replicate is the
    (weighted) mean over all their items. Since every row sees the same draws, differences of
    rows are paired: what two systems share cancels.

    Args:
        values: One row a system, (n_systems, n_items).
        clusters: Which cluster (entity or text) each item belongs to, (n_items,).
        n_bootstrap: Number of resamples.
        seed: Seed of the draws. Two sets of items with the same number of clusters get the same
            draws from the same seed; use ``derive_seed`` for sets that are independent.
        weights: Weight of each item, (n_items,); ``None``: all equal.

    Returns:
        Shape (n_systems, n_bootstrap).

    Example:
        >>> two = bootstrap_replicates([[1, 1, 4], [2, 2, 5]], ["a", "a", "b"], n_bootstrap=50)
        >>> two.shape, np.unique(two[0]).tolist(), np.unique(two[1] - two[0]).tolist()
        ((2, 50), [1.0, 2.0, 4.0], [1.0])
    """
    values = np.asarray(values, float)
    weights = np.ones(values.shape[1]) if weights is None else np.asarray(weights, float)
    names = {name: index for index, name in enumerate(dict.fromkeys(clusters))}
    index = np.array([names[name] for name in clusters])
    n_clusters = len(names)
    totals = np.stack([np.bincount(index, weights * row, n_clusters) for row in values])
    sizes = np.bincount(index, weights, n_clusters)

    rng = np.random.default_rng(seed)
    chosen = np.full(n_clusters, 1 / n_clusters)
    replicates = np.empty((len(values), n_bootstrap))
    step = max(1, _COUNTS_AT_ONCE // n_clusters)
    for start in range(0, n_bootstrap, step):
        stop = min(start + step, n_bootstrap)
        counts = rng.multinomial(n_clusters, chosen, size=stop - start)
        replicates[:, start:stop] = (totals @ counts.T) / (counts @ sizes)
    return replicates


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


def estimate(
    values: ArrayLike,
    clusters: Sequence[Hashable],
    *,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
    weights: ArrayLike | None = None,
) -> tuple[BootstrapEstimate, ...]:
    """Mean and replicates of every system; arguments as in ``bootstrap_replicates``."""
    values = np.asarray(values, float)
    means = item_mean(values, weights)
    replicates = bootstrap_replicates(
        values, clusters, n_bootstrap=n_bootstrap, seed=seed, weights=weights
    )
    n_clusters = len(set(clusters))
    return tuple(
        BootstrapEstimate(float(mean), row, values.shape[1], n_clusters)
        for mean, row in zip(means, replicates, strict=True)
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


def _also(note: str, more: str) -> str:
    return f"{note}; {more}" if note else more
