"""What an arm forgets at each uptake, as a curve that is straight between its learning rates.

Arrays hold one row a rate and 1 + n_bootstrap columns: column 0 is the estimate from all items, the
others are its replicates.
"""

from typing import NamedTuple

import numpy as np

from gradloc.evaluation.matched_uptake import Point, columns, segments, straight


class Curve(NamedTuple):
    """An arm's curve through the base model at (0, 0).

    Args:
        rates: Learning rates of its points, ascending, (n_points,).
        points: Uptake and forgetting at these rates.
        best: Place of the rate of largest uptake, from all items.
        uptake: (n_points, 1 + n_bootstrap).
        forgetting: (n_points, 1 + n_bootstrap).
        n: Number of items of the forgetting.
        n_clusters: Number of entities or texts of the forgetting.
    """

    rates: tuple[float, ...]
    points: tuple[Point, ...]
    best: int
    uptake: np.ndarray
    forgetting: np.ndarray
    n: int
    n_clusters: int

    @property
    def reach(self) -> np.ndarray:
        """Largest uptake, (1 + n_bootstrap,); at least 0, that of the base."""
        return np.maximum(self.uptake.max(axis=0), 0.0)


def make_curve(points: dict[float, Point]) -> Curve | None:
    """The curve of an arm over its learning rates, up to the rate of its largest uptake.

    Beyond that rate an arm takes up less and, as a rule, forgets more. Nobody would choose such
    a rate, and a curve sorted by uptake would run through it between two better ones: the arm
    would seem to forget more than it has to. For the line, that would flatter every other arm.
    So these points are left out, as are points that are not finite.

    Args:
        points: Learning rate -> uptake and forgetting.

    Returns:
        ``None`` without a finite point.
    """
    finite = {
        rate: point
        for rate, point in sorted(points.items())
        if np.isfinite([point.uptake.value, point.forgetting.value]).all()
    }
    if not finite:
        return None
    peak = max(finite, key=lambda rate: finite[rate].uptake.value)
    rates = tuple(rate for rate in finite if rate <= peak)
    kept = tuple(finite[rate] for rate in rates)
    return Curve(
        rates,
        kept,
        len(rates) - 1,
        np.stack([columns(point.uptake) for point in kept]),
        np.stack([columns(point.forgetting) for point in kept]),
        kept[0].forgetting.n,
        kept[0].forgetting.n_clusters,
    )


def uptake_within(uptake: np.ndarray, forgetting: np.ndarray, level: np.ndarray) -> np.ndarray:
    """The largest uptake on each column's curve whose forgetting is at most ``level``.

    Where the curve leaves the level and comes back below it, the last such uptake counts: a rate
    that forgets no more and takes up more is there to be chosen.

    Args:
        uptake: (n_points, n_columns).
        forgetting: Same shape.
        level: Forgetting allowed, at least 0, (n_columns,).

    Returns:
        (n_columns,); at least 0, the uptake of the base.

    Example:
        >>> uptake_within(np.array([[2.0], [4.0]]), np.array([[0.25], [0.75]]), np.array([0.5]))
        array([3.])
    """
    found = np.zeros(uptake.shape[1])
    for x0, x1, y0, y1 in segments(uptake, forgetting):
        crosses = np.where(y1 > y0, (y0 <= level) & (level < y1), False)
        at_crossing = straight(y0, y1, x0, x1, level)
        here = np.where(y1 <= level, x1, np.where(crosses, at_crossing, 0.0))
        found = np.maximum(found, here)
    return found


def mean_forgetting(uptake: np.ndarray, forgetting: np.ndarray, upto: np.ndarray) -> np.ndarray:
    """Mean forgetting over all uptakes from 0 to ``upto``: the area under the curve / ``upto``.

    Args:
        uptake: (n_points, n_columns).
        forgetting: Same shape.
        upto: Larger than 0 and within the curve, (n_columns,); NaN where it is not above 0.

    Example:
        >>> mean_forgetting(np.array([[2.0], [4.0]]), np.array([[0.25], [0.75]]), np.array([4.0]))
        array([0.3125])
    """
    area = np.zeros(uptake.shape[1])
    for x0, x1, y0, y1 in segments(uptake, forgetting):
        left, right = np.clip(x0, 0, upto), np.clip(x1, 0, upto)
        middle = straight(x0, x1, y0, y1, (left + right) / 2)
        area += np.where(right > left, (right - left) * middle, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(upto > 0, area / upto, np.nan)
