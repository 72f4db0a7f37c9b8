"""Against full training at equal uptake.

Whatever trains less forgets less, so a single pair of numbers says little. Full training at
several learning rates, with the base model at (0, 0), gives a line to compare with.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from gradloc.evaluation.bootstrap import (
    BootstrapEstimate,
    figure,
    interval,
    ratio_replicates,
    undefined,
)
from gradloc.evaluation.results import MetricValue


class Point(NamedTuple):
    """A model in the uptake-forgetting picture, measured against the base at (0, 0)."""

    uptake: BootstrapEstimate
    forgetting: BootstrapEstimate

    @property
    def is_finite(self) -> bool:
        """Whether both scores are: weights that have diverged have none."""
        return bool(np.isfinite([self.uptake.value, self.forgetting.value]).all())


def columns(found: BootstrapEstimate) -> np.ndarray:
    """The estimate, then its replicates, (1 + n_bootstrap,)."""
    return np.concatenate([[found.value], found.replicates])


def interpolate_forgetting(
    uptakes: np.ndarray, forgettings: np.ndarray, at: np.ndarray
) -> np.ndarray:
    """Forgetting of the reference line at a given uptake, in each column.

    The line runs through the base model at (0, 0) and the reference points, sorted by uptake,
    straight between neighbours. Points of equal uptake count as one with their mean forgetting.
    Nothing is extrapolated.

    Args:
        uptakes: Uptake of the reference points, (n_points, n_columns).
        forgettings: Their forgetting, same shape.
        at: Uptakes asked for, (n_columns,).

    Returns:
        Forgetting at ``at``; NaN outside the points' range, so above the largest uptake of the
        reference and below that of the base.

    Example:
        >>> points = np.array([[4.0, 4.0], [2.0, 2.0]]), np.array([[0.75, 0.75], [0.25, 0.25]])
        >>> interpolate_forgetting(*points, np.array([3.0, 4.5]))
        array([0.5, nan])
    """
    found = np.full(len(at), np.nan)
    for x0, x1, y0, y1 in segments(uptakes, forgettings):
        inside = (x0 <= at) & (at <= x1) & (x1 > x0)
        found = np.where(inside, straight(x0, x1, y0, y1, at), found)
    return found


def segments(uptakes: np.ndarray, forgettings: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """Segments of each column's line: its points and the base at (0, 0), sorted by uptake.

    Args:
        uptakes: (n_points, n_columns).
        forgettings: Same shape.

    Returns:
        Uptake at both ends and forgetting at both ends of each segment, four times (n_columns,).
        Points of equal uptake have their mean forgetting.
    """
    base = np.zeros((1, uptakes.shape[1]))
    x, y = np.concatenate([uptakes, base]), np.concatenate([forgettings, base])
    same = x[:, None] == x[None, :]
    y = (same * y[None, :]).sum(axis=1) / same.sum(axis=1)
    order = np.argsort(x, axis=0, kind="stable")
    x, y = np.take_along_axis(x, order, axis=0), np.take_along_axis(y, order, axis=0)
    return list(zip(x, x[1:], y, y[1:], strict=False))


def straight(
    x0: np.ndarray, x1: np.ndarray, y0: np.ndarray, y1: np.ndarray, at: np.ndarray
) -> np.ndarray:
    """y at x = ``at`` on the straight line through two points; not finite where it is upright."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return y0 + (at - x0) / (x1 - x0) * (y1 - y0)


def stack_points(points: Sequence[Point]) -> tuple[np.ndarray, np.ndarray]:
    """Uptake and forgetting of points, each (n_points, 1 + n_bootstrap)."""
    uptake, forgetting = zip(*(map(columns, point) for point in points), strict=True)
    return np.stack(uptake), np.stack(forgetting)


def uptake_share(arm: BootstrapEstimate, references: Sequence[BootstrapEstimate]) -> MetricValue:
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
        return undefined(arm.n, "ratio", True, "full training takes up nothing at any of its rates")
    return ratio_figure(arm, best, higher_is_better=True)


def forgetting_ratio(arm: Point, line: Sequence[Point]) -> MetricValue:
    """The arm's forgetting / that of full training at the same uptake; below 1 is better.

    Compared at equal uptake because whatever trains less also forgets less. There is a value
    only where both models exist: not for an arm that takes up nothing, not where full training
    forgets nothing at that uptake, and not for an arm that takes up more than full training ever
    did. The last is a good result, to be read off both forgettings; dividing by the reference
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
        ...     pair = (uptake, forgetting)
        ...     return Point(*(BootstrapEstimate(x, np.full(9, x), 10, 10) for x in pair))
        >>> forgetting_ratio(point(3.0, 0.125), [point(2.0, 0.25), point(4.0, 0.75)]).value
        0.25
    """
    n, at = arm.forgetting.n, arm.uptake.value
    none = partial(undefined, n, "ratio", False)
    line = [point for point in line if point.is_finite]
    if not line or not arm.is_finite:
        return none("scores are not finite; the weights may have diverged")
    if at <= 0:
        return none("takes up nothing, so there is no equal uptake to compare at")
    best = max(line, key=lambda point: point.uptake.value)
    if at > best.uptake.value:
        return none(
            "takes up more than full training at any of its rates: compare their forgetting itself"
        )
    uptakes, forgettings = stack_points(line)
    ends = np.maximum(uptakes.max(axis=0), 0)
    held = np.clip(columns(arm.uptake), 0, ends)
    value, *replicates = interpolate_forgetting(uptakes, forgettings, held).tolist()
    if value <= 0:
        return none("full training forgets nothing at this uptake, so there is no ratio")
    n_clusters = min(point.forgetting.n_clusters for point in line)
    reference = BootstrapEstimate(value, np.array(replicates), n, n_clusters)
    notes = []
    low, _ = interval(reference.replicates)
    if low is None or low <= 0:
        notes.append(
            "full training's own forgetting at this uptake is not distinct from zero, so the ratio "
            "is uncertain"
        )
    if (beyond := float(np.mean(arm.uptake.replicates > ends[1:]))) > 0.05:
        notes.append(
            f"in {beyond:.0%} of the resamples it takes up more than full training ever does"
        )
    return ratio_figure(arm.forgetting, reference, higher_is_better=False, note="; ".join(notes))


def ratio_figure(
    top: BootstrapEstimate, bottom: BootstrapEstimate, higher_is_better: bool, note=""
) -> MetricValue:
    """The ratio of two estimates from the same resamples; the bottom is above 0."""
    ratio = top._replace(
        value=top.value / bottom.value,
        replicates=ratio_replicates(top.replicates, bottom.replicates),
        n_clusters=min(top.n_clusters, bottom.n_clusters),
    )
    return figure(ratio, "ratio", higher_is_better, note)
