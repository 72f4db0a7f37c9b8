"""What is read off an arm's curve beside that of the line.

The line is full training at several rates. "Best" is its rate of largest uptake, chosen once from
all items: intervals are those of fixed models. Levels move with the resamples: half of the line's
best uptake is, in each of them, half of what the line takes up there.
"""

from collections.abc import Sequence
from statistics import median

import numpy as np

from gradloc.evaluation.bootstrap import (
    BootstrapEstimate,
    figure,
    interval,
    ratio_replicates,
    undefined,
)
from gradloc.evaluation.matched_uptake import interpolate_forgetting
from gradloc.evaluation.results import MetricValue
from gradloc.experiments.sweep.frontier_curves import Curve, mean_forgetting, uptake_within
from gradloc.experiments.sweep.frontier_values import AtForgetting, AtUptake, Comparison
from gradloc.experiments.sweep.sweep_record import RunRecord

UPTAKE_SHARES = (0.5, 0.75, 0.9)
FORGETTING_SHARES = (0.1, 0.25, 0.5, 1.0)
# Beyond this share of resamples a limit is worth a note.
_OFTEN = 0.05


def uptake_target(line: Curve, share: float) -> np.ndarray:
    """A share of the line's best uptake, in each column."""
    return share * np.maximum(line.uptake[line.best], 0.0)


def reaches(arm: Curve, line: Curve, share: float) -> bool:
    """Whether the arm takes up that much, by the estimates from all items."""
    return bool(arm.reach[0] >= uptake_target(line, share)[0] > 0)


def forgetting_at_share(arm: Curve, line: Curve, share: float) -> np.ndarray:
    """The arm's forgetting at a share of the line's best uptake, in each column.

    A resample in which the arm does not take up so much counts as infinite forgetting: nothing is
    extrapolated, and an arm that barely reaches an uptake gets an interval without upper end
    rather than one that is too kind.
    """
    found = interpolate_forgetting(arm.uptake, arm.forgetting, uptake_target(line, share))
    return np.where(np.isnan(found), np.inf, found)


def compare_with_line(
    arm: Curve | None, line: Curve | None, line_name: str, unit: str, uptake_unit: str
) -> Comparison:
    """Everything that is read off an arm's curve beside the line's.

    Args:
        arm: The arm; ``None`` without a finite point.
        line: The line, from the same draws.
        line_name: What notes call it.
        unit: Unit of the forgetting.
        uptake_unit: Unit of the uptake.
    """
    no_line = _no_line(line, line_name)
    why = no_line or _no_arm(arm)
    if arm is None or line is None or why:
        n = arm.n if arm else 0
        none, no_ratio = undefined(n, unit, False, why), undefined(n, "ratio", False, why)
        target = None if line is None or no_line else line
        return Comparison(
            tuple(
                AtUptake(
                    share,
                    None if target is None else float(uptake_target(target, share)[0]),
                    none, none, no_ratio, none,
                )
                for share in UPTAKE_SHARES
            ),
            tuple(_no_level(share, n, uptake_unit, why) for share in FORGETTING_SHARES),
            no_ratio,
        )  # fmt: skip
    return Comparison(
        tuple(at_uptake(arm, line, share, unit, line_name) for share in UPTAKE_SHARES),
        tuple(at_forgetting(arm, line, x, uptake_unit, line_name) for x in FORGETTING_SHARES),
        mean_forgetting_ratio(arm, line, line_name),
    )


def at_uptake(arm: Curve, line: Curve, share: float, unit: str, line_name: str) -> AtUptake:
    """Compare an arm with the line at a share of the line's best uptake."""
    at = float(uptake_target(line, share)[0])
    if not reaches(arm, line, share):
        best = line.uptake[line.best][0]
        why = (
            f"takes up {arm.reach[0]:.3g} at most, {arm.reach[0] / best:.0%} of {line_name}'s "
            f"best ({best:.3g}), so there is no equal uptake to compare at"
        )
        none = undefined(arm.n, unit, False, why)
        return AtUptake(share, at, none, none, undefined(arm.n, "ratio", False, why), none)
    own = forgetting_at_share(arm, line, share)
    reference = forgetting_at_share(line, line, share)
    note = "; ".join(filter(None, (_unreached_note(own), _below_note(arm, line, share, line_name))))
    return AtUptake(
        share,
        at,
        figure_of(own, arm, unit, False, note),
        figure_of(reference, line, unit, False),
        ratio_figure(own, reference, arm, f"{line_name} forgets nothing at this uptake", note),
        figure_of(_minus(own, reference), arm, unit, False, note),
    )


def at_forgetting(arm: Curve, line: Curve, share: float, unit: str, line_name: str) -> AtForgetting:
    """Compare an arm's uptake with the line's at a share of what the line forgets at its best."""
    forgotten = line.forgetting[line.best]
    if forgotten[0] <= 0:
        why = (
            f"{line_name} forgets nothing at its best uptake ({forgotten[0]:.3g}), so there is no "
            "level to match"
        )
        return _no_level(share, arm.n, unit, why)
    level = share * np.maximum(forgotten, 0.0)
    own = uptake_within(arm.uptake, arm.forgetting, level)
    reference = uptake_within(line.uptake, line.forgetting, level)
    note = ""
    if arm.forgetting.max(axis=0)[0] <= level[0]:
        note = "forgets less than this at all of its rates, so this is its largest uptake"
    return AtForgetting(
        share,
        float(level[0]),
        figure_of(own, arm, unit, True, note),
        ratio_figure(
            own, reference, arm, f"{line_name} takes up nothing within this", note, higher=True
        ),
    )


def mean_forgetting_ratio(
    arm: Curve, line: Curve, line_name: str, share: float = UPTAKE_SHARES[-1]
) -> MetricValue:
    """Mean forgetting over uptakes from 0 to U, as a ratio to the line's.

    U is ``share`` of the line's best uptake, or the arm's largest uptake where that is less: both
    are averaged over the same uptakes. Below 1 is better. The note says how far an arm reaches
    that does not get to ``share``: its ratio speaks of small uptakes only.
    """
    target = uptake_target(line, share)
    upto = np.minimum(target, np.minimum(arm.reach, line.reach))
    own = mean_forgetting(arm.uptake, arm.forgetting, upto)
    reference = mean_forgetting(line.uptake, line.forgetting, upto)
    # In a resample where either takes up nothing there is no common uptake: no bound from it.
    own = np.where(np.isnan(own), np.inf, own)
    reference = np.where(np.isnan(reference), 0.0, reference)
    note = ""
    if upto[0] < target[0]:
        best = line.uptake[line.best][0]
        note = f"over uptakes up to {upto[0] / best:.0%} of {line_name}'s best: it has no larger"
    return ratio_figure(own, reference, arm, f"{line_name} forgets nothing up to there", note)


def cost_ratio(
    arm: Sequence[RunRecord], line: Sequence[RunRecord], field: str, line_name: str
) -> MetricValue:
    """An arm's cost / the line's: medians over the rates of one seed, then over seeds.

    A seed's arm and line are compared where they ran in the same session, so on one machine.
    Without interval: a machine's noise is not that of facts. The note gives the range over seeds.

    Args:
        arm: Its runs.
        line: Runs of the line.
        field: ``train_seconds`` or ``peak_rss_mib``.
        line_name: For the note.
    """
    own, reference = _by_run(arm, field), _by_run(line, field)
    ratios = [own[run] / reference[run] for run in own if reference.get(run)]
    if not ratios:
        why = f"no seed has this for both the arm and {line_name} in one session"
        return undefined(0, "ratio", False, why)
    note = f"{min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} seeds"
    return MetricValue(
        float(median(ratios)), None, None, len(ratios), "ratio", False,
        note if len(ratios) > 1 else "one seed",
    )  # fmt: skip


def beats(arm: Curve, other: Curve, line: Curve, share: float) -> bool | None:
    """Whether an arm forgets less than another one at a share of the line's best uptake.

    Both must reach that uptake. One beats another where the 95 % interval of the paired
    difference of their forgetting excludes 0; where both forget something, that is also where the
    interval of the log of their ratio does.

    Args:
        arm: The arm that is asked about.
        other: The other arm.
        line: The line; all three from the same draws.
        share: Share of the line's best uptake.

    Returns:
        ``False``: the other one forgets less; ``None``: neither is shown to.
    """
    comparable = reaches(arm, line, share) and reaches(other, line, share)
    if not comparable or min(arm.n_clusters, other.n_clusters) < 2:
        return None
    own, theirs = (forgetting_at_share(curve, line, share) for curve in (arm, other))
    low, high = interval(_minus(own, theirs)[1:])
    if high is not None and high < 0:
        return True
    return False if low is not None and low > 0 else None


def figure_of(
    found: np.ndarray, curve: Curve, unit: str, higher_is_better: bool, note: str = ""
) -> MetricValue:
    """The figure of a row of columns."""
    estimate = BootstrapEstimate(float(found[0]), found[1:], curve.n, curve.n_clusters)
    return figure(estimate, unit, higher_is_better, note)


def ratio_figure(
    top: np.ndarray, bottom: np.ndarray, curve: Curve, why_none: str, note: str = "", higher=False
) -> MetricValue:
    """A ratio, without value where the bottom is not above 0."""
    if bottom[0] <= 0:
        why = f"{why_none} ({bottom[0]:.3g}); this arm {top[0]:.3g}"
        return undefined(curve.n, "ratio", higher, why)
    if (low := interval(bottom[1:])[0]) is None or low <= 0:
        uncertain = f"{bottom[0]:.3g}, which it is divided by, is not distinct from zero"
        note = f"{note}; {uncertain}" if note else uncertain
    return figure_of(ratio_replicates(top, bottom), curve, "ratio", higher, note)


def _no_line(line: Curve | None, name: str) -> str:
    if line is None:
        return f"{name} has no finished run here to compare with"
    if line.uptake[line.best][0] <= 0:
        return f"{name} takes up nothing at any of its rates"
    return ""


def _no_arm(arm: Curve | None) -> str:
    if arm is None:
        return "scores are not finite, or no seed has all of its rates and those of the line"
    if arm.reach[0] <= 0:
        return "takes up nothing, so there is no equal uptake to compare at"
    return ""


def _no_level(share: float, n: int, unit: str, why: str) -> AtForgetting:
    return AtForgetting(
        share, None, undefined(n, unit, True, why), undefined(n, "ratio", True, why)
    )


def _unreached_note(own: np.ndarray) -> str:
    unreached = float(np.mean(np.isinf(own[1:])))
    if unreached <= _OFTEN:
        return ""
    return f"in {unreached:.0%} of the resamples it does not take up so much"


def _below_note(arm: Curve, line: Curve, share: float, line_name: str) -> str:
    """Warn of a level below the lowest rate: there a straight line says more than was measured."""
    at = uptake_target(line, share)[0]
    below = [
        name
        for name, curve in (("the arm", arm), (line_name, line))
        if at < min((u for u in curve.uptake[:, 0] if u > 0), default=np.inf)
    ]
    if not below:
        return ""
    return f"less than {' and '.join(below)} at the lowest rate: a straight line from the base"


def _minus(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The difference; 0 in a resample that neither reaches."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(own) & np.isinf(other), 0.0, own - other)


def _by_run(runs: Sequence[RunRecord], field: str) -> dict[tuple[int, int], float]:
    """Session and seed -> median over rates."""
    found: dict[tuple[int, int], list[float]] = {}
    for run in runs:
        if (value := getattr(run, field)) is not None:
            found.setdefault((run.session, run.seed), []).append(value)
    return {run: median(values) for run, values in found.items()}
