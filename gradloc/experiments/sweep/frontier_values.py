"""The figures of a sweep, as values."""

from dataclasses import dataclass
from typing import Any

from gradloc.evaluation.results import MetricValue


@dataclass(frozen=True)
class AtUptake:
    """Forgetting at a share of the line's best uptake.

    Args:
        share: Share of the line's best uptake.
        uptake: That uptake.
        forgetting: What the arm forgets there; lower is better.
        line: What the line forgets there.
        ratio: The first / the second; below 1 the arm forgets less.
        difference: The first - the second, defined even where the line forgets nothing.
        beats: Arms that forget more there: the interval of the paired difference excludes 0.
        loses_to: Arms that forget less there.
    """

    share: float
    uptake: float | None
    forgetting: MetricValue
    line: MetricValue
    ratio: MetricValue
    difference: MetricValue
    beats: tuple[str, ...] = ()
    loses_to: tuple[str, ...] = ()


@dataclass(frozen=True)
class AtForgetting:
    """Largest uptake that stays within a share of what the line forgets at its best uptake.

    Args:
        share: Share of the line's forgetting at its rate of largest uptake.
        level: That forgetting.
        uptake: The arm's largest uptake within it; higher is better.
        ratio: It / the line's own largest uptake within it; above 1 is better.
    """

    share: float
    level: float | None
    uptake: MetricValue
    ratio: MetricValue


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
class Comparison:
    """An arm beside the line in one metric of forgetting.

    Args:
        at_uptake: Forgetting at shares of the line's best uptake.
        at_forgetting: Uptake at shares of the line's forgetting.
        mean_ratio: Mean forgetting over common uptakes / the line's.
    """

    at_uptake: tuple[AtUptake, ...]
    at_forgetting: tuple[AtForgetting, ...]
    mean_ratio: MetricValue


@dataclass(frozen=True)
class ArmFrontier:
    """One arm on one corpus.

    Args:
        policy: Its selection policy.
        methods: Its training methods with their options.
        seeds: Seeds in which all of its rates and all of the line's are finished; all of its
            figures are from these.
        trainable_fraction: Mean over its runs, 0-1.
        n_trained: Units that trained, smallest and largest over its runs.
        n_units: Units of the model.
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
    n_trained: tuple[int, int] | None
    n_units: int | None
    uptake_share: MetricValue
    time_ratio: MetricValue
    memory_ratio: MetricValue
    points: tuple[RatePoint, ...]
    forgetting: dict[str, Comparison]


@dataclass(frozen=True)
class CorpusFrontier:
    """All arms on one corpus.

    Args:
        seeds: All seeds of its runs.
        best_rate: The line's rate of largest uptake; ``None`` without a finite one.
        best_uptake: The line's uptake there.
        arms: Arm -> its figures, in the order of the record.
        notes: What to know before reading: few seeds, missing runs, rates left out.
    """

    seeds: tuple[int, ...]
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
        sessions: Command, versions and machine of each session of the sweep.
    """

    name: str
    line: str
    axis: str
    n_bootstrap: int
    corpora: dict[str, CorpusFrontier]
    sessions: tuple[dict[str, Any], ...] = ()
