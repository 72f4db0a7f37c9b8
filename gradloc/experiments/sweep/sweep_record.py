"""What is kept of a sweep: every item's change in every run, and nothing as large as weights."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from gradloc.evaluation.score_record import ItemScores, ScoreRecord


@dataclass(frozen=True)
class RunRecord:
    """One arm at one learning rate with one seed on one corpus.

    Args:
        corpus: Name of the corpus in the sweep.
        arm: Name of the arm.
        policy: Its selection policy.
        methods: Its training methods with their options.
        learning_rate: Peak learning rate.
        seed: Seed of corpus, splits, measurement and training.
        train_seconds: Wall-clock of the training and of what its methods did for it.
        peak_rss_mib: Peak memory of the training.
        trainable_fraction: Parameters that trained / all parameters, 0-1.
        n_trained: Units that trained.
        n_units: Units of the model.
        metrics: Metric -> its items, as changes against the base model.
        session: In which session of the sweep it ran, from 0. Times of two sessions, perhaps on
            two machines, are not compared.
        options: Options of its selection policy.
        training: Training arguments of its own, but for the rate.
    """

    corpus: str
    arm: str
    policy: str
    methods: dict[str, dict[str, Any]]
    learning_rate: float
    seed: int
    train_seconds: float | None = None
    peak_rss_mib: float | None = None
    trainable_fraction: float | None = None
    n_trained: int | None = None
    n_units: int | None = None
    metrics: dict[str, ItemScores] = field(default_factory=dict)
    session: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SweepRecord(ScoreRecord):
    """A sweep as far as it has come.

    Args:
        name: Name of the sweep.
        line: The arm that the others are compared with, full training at several rates.
        axis: The metric of uptake that arms are matched by.
        runs: The finished runs.
        command: The command of the last session.
        environment: Versions and machine of the last session.
        earlier: ``command`` and ``environment`` of the sessions before it, in order.
    """

    KIND: ClassVar[str] = "sweep"
    WHAT: ClassVar[str] = "record of a sweep"
    VERSION: ClassVar[int] = 3

    name: str
    line: str
    axis: str
    runs: tuple[RunRecord, ...] = ()
    command: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    earlier: tuple[dict[str, Any], ...] = ()

    @property
    def sessions(self) -> tuple[dict[str, Any], ...]:
        """Command and environment of every session; ``RunRecord.session`` is a place in it."""
        return (*self.earlier, {"command": self.command, "environment": self.environment})
