"""What an evaluation found, as values.

Comes in: nothing but numbers. Goes out: ``MetricValue``, ``ArmResult`` and ``EvalResult``, which
``results.json`` holds. It computes nothing.

``uptake`` and ``forgetting`` are differences from the baseline; ``scores`` are the checkpoint's
own values of the same metrics, so a reader can see both.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradloc.errors import GradlocError
from gradloc.utils.io import read_json, to_jsonable, write_json

FORMAT = 1


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
    curve: dict[str, list] = field(default_factory=dict)
    series: str = ""
    step: int | None = None


@dataclass(frozen=True)
class EvalResult:
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

    suite: str
    baseline: str
    baseline_scores: dict[str, MetricValue]
    arms: dict[str, ArmResult]
    counts: dict[str, int]
    items: dict[str, Any] = field(default_factory=dict)
    examples: tuple[dict[str, Any], ...] = ()
    reference_arms: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON values: what ``results.json`` holds and ``--json`` prints."""
        return to_jsonable({"format": FORMAT, "kind": "results", **vars(self)})

    def save(self, path: str | Path) -> Path:
        """Write ``results.json``."""
        return write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> "EvalResult":
        """Read ``results.json``.

        Raises:
            GradlocError: The file is missing, not JSON, or of another kind or format.
        """
        data = read_json(path, "results file")
        if not isinstance(data, dict) or data.pop("kind", None) != "results":
            raise GradlocError(f"{path}: not a results file of gradloc.")
        if (found := data.pop("format", None)) != FORMAT:
            raise GradlocError(f"{path}: results format {found}, this version reads {FORMAT}.")
        figures = {"uptake", "forgetting", "scores", "versus_full"}
        data["arms"] = {
            name: ArmResult(**{k: _figures(v) if k in figures else v for k, v in arm.items()})
            for name, arm in data["arms"].items()
        }
        data["baseline_scores"] = _figures(data["baseline_scores"])
        data["examples"] = tuple(data["examples"])
        data["reference_arms"] = tuple(data["reference_arms"])
        return cls(**data)


def _figures(data: dict[str, dict]) -> dict[str, MetricValue]:
    return {name: MetricValue(**figure) for name, figure in data.items()}
