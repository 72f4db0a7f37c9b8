"""From a sweep's record to its frontiers: every arm beside full training, corpus by corpus.

For each corpus, arm and rate: the mean over seeds of the mean change of the items. An arm's curve
runs through the base model at (0, 0) and its rates up to that of its largest uptake; see
``frontier_curves`` for what is read off it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from gradloc.errors import GradlocError
from gradloc.evaluation.bootstrap import N_BOOTSTRAP, figure, undefined
from gradloc.evaluation.matched_uptake import forgetting_ratio, uptake_share
from gradloc.evaluation.results import MetricValue
from gradloc.experiments.sweep.corpus_runs import CorpusRuns
from gradloc.experiments.sweep.frontier_curves import Comparison, compare_with_line
from gradloc.experiments.sweep.sweep_record import RunRecord, SweepRecord
from gradloc.report.formatting import learning_rate
from gradloc.utils.io import to_jsonable

FORMAT = 2


@dataclass(frozen=True)
class RatePoint:
    """An arm at one learning rate.

    Args:
        learning_rate: Peak learning rate.
        on_curve: Forgetting metric -> whether the arm's curve runs through the point: not beyond
            the rate of largest uptake, not where a score is not finite.
        metrics: Metric -> mean change against the base, over seeds and items.
        forgetting_ratio: Forgetting metric -> forgetting / the line's at the uptake of this
            point; below 1 is better.
    """

    learning_rate: float
    on_curve: dict[str, bool]
    metrics: dict[str, MetricValue]
    forgetting_ratio: dict[str, MetricValue]


@dataclass(frozen=True)
class ArmFrontier:
    """One arm on one corpus.

    Args:
        policy: Its selection policy.
        methods: Its training methods with their options.
        seeds: Seeds in which all of its rates and all of the line's are finished; all of its
            figures are from these.
        trainable_fraction: Mean over its runs, 0-1.
        uptake_share: Its best uptake / the line's best; higher is better.
        time_ratio: Training time / the line's; lower is better.
        memory_ratio: Peak memory of the training / the line's; lower is better.
        points: Its learning rates, ascending.
        forgetting: Forgetting metric -> comparison.
    """

    policy: str
    methods: dict[str, dict[str, Any]]
    seeds: tuple[int, ...]
    trainable_fraction: float | None
    uptake_share: MetricValue
    time_ratio: MetricValue
    memory_ratio: MetricValue
    points: tuple[RatePoint, ...]
    forgetting: dict[str, Comparison]


@dataclass(frozen=True)
class CorpusFrontier:
    """All arms on one corpus.

    Args:
        best_rate: The line's rate of largest uptake; ``None`` without a finite one.
        best_uptake: The line's uptake there.
        arms: Arm -> its figures, in the order of the record.
        notes: What to know before reading: few seeds, missing runs, rates left out.
    """

    best_rate: float | None
    best_uptake: MetricValue
    arms: dict[str, ArmFrontier]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Frontier:
    """A sweep's figures.

    Args:
        name: Name of the sweep.
        line: The arm that the others are compared with.
        axis: The metric of uptake by which arms are matched.
        n_bootstrap: Resamples behind each interval.
        corpora: Corpus -> its arms.
    """

    name: str
    line: str
    axis: str
    n_bootstrap: int
    corpora: dict[str, CorpusFrontier]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: what ``--json`` prints."""
        return {"format": FORMAT, "kind": "frontier", **to_jsonable(self)}


def find_frontier(
    record: SweepRecord, *, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0
) -> Frontier:
    """Compare every arm of a sweep with its line, on each corpus by itself.

    Args:
        record: A sweep's record. It may be unfinished.
        n_bootstrap: Resamples behind each interval.
        seed: Seed of the resamples; the same seed gives the same intervals.

    Raises:
        GradlocError: The record has no runs, or no run has its axis; two runs are the same, or
            arms of one seed were measured on different items.
    """
    if not record.runs:
        raise GradlocError(
            f"sweep {record.name}: no finished run, so there is nothing to compare. Run it first."
        )
    corpora = {}
    for corpus in dict.fromkeys(run.corpus for run in record.runs):
        of_corpus = [run for run in record.runs if run.corpus == corpus]
        runs = CorpusRuns(of_corpus, record.axis, n_bootstrap=n_bootstrap, seed=seed)
        if (kind := runs.metrics.get(record.axis)) is None or kind.kind != "uptake":
            known = ", ".join(name for name, kind in runs.metrics.items() if kind.kind == "uptake")
            raise GradlocError(
                f"sweep {record.name}, corpus {corpus}: no metric of uptake is called "
                f"'{record.axis}'. Measured were: {known or 'none'}. Set `axis` to one of them."
            )
        corpora[corpus] = _corpus(runs, record.line)
    return Frontier(record.name, record.line, record.axis, n_bootstrap, corpora)


def _corpus(runs: CorpusRuns, line: str) -> CorpusFrontier:
    arms = {arm: _arm(runs, arm, line) for arm in runs.arms}
    unit = runs.metrics[runs.axis].unit
    curve = runs.curve(line, runs.axis, runs.shared_seeds(line)) if line in arms else None
    best_rate = None
    best = undefined(0, unit, True, f"{line} has no finished run on this corpus")
    if curve is not None:
        best_rate, best = curve.rates[-1], figure(curve.points[-1].uptake, unit, True)
    return CorpusFrontier(best_rate, best, arms, tuple(_notes(runs, arms, line)))


def _arm(runs: CorpusRuns, arm: str, line: str) -> ArmFrontier:
    own, of_line = runs.of_arm(arm), runs.of_arm(line)
    seeds = runs.shared_seeds(arm, line) if of_line else ()
    # Without a line there is nothing to compare with, but the points can be shown.
    seeds = seeds or runs.shared_seeds(arm)
    fractions = [run.trainable_fraction for run in own if run.trainable_fraction is not None]
    losses = [name for name, kind in runs.metrics.items() if kind.kind == "forgetting"]
    return ArmFrontier(
        policy=own[0].policy,
        methods=own[0].methods,
        seeds=seeds,
        trainable_fraction=sum(fractions) / len(fractions) if fractions else None,
        uptake_share=_uptake_share(runs, arm, line, seeds),
        time_ratio=cost_ratio(own, of_line, "train_seconds", line),
        memory_ratio=cost_ratio(own, of_line, "peak_rss_mib", line),
        points=tuple(_point(runs, arm, rate, line, seeds) for rate in runs.rates(arm)),
        forgetting={
            loss: compare_with_line(
                runs.curve(arm, loss, seeds), runs.curve(line, loss, seeds), line,
                runs.metrics[loss].unit,
            )
            for loss in losses
        },
    )  # fmt: skip


def _uptake_share(runs: CorpusRuns, arm: str, line: str, seeds: tuple[int, ...]) -> MetricValue:
    own, reference = (runs.curve(name, runs.axis, seeds) for name in (arm, line))
    if own is None:
        return undefined(0, "ratio", True, "scores are not finite, or runs are missing")
    references = [point.uptake for point in reference.points] if reference else []
    return uptake_share(own.points[-1].uptake, references)


def _point(runs: CorpusRuns, arm: str, rate: float, line: str, seeds: tuple[int, ...]) -> RatePoint:
    metrics, ratios, on_curve = {}, {}, {}
    for name, kind in runs.metrics.items():
        if (found := runs.estimate(arm, rate, name, seeds)) is not None:
            metrics[name] = figure(found, kind.unit, kind.higher_is_better)
        if kind.kind == "forgetting":
            own, reference = (runs.curve(curve, name, seeds) for curve in (arm, line))
            on_curve[name] = own is not None and rate in own.rates
            point = runs.point(arm, rate, name, seeds)
            if reference is not None and point is not None:
                ratios[name] = forgetting_ratio(point, reference.points)
    return RatePoint(rate, on_curve, metrics, ratios)


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

    def by_run(runs: Sequence[RunRecord]) -> dict[tuple[int, int], float]:
        found: dict[tuple[int, int], list[float]] = {}
        for run in runs:
            if (value := getattr(run, field)) is not None:
                found.setdefault((run.session, run.seed), []).append(value)
        return {key: median(values) for key, values in found.items()}

    own, reference = by_run(arm), by_run(line)
    ratios = [own[key] / reference[key] for key in own if reference.get(key)]
    if not ratios:
        why = f"no seed has this for both the arm and {line_name} in one session"
        return undefined(0, "ratio", False, why)
    note = "one seed"
    if len(ratios) > 1:
        note = f"{min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} seeds"
    return MetricValue(float(median(ratios)), None, None, len(ratios), "ratio", False, note)


def _notes(runs: CorpusRuns, arms: dict[str, ArmFrontier], line: str) -> Iterator[str]:
    seeds = {run.seed for run in runs.runs.values()}
    if len(seeds) == 1:
        yield (
            "One seed: intervals come from drawing facts and texts anew and say nothing of what "
            "another seed would give."
        )
    elif len(seeds) < 5:
        yield (
            f"{len(seeds)} seeds: intervals draw them anew too, but so few say little of how far "
            "seeds differ: an interval that barely excludes 1 settles nothing."
        )
    if line not in arms:
        yield f"{line} has no finished run on this corpus: nothing to compare."
    for name, arm in arms.items():
        if set(arm.seeds) != seeds:
            kept = ", ".join(map(str, arm.seeds)) or "none"
            yield f"{name}: not every rate has every seed; used: {kept}."
        past = [
            learning_rate(point.learning_rate)
            for point in arm.points
            if point.metrics and point.on_curve and not any(point.on_curve.values())
        ]
        if past:
            yield (
                f"{name}: its curve leaves out {', '.join(past)}, beyond the rate of its largest "
                "uptake or not finite."
            )
