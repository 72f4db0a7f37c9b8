"""What is kept of continual training: every item's change after every stage."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from gradloc.evaluation.score_record import ItemScores, ScoreRecord

RECORD_FILE = "continual.json"


@dataclass(frozen=True)
class StageRecord:
    """One stage of one arm.

    Args:
        period: Name of the period that it was trained on.
        metrics: Metric -> its items, as changes against the base model: ``<period>_nll`` for the
            facts of each period, ``known_facts``, ``known_facts_nll`` and ``general_text``.
        n_steps: Optimizer steps.
        train_seconds: Wall-clock seconds of training.
        trainable_fraction: Parameters that trained / all parameters, 0-1.
        trained: Names of the units that trained.
    """

    period: str
    metrics: dict[str, ItemScores]
    n_steps: int
    train_seconds: float
    trainable_fraction: float
    trained: tuple[str, ...]


@dataclass(frozen=True)
class ArmRecord:
    """One arm as far as it has come.

    Args:
        policy: Its selection policy.
        methods: Its training methods with their options.
        learning_rate: Peak learning rate of each stage.
        n_units: Units of the model.
        stages: Its finished stages, in order.
        training: Training arguments of its own, but for the rate.
    """

    policy: str
    methods: dict[str, dict[str, Any]]
    learning_rate: float
    n_units: int
    stages: tuple[StageRecord, ...]
    training: dict[str, Any] = field(default_factory=dict)

    def over_stages(self, metric: str) -> list[ItemScores]:
        """Its items after every stage that has the metric."""
        return [stage.metrics[metric] for stage in self.stages if metric in stage.metrics]


@dataclass(frozen=True)
class ContinualRecord(ScoreRecord):
    """A continual training as far as it has come.

    Args:
        name: Its name.
        model: The base model.
        by: ``month``, ``quarter`` or ``year``.
        measure: ``each`` or ``once``: for which stages a plan was measured.
        periods: ``(name, first day, day after the last)`` of every period.
        stages: Names of the periods that are trained on.
        base: ``<period>_nll`` -> log-probability of the period's answers by the base model, for
            the periods with evaluation items.
        arms: Name -> arm.
        notes: What was left out, and why.
        seed: Seed of everything.
        n_bootstrap: Resamples for intervals.
        screened: Whether known facts are those that the base model has right.
        command: The command that made it.
        environment: Versions, machine.
    """

    KIND: ClassVar[str] = "continual"
    WHAT: ClassVar[str] = "record of continual training"
    VERSION: ClassVar[int] = 2

    name: str
    model: str
    by: str
    measure: str
    periods: tuple[tuple[str, str, str], ...]
    stages: tuple[str, ...]
    base: dict[str, ItemScores]
    arms: dict[str, ArmRecord] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seed: int = 0
    n_bootstrap: int = 2000
    screened: bool = True
    command: str = ""
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the periods with evaluation items, in order."""
        return tuple(name for name, _, _ in self.periods if uptake_metric(name) in self.base)


def uptake_metric(period: str) -> str:
    """The metric of a period's new and updated facts."""
    return f"{period}_nll"
