"""Metrics: from scores of single items to figures with intervals.

Comes in: numpy arrays, one value an item (probe or text). Goes out: ``Figure``. It sees no model,
no file and no probe text.

``PROBE_METRICS`` is the table of what can be read off a scored probe; add a metric by adding a
function of the columns and its row. Intervals are 95 % percentile intervals of a cluster
bootstrap: entities are resampled, not probes, because probes of one entity stand or fall together.
"""

import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gradloc.results import Figure

N_BOOTSTRAP = 2000
LEVEL = 95.0
# Resampled cluster counts held at once, 8 bytes each: 32 MiB however large the suite is.
_COUNTS_AT_ONCE = 4_000_000

Columns = Mapping[str, ArrayLike]


# ---- what is read off one scored probe --------------------------------------------------------


def span_nll(columns: Columns) -> np.ndarray:
    """Mean negative log-likelihood of an answer's tokens, in nats; lower is better."""
    return _floats(columns["nll"])


def exact_match(columns: Columns) -> np.ndarray:
    """1 where greedy decoding writes one of the answers token for token, else 0."""
    return _floats(columns["exact"])


def prefers_new(columns: Columns) -> np.ndarray:
    """1 where the new answer is likelier per token than the old one, NaN without an old answer.

    Per token, because the two answers may have different lengths; a tie counts for the old one.

    Example:
        >>> prefers_new({"nll": [1.0, 2.0, 1.0], "old_nll": [1.5, 1.5, None]})
        array([ 1.,  0., nan])
    """
    new, old = _floats(columns["nll"]), _floats(columns["old_nll"])
    return np.where(np.isnan(old), np.nan, (new < old).astype(float))


class ProbeMetric(NamedTuple):
    """A value for each probe, with its unit and direction.

    Args:
        values: Columns of scored probes -> one value a probe, NaN where it does not apply.
        unit: ``nats`` or ``fraction``.
        higher_is_better: Direction; gains and losses get their sign from it.
    """

    values: Callable[[Columns], np.ndarray]
    unit: str
    higher_is_better: bool


PROBE_METRICS = {
    "nll": ProbeMetric(span_nll, "nats", False),
    "exact": ProbeMetric(exact_match, "fraction", True),
    "prefers_new": ProbeMetric(prefers_new, "fraction", True),
}


# ---- means and intervals ----------------------------------------------------------------------


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
            draws from the same seed; use ``stream`` for sets that are independent.
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


def stream(seed: int, name: str) -> int:
    """A seed of its own for the items called ``name``, so that two sets are drawn apart.

    Example:
        >>> stream(0, "new_paraphrase") == stream(0, "general_text")
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


class Estimate(NamedTuple):
    """A number and its bootstrap replicates, before it becomes a ``Figure``.

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

    def minus(self, other: "Estimate") -> "Estimate":
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
) -> tuple[Estimate, ...]:
    """Mean and replicates of every system; arguments as in ``bootstrap_replicates``."""
    values = np.asarray(values, float)
    means = item_mean(values, weights)
    replicates = bootstrap_replicates(
        values, clusters, n_bootstrap=n_bootstrap, seed=seed, weights=weights
    )
    n_clusters = len(set(clusters))
    return tuple(
        Estimate(float(mean), row, values.shape[1], n_clusters)
        for mean, row in zip(means, replicates, strict=True)
    )


def figure(found: Estimate, unit: str, higher_is_better: bool, note: str = "") -> Figure:
    """The figure of an estimate, with its 95 % interval.

    One cluster says nothing of the spread between clusters: then there is no interval.

    Example:
        >>> figure(Estimate(0.5, np.array([0.4, 0.5, 0.6]), n=8, n_clusters=3), "nats", True)
        Figure(value=0.5, low=0.4, high=0.6, n=8, unit='nats', higher_is_better=True, note='')
    """
    low, high = interval(found.replicates)
    value = found.value
    if not np.isfinite(value):
        value = low = high = None
        note = _also(note, "scores are not finite; the weights may have diverged")
    elif found.n_clusters < 2:
        low = high = None
        note = _also(note, "one entity or text only, so no interval")
    return Figure(value, low, high, found.n, unit, higher_is_better, note)


# ---- against full training at equal uptake ----------------------------------------------------


class Point(NamedTuple):
    """A model in the uptake-forgetting picture, measured against the base at (0, 0)."""

    uptake: Estimate
    forgetting: Estimate


def interpolate_forgetting(uptakes: ArrayLike, forgettings: ArrayLike, at: ArrayLike) -> np.ndarray:
    """Forgetting of the reference line at a given uptake.

    The line runs through the base model at (0, 0) and the reference points, sorted by uptake,
    straight between neighbours. Points of equal uptake count as one with their mean forgetting.
    Nothing is extrapolated.

    Args:
        uptakes: Uptake of the reference points, (n_points,) or (n_points, n_bootstrap).
        forgettings: Their forgetting, same shape.
        at: Uptakes asked for, () or (n_bootstrap,).

    Returns:
        Forgetting at ``at``; NaN outside the points' range, so above the largest uptake of the
        reference and below that of the base.

    Example:
        >>> float(interpolate_forgetting([4.0, 2.0], [0.75, 0.25], 3.0))
        0.5
        >>> float(interpolate_forgetting([4.0, 2.0], [0.75, 0.25], 4.5))
        nan
    """
    uptakes, forgettings = np.asarray(uptakes, float), np.asarray(forgettings, float)
    if uptakes.ndim == 1:
        return _on_line(uptakes, forgettings, at)
    columns = zip(uptakes.T, forgettings.T, np.asarray(at, float), strict=True)
    return np.array([_on_line(*column) for column in columns])


def uptake_share(arm: Estimate, references: Sequence[Estimate]) -> Figure:
    """The arm's uptake / that of the reference that takes up most.

    Which reference that is, is decided once, from all items: the interval is that of a ratio of
    two fixed models.

    Args:
        arm: Uptake of the arm.
        references: Uptakes of full training at its learning rates, from the same resamples.
    """
    finite = [reference for reference in references if np.isfinite(reference.value)]
    best = max(finite, key=lambda reference: reference.value, default=None)
    if best is None or best.value <= 0:
        return _undefined(arm.n, True, "full training takes up nothing at any of its rates")
    return _ratio_figure(arm, best, higher_is_better=True)


def forgetting_ratio(arm: Point, line: Sequence[Point]) -> Figure:
    """The arm's forgetting / that of full training at the same uptake; below 1 is better.

    Compared at equal uptake because whatever trains less also forgets less. There is a value
    only where both models exist: not for an arm that takes up nothing, not where full training
    forgets nothing at that uptake, and not for an arm that takes up more than full training ever
    did. The last is a good result, so its note gives both forgettings; dividing by the reference
    at another, smaller uptake would be a guess at the line beyond its end.

    For the interval, line and arm are resampled together. In a resample where the arm passes the
    end of the line, the line's last forgetting is held, which can only understate what full
    training would forget there. A resample in which the line forgets nothing counts as an
    infinite ratio, so a reference that may forget nothing gives an interval without upper end.

    Args:
        arm: The arm.
        line: Full training at its learning rates, without the base, which is always (0, 0).

    Example:
        >>> def point(uptake, forgetting):
        ...     return Point(*(Estimate(x, np.full(9, x), 10, 10) for x in (uptake, forgetting)))
        >>> forgetting_ratio(point(3.0, 0.125), [point(2.0, 0.25), point(4.0, 0.75)]).value
        0.25
    """
    n, at, own = arm.forgetting.n, arm.uptake.value, arm.forgetting.value
    line = [
        point for point in line if np.isfinite([point.uptake.value, point.forgetting.value]).all()
    ]
    if not line or not np.isfinite([at, own]).all():
        return _undefined(n, False, "scores are not finite; the weights may have diverged")
    if at <= 0:
        return _undefined(n, False, "takes up nothing, so there is no equal uptake to compare at")
    best = max(line, key=lambda point: point.uptake.value)
    if at > best.uptake.value:
        return _undefined(
            n,
            False,
            f"takes up more ({at:.3g}) than full training at any of its rates "
            f"({best.uptake.value:.3g}), and forgets {own:.3g} where that forgets "
            f"{best.forgetting.value:.3g}",
        )
    value = float(
        interpolate_forgetting(
            [point.uptake.value for point in line], [point.forgetting.value for point in line], at
        )
    )
    if value <= 0:
        return _undefined(
            n,
            False,
            f"full training forgets nothing at this uptake ({value:.3g}); this arm {own:.3g}",
        )
    uptakes = np.stack([point.uptake.replicates for point in line])
    forgettings = np.stack([point.forgetting.replicates for point in line])
    ends = np.maximum(uptakes.max(axis=0), 0)
    reference = Estimate(
        value,
        interpolate_forgetting(uptakes, forgettings, np.clip(arm.uptake.replicates, 0, ends)),
        n,
        min(point.forgetting.n_clusters for point in line),
    )
    notes = []
    low, high = interval(reference.replicates)
    if low is None or low <= 0:
        notes.append(
            f"full training's own forgetting at this uptake, {value:.3g} ({_ends(low, high)}), "
            "is not distinct from zero, so the ratio is uncertain"
        )
    if (beyond := float(np.mean(arm.uptake.replicates > ends))) > 0.05:
        notes.append(
            f"in {beyond:.0%} of the resamples it takes up more than full training ever does"
        )
    return _ratio_figure(arm.forgetting, reference, higher_is_better=False, note="; ".join(notes))


def _on_line(uptakes: np.ndarray, forgettings: np.ndarray, at: ArrayLike) -> np.ndarray:
    x, where = np.unique(np.append(uptakes, 0.0), return_inverse=True)
    y = np.bincount(where, np.append(forgettings, 0.0)) / np.bincount(where)
    return np.interp(at, x, y, left=np.nan, right=np.nan)


def _ratio_figure(top: Estimate, bottom: Estimate, higher_is_better: bool, note="") -> Figure:
    positive = bottom.replicates > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        replicates = np.where(
            positive, top.replicates / bottom.replicates, np.copysign(np.inf, top.replicates)
        )
    ratio = top._replace(
        value=top.value / bottom.value,
        replicates=replicates,
        n_clusters=min(top.n_clusters, bottom.n_clusters),
    )
    return figure(ratio, "ratio", higher_is_better, note)


def _undefined(n: int, higher_is_better: bool, note: str) -> Figure:
    return Figure(None, None, None, n, "ratio", higher_is_better, note)


def _also(note: str, more: str) -> str:
    return f"{note}; {more}" if note else more


def _ends(low: float | None, high: float | None) -> str:
    low, high = ("unbounded" if end is None else f"{end:.3g}" for end in (low, high))
    return f"95 % {low} to {high}"


def _floats(column: ArrayLike) -> np.ndarray:
    # None (not scored, not applicable) becomes NaN.
    return np.array([np.nan if item is None else item for item in column], float)
