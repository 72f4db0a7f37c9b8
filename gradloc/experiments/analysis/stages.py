"""Checkpoints of a sequence of stages: the score matrix R, transfer and forgetting."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gradloc.errors import GradlocError
from gradloc.evaluation.bootstrap import N_BOOTSTRAP, derive_seed, estimate, figure
from gradloc.evaluation.results import EvalResult, MetricValue
from gradloc.evaluation.stage_figures import stage_figures
from gradloc.utils.io import to_jsonable
from gradloc.utils.names import did_you_mean

FORMAT = 1


class _Score(NamedTuple):
    """A score that is higher for better, from a column of the items."""

    column: str
    sign: int
    unit: str


METRICS = {"nll": _Score("nll", -1, "nats/token"), "exact": _Score("exact", 1, "fraction")}
BY = ("task", "kind", "month")


@dataclass(frozen=True)
class StageAnalysis:
    """The score matrix of a sequence of stages.

    Args:
        by: What the columns are: ``task``, ``kind`` or ``month``.
        metric: ``nll``: scores are mean log-probabilities in nats per token; ``exact``: shares of
            probes answered right. Higher is better for both.
        stages: Names of the stages, in order.
        tasks: Names of the columns, in order: months by date, others as they come.
        base: Scores before any stage, one a task; empty where there is no baseline.
        scores: R: one row a stage, one figure a task.
        measures: ``average_accuracy`` and, with one task a stage, ``backward_transfer``,
            ``forward_transfer``, ``forgetting`` and ``average_incremental_accuracy``.
        n_left_out: Probes that belong to no column, or lack the metric in some stage.
    """

    by: str
    metric: str
    stages: tuple[str, ...]
    tasks: tuple[str, ...]
    base: tuple[MetricValue, ...]
    scores: tuple[tuple[MetricValue, ...], ...]
    measures: dict[str, MetricValue] = field(default_factory=dict)
    n_left_out: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: what ``--json`` prints."""
        return {"format": FORMAT, "kind": "stage_analysis", **to_jsonable(self)}


def analyse_stages(
    result: EvalResult,
    *,
    by: str = "task",
    metric: str = "nll",
    stages: Sequence[str] = (),
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> StageAnalysis:
    """Build the score matrix of an evaluation and its measures.

    Column k is what stage k was trained on; a probe without a task counts under its group.
    Intervals are from a bootstrap of the entities of each column, the same resamples for all
    stages, so differences between stages are paired.

    Args:
        result: An evaluation with the probes' columns.
        by: ``task``, ``kind`` or ``month`` (of the probe's date).
        metric: ``nll`` or ``exact``.
        stages: Arms that are the stages, in order; empty: all arms in their order.
        n_bootstrap: Resamples.
        seed: Seed of the resamples.

    Raises:
        GradlocError: Unknown choice or arm, no columns of probes, or nothing to put in them.
    """
    for name, value, known in (("by", by, BY), ("metric", metric, METRICS)):
        if value not in known:
            raise GradlocError(f"--{name} {value!r} is unknown. {did_you_mean(value, known)}")
    stages = tuple(stages) or tuple(result.arms)
    for stage in stages:
        if stage not in result.arms:
            raise GradlocError(
                f"the results have no arm {stage!r}. {did_you_mean(stage, result.arms)}"
            )
    probes = result.columns("probes")
    if not probes:
        raise GradlocError(
            "the results do not say which task and date their probes have; make them again with "
            "'gradloc evaluate ... --out results.json'."
        )
    has_base = "baseline" in result.items
    table = _table(result, metric, [*(["baseline"] * has_base), *stages])
    labels = _labels(probes, by)
    usable = np.array([bool(label) for label in labels]) & np.isfinite(table).all(axis=0)
    found = dict.fromkeys(label for label, keep in zip(labels, usable, strict=True) if keep)
    tasks = sorted(found) if by == "month" else list(found)
    if not tasks:
        raise GradlocError(
            f"no probe has both a {by} and the metric {metric!r} in every stage, so there is no "
            f"column. Choose another --by ({', '.join(BY)}) or --metric ({', '.join(METRICS)})."
        )
    names = list(result.items["probe_ids"])
    entities = probes.get("entity") or names
    columns = []
    for task in tasks:
        members = [i for i, label in enumerate(labels) if usable[i] and label == task]
        owners = [entities[i] or names[i] for i in members]
        resamples = {"n_bootstrap": n_bootstrap, "seed": derive_seed(seed, task)}
        columns.append(estimate(table[:, members], owners, **resamples))
    unit = METRICS[metric].unit
    rows = tuple(
        tuple(figure(column[row], unit, True) for column in columns) for row in range(len(table))
    )
    return StageAnalysis(
        by=by,
        metric=metric,
        stages=stages,
        tasks=tuple(tasks),
        base=rows[0] if has_base else (),
        scores=rows[has_base:],
        measures=stage_figures(columns, unit, has_base=has_base),
        n_left_out=int((~usable).sum()),
    )


def _table(result: EvalResult, metric: str, systems: Sequence[str]) -> np.ndarray:
    """Scores that are higher for better, (n_systems, n_probes); NaN where there is none."""
    score = METRICS[metric]
    rows = []
    for name in systems:
        column = result.columns(name).get(score.column)
        if column is None:
            raise GradlocError(f"the results hold no {score.column!r} of the probes for {name!r}.")
        rows.append([np.nan if value is None else score.sign * float(value) for value in column])
    return np.array(rows)


def _labels(probes: dict[str, list[str]], by: str) -> list[str]:
    if by == "month":
        return [date[:7] for date in probes["date"]]
    if by == "kind":
        return list(probes["kind"])
    return [task or group for task, group in zip(probes["task"], probes["group"], strict=True)]
