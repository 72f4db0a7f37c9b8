"""Split halves, and intervals that hold for all units at once."""

from collections.abc import Hashable, Sequence

import numpy as np
from scipy.stats import rankdata

from gradloc.evaluation.bootstrap import interval

# Splits that are averaged in each bootstrap replicate of a split-half correlation.
_SPLITS_A_REPLICATE = 8


def split_half(
    norms: np.ndarray,
    entities: Sequence[Hashable],
    reference: np.ndarray | None = None,
    *,
    n_splits: int = 200,
    n_bootstrap: int = 500,
    seed: int = 0,
) -> tuple[float, float | None, float | None]:
    """How far the ranking of the units repeats in other sequences.

    Entities, and reference texts, are parted at random into two halves; both give a profile, and
    the profiles' Spearman correlation r, averaged over splits, is stepped up to the whole number
    of sequences: k r / (1 + (k - 1) r) with k = 2.

    For the interval entities and texts are resampled. All copies of one stay in one half, since a
    copy in each would agree with itself. A half of a resample then holds fewer different ones than
    half of all, and k is what brings its effective number (sum of weights)^2 / (sum of squared
    weights) up to all of them.

    Args:
        norms: (n_sequences, n_units).
        entities: What each sequence is about, (n_sequences,).
        reference: What divides, (n_reference, n_units), if anything does.
        n_splits: Splits.
        n_bootstrap: Resamples.
        seed: Seed of both.

    Returns:
        The correlation, -1 to 1, and the ends of its 95 % interval.

    References:
        Spearman 1910 and Brown 1910, British Journal of Psychology 3 (the step-up formula).
    """
    rng = np.random.default_rng(seed)
    parts = [(1, norms, entity_index(entities))]
    if reference is not None:
        parts.append((-1, reference, np.arange(len(reference))))

    def correlations(counts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Of one random split of each row of counts: r and k, (n_rows,)."""
        halves, steps = [np.zeros(1), np.zeros(1)], []
        for (sign, values, index), count in zip(parts, counts, strict=True):
            order = np.where(count > 0, rng.random(count.shape), np.inf)
            place = order.argsort(axis=1).argsort(axis=1)
            own = [count * (place % 2 == side) for side in (0, 1)]
            for side in (0, 1):
                means = weighted_means(own[side][:, index], values)
                halves[side] = halves[side] + sign * np.log(means)
            steps.append(count.shape[1] / np.mean([effective_number(w) for w in own], axis=0))
        return spearman_rows(*halves), np.mean(steps, axis=0)

    sizes = [index.max() + 1 for _, _, index in parts]
    r, _ = correlations([np.ones((n_splits, size)) for size in sizes])
    value = float(stepped_up(r.mean(), 2.0))
    drawn = [resampled_counts(size, n_bootstrap, rng) for size in sizes]
    found = [correlations(drawn) for _ in range(_SPLITS_A_REPLICATE)]
    r, k = (np.mean(values, axis=0) for values in zip(*found, strict=True))
    return value, *interval(stepped_up(r, k))


def simultaneous(
    difference: np.ndarray, replicates: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Intervals that hold for all units at once, by the largest standardised error.

    With s_u the standard deviation of unit u's replicates and T = max_u |d*_u - d_u| / s_u in a
    resample, the interval is d_u -+ q s_u, q the 95th percentile of T. Units are correlated, and T
    knows it: Bonferroni's correction would be wider.

    Args:
        difference: d, (n_units,).
        replicates: d*, (n_bootstrap, n_units).

    Returns:
        ``difference``, low, high and adjusted p, each (n_units,).

    References:
        Westfall and Young 1993, Resampling-Based Multiple Testing, section 2.6 (single-step
        max-T).
    """
    spread = np.maximum(replicates.std(axis=0, ddof=1), np.finfo(float).tiny)
    largest = (np.abs(replicates - difference) / spread).max(axis=1)
    reach = np.quantile(largest, 0.95, method="higher") * spread
    p = (largest[:, None] >= np.abs(difference) / spread).mean(axis=0)
    return difference, difference - reach, difference + reach, p


def stepped_up(r: np.ndarray | float, k: np.ndarray | float) -> np.ndarray:
    """Spearman-Brown: the correlation of k times as many; a negative one is left as it is.

    Example:
        >>> float(stepped_up(0.5, 2.0)), float(stepped_up(-0.25, 2.0))
        (0.6666666666666666, -0.25)
    """
    r = np.asarray(r, float)
    # Behind max(): the formula has a pole at negative r, where it means nothing.
    positive = np.maximum(r, 0.0)
    return np.where(r > 0, k * positive / (1 + (k - 1) * positive), r)


def effective_number(weights: np.ndarray) -> np.ndarray:
    """(sum of weights)^2 / sum of squared weights of each row, (n_rows,)."""
    return weights.sum(axis=1) ** 2 / (weights**2).sum(axis=1)


def weighted_means(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means of rows under several weightings: (n, rows) and (rows, units) to (n, units)."""
    return weights @ values / weights.sum(axis=1, keepdims=True)


def spearman_rows(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Spearman correlation of each row of one array with that of another, (n_rows,)."""
    left, right = (rankdata(side, axis=1) for side in (left, right))
    left, right = (side - side.mean(axis=1, keepdims=True) for side in (left, right))
    return (left * right).sum(1) / np.sqrt((left**2).sum(1) * (right**2).sum(1))


def resampled_counts(n: int, n_bootstrap: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of n is drawn in each resample, (n_bootstrap, n).

    Resamples of one alone are drawn again: a split needs something on both sides.
    """
    counts = rng.multinomial(n, np.full(n, 1 / n), size=n_bootstrap).astype(float)
    while len(alone := np.flatnonzero((counts > 0).sum(axis=1) < 2)):
        counts[alone] = rng.multinomial(n, np.full(n, 1 / n), size=len(alone))
    return counts


def entity_index(entities: Sequence[Hashable]) -> np.ndarray:
    """A number for each sequence's entity, from 0 in order of appearance, (n_sequences,)."""
    places = {name: place for place, name in enumerate(dict.fromkeys(entities))}
    return np.array([places[name] for name in entities])
