"""What a model scored in tasks of the harness."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradloc.evaluation.metrics.metric_table import HARNESS_METRICS


@dataclass(frozen=True)
class TaskMetric:
    """One metric of a task.

    Args:
        value: The whole task's value, as the harness reports it; ``None`` if it is not finite.
        stderr: Its standard error, as the harness reports it; ``None`` if it gives none.
        unit: ``fraction``, ``nats``, ``perplexity`` or ``bits/byte``; empty if it is not known.
        higher_is_better: Direction; ``None`` if the task does not say.
        aggregation: How ``value`` follows from ``values``: ``mean``, ``exp_mean`` (exponential of
            the mean, ``values`` in nats), or ``other``.
        values: Value of each document, (n,), ``None`` where it has none. ``None`` as a whole for
            the aggregation ``other``.
    """

    value: float | None
    stderr: float | None
    unit: str
    higher_is_better: bool | None
    aggregation: str
    values: tuple[float | None, ...] | None


@dataclass(frozen=True)
class TaskScores:
    """What a model scored in one task.

    Args:
        task: Name of the task.
        version: Its version in the harness; only results of one version can be compared.
        n: Number of documents.
        doc_ids: Indices of the documents in the task's data, (n,).
        metrics: Metric -> values. The name has the harness's filter behind it where there is
            one: ``acc``, ``exact_match_strict_match``.
    """

    task: str
    version: str
    n: int
    doc_ids: tuple[int, ...]
    metrics: dict[str, TaskMetric]


def read_scores(name: str, task: Any, results: Mapping[str, Any]) -> TaskScores:
    """The scores of one task from the results of ``lm_eval.simple_evaluate``.

    Args:
        name: Name of the task.
        task: The harness's task, which knows how its metrics are aggregated.
        results: The results, samples included.
    """
    samples = results["samples"][name]
    # Every filter has a sample of every document, in the same order.
    doc_ids = tuple(dict.fromkeys(int(sample["doc_id"]) for sample in samples))
    metrics = {}
    for key, value in results["results"][name].items():
        metric, comma, own_filter = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        per_document = [s.get(metric) for s in samples if s["filter"] == own_filter]
        label = metric if own_filter == "none" else f"{metric}_{own_filter.replace('-', '_')}"
        aggregation, values = _explained(task.aggregation().get(metric), per_document)
        value = _finite(value)
        metrics[label] = TaskMetric(
            value=value,
            stderr=_finite(results["results"][name].get(f"{metric}_stderr,{own_filter}")),
            unit=_unit(metric, value, values),
            higher_is_better=results["higher_is_better"].get(name, {}).get(metric),
            aggregation=aggregation,
            values=values,
        )
    version = str(results["versions"].get(name, ""))
    return TaskScores(name, version, len(doc_ids), doc_ids, metrics)


def _explained(
    aggregate: Any, per_document: Sequence[Any]
) -> tuple[str, tuple[float | None, ...] | None]:
    """The kind of aggregation, and the documents' values where they explain the whole's."""
    from lm_eval.api.metrics import mean, nanmean, perplexity

    plain = all(item is None or np.isscalar(item) for item in per_document)
    # A metric without a stated aggregation is averaged by the harness.
    if plain and aggregate in (None, mean, nanmean):
        return "mean", tuple(_finite(item) for item in per_document)
    if plain and aggregate is perplexity:  # of log-likelihoods
        nats = (_finite(item) for item in per_document)
        return "exp_mean", tuple(None if item is None else -item for item in nats)
    return "other", None


def _unit(metric: str, value: float | None, values: tuple[float | None, ...] | None) -> str:
    unit = HARNESS_METRICS.get(metric, ("", ""))[1]
    if unit not in ("", "fraction"):
        return unit
    counts = values is not None and {v for v in values if v is not None} <= {0.0, 1.0}
    # Some tasks report a metric of such a name in percent.
    in_range = value is not None and 0 <= value <= 1
    return "fraction" if in_range and (counts or unit) else ""


def _finite(value: Any) -> float | None:
    """The number, or ``None`` for what is none: "N/A", NaN."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
