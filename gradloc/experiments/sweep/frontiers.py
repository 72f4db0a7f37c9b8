"""From a sweep's record to its frontiers: every arm beside full training, corpus by corpus.

For each corpus, arm and rate: the mean over seeds of the mean change of the items. An arm's curve
runs through the base model at (0, 0) and its rates up to that of its largest uptake; see
``frontier_curves`` and ``frontier_quantities`` for what is read off it.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from gradloc.errors import GradlocError
from gradloc.evaluation.bootstrap import N_BOOTSTRAP, figure, undefined
from gradloc.evaluation.matched_uptake import Point, forgetting_ratio, uptake_share
from gradloc.evaluation.results import MetricValue
from gradloc.experiments.sweep.corpus_runs import CorpusRuns
from gradloc.experiments.sweep.frontier_curves import Curve, make_curve
from gradloc.experiments.sweep.frontier_quantities import (
    beats,
    compare_with_line,
    cost_ratio,
)
from gradloc.experiments.sweep.frontier_values import (
    ArmFrontier,
    AtUptake,
    Comparison,
    CorpusFrontier,
    Frontier,
    RatePoint,
)
from gradloc.experiments.sweep.sweep_record import SweepRecord
from gradloc.report.formatting import learning_rate
from gradloc.utils.io import to_jsonable

FORMAT = 1


def read_record(record: SweepRecord | str | Path) -> SweepRecord:
    """The record itself, or that of a file.

    Raises:
        GradlocError: The file is missing, or holds something else.
    """
    return record if isinstance(record, SweepRecord) else SweepRecord.load(record)


def find_frontier(
    record: SweepRecord | str | Path, *, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0
) -> Frontier:
    """Compare every arm of a sweep with its line, on each corpus by itself.

    Args:
        record: A sweep's record, or its ``sweep.json``. It may be unfinished.
        n_bootstrap: Resamples behind each interval.
        seed: Seed of the resamples; the same seed gives the same intervals.

    Raises:
        GradlocError: The record cannot be read, has no runs, or no run has its axis; two runs
            are the same, or arms of one seed were measured on different items.
    """
    record = read_record(record)
    if not record.runs:
        raise GradlocError(
            f"sweep {record.name}: no finished run, so there is nothing to compare. Run it first."
        )
    corpora = {}
    for corpus in dict.fromkeys(run.corpus for run in record.runs):
        runs = [run for run in record.runs if run.corpus == corpus]
        own = CorpusRuns(runs, n_bootstrap=n_bootstrap, seed=seed)
        if (kind := own.metrics.get(record.axis)) is None or kind.kind != "uptake":
            known = ", ".join(name for name, kind in own.metrics.items() if kind.kind == "uptake")
            raise GradlocError(
                f"sweep {record.name}, corpus {corpus}: no metric of uptake is called "
                f"'{record.axis}'. Measured were: {known or 'none'}. Set `axis` to one of them."
            )
        corpora[corpus] = _Corpus(own, record.line, record.axis).frontier()
    return Frontier(record.name, record.line, record.axis, n_bootstrap, corpora, record.sessions)


def frontier_figures(record: SweepRecord | Frontier | str | Path) -> dict[str, Any]:
    """A sweep's figures as plain JSON values.

    Args:
        record: A sweep's record, its ``sweep.json``, or the frontier found from it.

    Returns:
        ``corpora`` -> corpus -> ``arms`` -> arm -> ``uptake_share``, ``time_ratio``,
        ``memory_ratio``, ``points`` and ``forgetting`` -> measure -> ``at_uptake``,
        ``at_forgetting``, ``mean_ratio``. Every figure is ``{"value", "low", "high", "n",
        "unit", "higher_is_better", "note"}``, with ``None`` and a note where it is not defined.

    Raises:
        GradlocError: As ``find_frontier``.
    """
    frontier = record if isinstance(record, Frontier) else find_frontier(record)
    return to_jsonable({"format": FORMAT, "kind": "frontier", **vars(frontier)})


class _Corpus:
    """The comparisons of one corpus, whose curves are made once."""

    def __init__(self, runs: CorpusRuns, line: str, axis: str):
        self.runs, self.line, self.axis = runs, line, axis
        self.losses = [n for n, kind in runs.metrics.items() if kind.kind == "forgetting"]
        self._curves: dict[tuple, Curve | None] = {}

    def frontier(self) -> CorpusFrontier:
        seeds = tuple(sorted({run.seed for run in self.runs.runs.values()}))
        arms = {arm: self._arm(arm) for arm in self.runs.arms}
        own = self.runs.shared_seeds(self.line) if self.line in arms else ()
        # The axis itself stands in for forgetting where only the uptake is asked for.
        line = self._curve(self.line, self.axis, own) if own else None
        kind = self.runs.metrics[self.axis]
        if line is None:
            why = f"{self.line} has no finished run on this corpus"
            best_rate, best = None, undefined(0, kind.unit, True, why)
        else:
            best_rate = line.rates[line.best]
            best = figure(line.points[line.best].uptake, kind.unit, True)
        return CorpusFrontier(seeds, best_rate, best, arms, self._notes(seeds, arms))

    def _arm(self, arm: str) -> ArmFrontier:
        runs, line_runs = self.runs.of_arm(arm), self.runs.of_arm(self.line)
        seeds = self.runs.shared_seeds(arm, self.line) if line_runs else ()
        # Without a line there is nothing to compare with, but the points can be shown.
        seeds = seeds or self.runs.shared_seeds(arm)
        fractions = [c.trainable_fraction for c in runs if c.trainable_fraction is not None]
        trained = [run.n_trained for run in runs if run.n_trained is not None]
        first = runs[0]
        return ArmFrontier(
            policy=first.policy,
            methods=first.methods,
            seeds=seeds,
            trainable_fraction=sum(fractions) / len(fractions) if fractions else None,
            n_trained=(min(trained), max(trained)) if trained else None,
            n_units=first.n_units,
            uptake_share=self._uptake_share(arm, seeds),
            time_ratio=cost_ratio(runs, line_runs, "train_seconds", self.line),
            memory_ratio=cost_ratio(runs, line_runs, "peak_rss_mib", self.line),
            points=tuple(self._point(arm, rate, seeds) for rate in self.runs.rates(arm)),
            forgetting={loss: self._comparison(arm, loss, seeds) for loss in self.losses},
        )

    def _uptake_share(self, arm: str, seeds: tuple[int, ...]) -> MetricValue:
        own = self._curve(arm, self.axis, seeds)
        if own is None:
            return undefined(0, "ratio", True, "scores are not finite, or runs are missing")
        line = self._curve(self.line, self.axis, seeds)
        references = [point.uptake for point in line.points] if line else []
        return uptake_share(own.points[own.best].uptake, references)

    def _comparison(self, arm: str, loss: str, seeds: tuple[int, ...]) -> Comparison:
        unit, uptake_unit = (self.runs.metrics[name].unit for name in (loss, self.axis))
        own, line = self._curve(arm, loss, seeds), self._curve(self.line, loss, seeds)
        found = compare_with_line(own, line, self.line, unit, uptake_unit)
        ranked = tuple(self._ranked(arm, loss, at) for at in found.at_uptake)
        return replace(found, at_uptake=ranked)

    def _ranked(self, arm: str, loss: str, found: AtUptake) -> AtUptake:
        """Add which arms this one beats; a pair is compared on the seeds that it shares."""
        if found.forgetting.value is None:
            return found
        outcomes = {}
        for other in self.runs.arms:
            seeds = self.runs.shared_seeds(arm, other, self.line)
            own, rival, line = (self._curve(name, loss, seeds) for name in (arm, other, self.line))
            if other != arm and own and rival and line:
                outcomes[other] = beats(own, rival, line, found.share)
        won, lost = (
            tuple(name for name, outcome in outcomes.items() if outcome is wanted)
            for wanted in (True, False)
        )
        return replace(found, beats=won, loses_to=lost)

    def _point(self, arm: str, rate: float, seeds: tuple[int, ...]) -> RatePoint:
        metrics, ratios, on_curve = {}, {}, {}
        for name, kind in self.runs.metrics.items():
            if (found := self.runs.estimate(arm, rate, name, seeds)) is not None:
                metrics[name] = figure(found, kind.unit, kind.higher_is_better)
        uptake = self.runs.estimate(arm, rate, self.axis, seeds)
        for loss in self.losses:
            own = self._curve(arm, loss, seeds)
            on_curve[loss] = own is not None and rate in own.rates
            line = self._curve(self.line, loss, seeds)
            forgotten = self.runs.estimate(arm, rate, loss, seeds)
            if line is not None and uptake is not None and forgotten is not None:
                ratios[loss] = forgetting_ratio(Point(uptake, forgotten), line.points)
        return RatePoint(rate, on_curve, metrics, ratios)

    def _curve(self, arm: str, measure: str, seeds: tuple[int, ...]) -> Curve | None:
        key = (arm, measure, seeds)
        if key not in self._curves:
            points = {}
            for rate in self.runs.rates(arm):
                uptake = self.runs.estimate(arm, rate, self.axis, seeds)
                forgotten = self.runs.estimate(arm, rate, measure, seeds)
                if uptake is not None and forgotten is not None:
                    points[rate] = Point(uptake, forgotten)
            self._curves[key] = make_curve(points)
        return self._curves[key]

    def _notes(self, seeds: tuple[int, ...], arms: dict[str, ArmFrontier]) -> tuple[str, ...]:
        notes = []
        if len(seeds) == 1:
            notes.append(
                "One seed: intervals come from drawing facts and texts anew and say nothing of "
                "what another seed would give."
            )
        elif len(seeds) < 5:
            notes.append(
                f"{len(seeds)} seeds: intervals draw them anew too, but so few say little of how "
                "far seeds differ: an interval that barely excludes 1 settles nothing."
            )
        if self.line not in arms:
            notes.append(f"{self.line} has no finished run on this corpus: nothing to compare.")
        for name, arm in arms.items():
            if set(arm.seeds) != set(seeds):
                kept = ", ".join(map(str, arm.seeds)) or "none"
                notes.append(f"{name}: not every rate has every seed; used: {kept}.")
            past = [
                p.learning_rate for p in arm.points
                if p.metrics and p.on_curve and not any(p.on_curve.values())
            ]  # fmt: skip
            if past:
                rates = ", ".join(learning_rate(rate) for rate in past)
                notes.append(
                    f"{name}: its curve leaves out {rates}, beyond the rate of its largest "
                    "uptake or not finite."
                )
        return tuple(notes)
