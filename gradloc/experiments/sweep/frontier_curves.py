"""What an arm forgets at each uptake, as a curve, and what is read off it beside that of the line.

The line is full training at several rates. Its best uptake is at the rate that takes up most by all
items: intervals are those of fixed models. Levels move with the resamples: half of the line's best
uptake is, in each of them, half of what the line takes up there.

Arrays hold one row a rate and 1 + n_bootstrap columns: column 0 is the estimate from all items, the
others are its replicates.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gradloc.evaluation.bootstrap import BootstrapEstimate, figure, undefined
from gradloc.evaluation.matched_uptake import (
    Point,
    interpolate_forgetting,
    ratio_figure,
    segments,
    stack_points,
    straight,
)
from gradloc.evaluation.results import MetricValue

UPTAKE_SHARES = (0.5, 0.75, 0.9)


@dataclass(frozen=True)
class AtUptake:
    """Forgetting at a share of the line's best uptake.

    Args:
        share: Share of the line's best uptake.
        ratio: What the arm forgets there / what the line does; below 1 the arm forgets less.
        difference: The first - the second, defined even where the line forgets nothing.
    """

    share: float
    ratio: MetricValue
    difference: MetricValue


@dataclass(frozen=True)
class Comparison:
    """An arm beside the line in one metric of forgetting.

    Args:
        at_uptake: Forgetting at shares of the line's best uptake.
        mean_ratio: Mean forgetting over common uptakes / the line's.
    """

    at_uptake: tuple[AtUptake, ...]
    mean_ratio: MetricValue


class Curve(NamedTuple):
    """An arm's curve through the base model at (0, 0), straight between its learning rates.

    Args:
        rates: Learning rates of its points, ascending, (n_points,); the last takes up most.
        points: Uptake and forgetting at these rates.
        uptake: (n_points, 1 + n_bootstrap).
        forgetting: (n_points, 1 + n_bootstrap).
    """

    rates: tuple[float, ...]
    points: tuple[Point, ...]
    uptake: np.ndarray
    forgetting: np.ndarray

    @property
    def n(self) -> int:
        """Number of items of the forgetting."""
        return self.points[0].forgetting.n

    @property
    def reach(self) -> np.ndarray:
        """Largest uptake, (1 + n_bootstrap,); at least 0, that of the base."""
        return np.maximum(self.uptake.max(axis=0), 0.0)

    def share_of_best(self, share: float) -> np.ndarray:
        """A share of its best uptake, (1 + n_bootstrap,)."""
        return share * np.maximum(self.uptake[-1], 0.0)

    def forgetting_at(self, uptake: np.ndarray) -> BootstrapEstimate:
        """Its forgetting at an uptake, (1 + n_bootstrap,).

        A resample in which it does not take up so much counts as infinite forgetting: nothing is
        extrapolated, and an arm that barely reaches an uptake gets an interval without upper end
        rather than one that is too kind.
        """
        found = interpolate_forgetting(self.uptake, self.forgetting, uptake)
        return self.estimate(np.where(np.isnan(found), np.inf, found))

    def estimate(self, found: np.ndarray) -> BootstrapEstimate:
        """What was found in each column, as an estimate from the items of the forgetting."""
        return self.points[0].forgetting._replace(value=float(found[0]), replicates=found[1:])


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
    finite = {rate: point for rate, point in sorted(points.items()) if point.is_finite}
    if not finite:
        return None
    peak = max(finite, key=lambda rate: finite[rate].uptake.value)
    kept = {rate: point for rate, point in finite.items() if rate <= peak}
    return Curve(tuple(kept), tuple(kept.values()), *stack_points(tuple(kept.values())))


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


def compare_with_line(
    arm: Curve | None, line: Curve | None, line_name: str, unit: str
) -> Comparison:
    """What is read off an arm's curve beside the line's.

    Args:
        arm: The arm; ``None`` without a finite point.
        line: The line, from the same draws.
        line_name: What notes call it.
        unit: Unit of the forgetting.
    """
    why = _no_line(line, line_name) or _no_arm(arm)
    if arm is None or line is None or why:
        n = arm.n if arm else 0
        none = (undefined(n, "ratio", False, why), undefined(n, unit, False, why))
        return Comparison(tuple(AtUptake(share, *none) for share in UPTAKE_SHARES), none[0])
    return Comparison(
        tuple(at_uptake(arm, line, share, unit, line_name) for share in UPTAKE_SHARES),
        mean_forgetting_ratio(arm, line, line_name),
    )


def at_uptake(arm: Curve, line: Curve, share: float, unit: str, line_name: str) -> AtUptake:
    """Compare an arm with the line at a share of the line's best uptake."""
    target = line.share_of_best(share)
    if arm.reach[0] < target[0]:
        best = line.uptake[-1][0]
        why = (
            f"takes up {arm.reach[0]:.3g} at most, {arm.reach[0] / best:.0%} of {line_name}'s "
            f"best ({best:.3g}), so there is no equal uptake to compare at"
        )
        return AtUptake(
            share, undefined(arm.n, "ratio", False, why), undefined(arm.n, unit, False, why)
        )
    own, reference = arm.forgetting_at(target), line.forgetting_at(target)
    return AtUptake(
        share,
        _ratio(own, reference, f"{line_name} forgets nothing at this uptake"),
        figure(_minus(own, reference), unit, False),
    )


def mean_forgetting_ratio(
    arm: Curve, line: Curve, line_name: str, share: float = UPTAKE_SHARES[-1]
) -> MetricValue:
    """Mean forgetting over uptakes from 0 to U, as a ratio to the line's.

    U is ``share`` of the line's best uptake, or the arm's largest uptake where that is less: both
    are averaged over the same uptakes. Below 1 is better. The note says how far an arm reaches
    that does not get to ``share``: its ratio speaks of small uptakes only.
    """
    target = line.share_of_best(share)
    upto = np.minimum(target, np.minimum(arm.reach, line.reach))
    own = mean_forgetting(arm.uptake, arm.forgetting, upto)
    reference = mean_forgetting(line.uptake, line.forgetting, upto)
    # In a resample where either takes up nothing there is no common uptake: no bound from it.
    own = arm.estimate(np.where(np.isnan(own), np.inf, own))
    reference = line.estimate(np.where(np.isnan(reference), 0.0, reference))
    note = ""
    if upto[0] < target[0]:
        part = upto[0] / line.uptake[-1][0]
        note = f"over uptakes up to {part:.0%} of {line_name}'s best: it has no larger"
    return _ratio(own, reference, f"{line_name} forgets nothing up to there", note)


def _ratio(
    top: BootstrapEstimate, bottom: BootstrapEstimate, why_none: str, note: str = ""
) -> MetricValue:
    """A ratio, without value where the bottom is not above 0."""
    if bottom.value <= 0:
        why = f"{why_none} ({bottom.value:.3g}); this arm {top.value:.3g}"
        return undefined(top.n, "ratio", False, why)
    return ratio_figure(top, bottom, higher_is_better=False, note=note)


def _minus(own: BootstrapEstimate, other: BootstrapEstimate) -> BootstrapEstimate:
    """The paired difference; 0 in a resample that neither reaches."""
    with np.errstate(invalid="ignore"):
        found = own.minus(other)
    neither = np.isinf(own.replicates) & np.isinf(other.replicates)
    return found._replace(replicates=np.where(neither, 0.0, found.replicates))


def _no_line(line: Curve | None, name: str) -> str:
    if line is None:
        return f"{name} has no finished run here to compare with"
    if line.uptake[-1][0] <= 0:
        return f"{name} takes up nothing at any of its rates"
    return ""


def _no_arm(arm: Curve | None) -> str:
    if arm is None:
        return "scores are not finite, or no seed has all of its rates and those of the line"
    if arm.reach[0] <= 0:
        return "takes up nothing, so there is no equal uptake to compare at"
    return ""
