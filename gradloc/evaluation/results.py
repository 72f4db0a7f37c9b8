"""What an evaluation found, as values.

``uptake`` and ``forgetting`` are differences from the baseline; ``scores`` are the checkpoint's
own values of the same metrics, so a reader can see both.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NotRequired

from typing_extensions import TypedDict

from gradloc.utils.records import Record

UPTAKE_AXIS = "new_paraphrase_nll"


@dataclass(frozen=True)
class MetricValue:
    """One number with what is needed to judge it.

    Args:
        value: The estimate; ``None`` where it is not defined (``note`` says why).
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        n: Number of items (probes or texts) it was computed from.
        unit: ``nats``, ``nats/token``, ``fraction``, ``ratio``.
        higher_is_better: Direction.
        note: Why the value is missing, or how to read it.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    unit: str
    higher_is_better: bool
    note: str = ""


@dataclass(frozen=True)
class ArmResult:
    """One checkpoint against the baseline.

    Args:
        checkpoint: Where the weights are.
        uptake: Metric name -> score after minus score before, e.g. ``new_paraphrase_nll``
            (nats gained), ``updated_prefers_new`` (share). Higher is better.
        forgetting: Metric name -> score before minus score after: ``known_facts`` (share of
            facts no longer right), ``known_facts_nll``, ``general_text`` (nats per token lost).
            Lower is better.
        scores: Metric name -> the checkpoint's own value, for the metrics of both kinds.
        versus_full: ``uptake_share``: this arm's uptake over the reference arm's best;
            ``forgetting_ratio_<metric>``: its forgetting over the reference arm's at the same
            uptake, interpolated over the reference arm's learning rates (below 1 is better).
            Empty where nothing was trained to compare with.
        policy: Selection policy of the plan it was trained with; empty for foreign checkpoints.
        methods: Training methods with their options, by name.
        learning_rate: Peak learning rate, if known.
        train_seconds: Wall-clock seconds of training and of what its methods did for it, without
            measuring and evaluating.
        peak_rss_mib: Peak resident memory of training, in MiB.
        trainable_fraction: Parameters trained / all parameters, 0-1.
        curve: Columns over training steps: ``step``, ``loss`` (nats per token of the batches,
            ``None`` where not logged), ``new_nll`` and ``invariant_nll`` (mean span NLL of the
            probes followed during training, ``None`` where not measured).
        series: Name of the training run of which it is one checkpoint among several; else empty.
        step: Optimizer steps after which it was saved, for the checkpoints of a series.
    """

    checkpoint: str
    uptake: dict[str, MetricValue]
    forgetting: dict[str, MetricValue]
    scores: dict[str, MetricValue]
    versus_full: dict[str, MetricValue] = field(default_factory=dict)
    policy: str = ""
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    learning_rate: float | None = None
    train_seconds: float | None = None
    peak_rss_mib: float | None = None
    trainable_fraction: float | None = None
    curve: dict[str, list[float | None]] = field(default_factory=dict)
    series: str = ""
    step: int | None = None


def uptake_axis(keys: Iterable[str]) -> str | None:
    """The metric of uptake that arms are matched by: the likelihood of paraphrases, or another."""
    likelihoods = [key for key in keys if key.endswith("_nll")]
    return UPTAKE_AXIS if UPTAKE_AXIS in likelihoods else next(iter(likelihoods), None)


class Example(TypedDict):
    """A probe with the answers that the systems wrote; ``baseline`` is one of them."""

    prompt: str
    target: str
    old_target: NotRequired[str | None]
    group: NotRequired[str]
    answers: dict[str, str | None]


@dataclass(frozen=True)
class EvalResult(Record):
    """All checkpoints of one evaluation, measured on the same items.

    Args:
        suite: Name of the suite.
        baseline: Name or path of the model that "before" means.
        baseline_scores: Metric name -> the baseline's own value.
        arms: Arm name -> result, in the order in which they were asked for.
        counts: What was scored: probes by group and depth, ``invariant_candidates`` and
            ``invariant_screened`` (those that the baseline has right), texts, tokens.
        items: Per-item scores, for whoever wants to compute something else. ``probe_ids``,
            ``probes`` (columns ``group``, ``depth``, ``task``, ``kind``, ``entity``, ``date``) and
            ``<arm>`` -> columns (``nll``, ``exact``, ``old_nll``, ``answer``), all aligned; the
            baseline stands under ``baseline``. ``texts`` -> domain -> arm -> nats and tokens of
            each text.
        examples: A few probes with every arm's own answer: ``prompt``, ``target``,
            ``old_target``, ``group``, ``answers`` {arm: text the model writes}.
        reference_arms: Names of the arms that form the line of full training.
        versions: Library name -> version.
    """

    KIND: ClassVar[str] = "results"
    WHAT: ClassVar[str] = "results file"

    suite: str
    baseline: str
    baseline_scores: dict[str, MetricValue]
    arms: dict[str, ArmResult]
    counts: dict[str, int]
    items: dict[str, dict[str, Any] | list[str]] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    reference_arms: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)

    def columns(self, name: str) -> dict[str, Any]:
        """Per-item columns of an arm, of the baseline or of the ``probes``; none: empty."""
        found = self.items.get(name, {})
        return found if isinstance(found, dict) else {}

    def problems(self) -> list[str]:
        """Reference arms that there are none of, and columns of other lengths."""
        problems = [
            f"reference_arms: there is no arm {name!r}"
            for name in self.reference_arms
            if name not in self.arms
        ]
        for name, arm in self.arms.items():
            if len({len(column) for column in arm.curve.values()}) > 1:
                problems.append(f"arms.{name}.curve: its columns have different lengths")
        n = len(self.items.get("probe_ids", ()))
        for name, column in self.columns("probes").items():
            texts = isinstance(column, list | tuple) and all(isinstance(x, str) for x in column)
            if not texts or len(column) != n:
                problems.append(f"items.probes.{name}: expected a list of {n} texts")
        return problems
