"""What a sequence of stages did to every task: the score matrix R, transfer and forgetting.

Comes in: a results.json of ``gradloc evaluate`` whose arms are the stages in their order; its
baseline is the model before any stage. Goes out: two tables, or JSON.

    python evaluation/studies/stage_scores.py results.json --by month
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import rich

from gradloc.errors import GradlocError
from gradloc.evaluation.bootstrap import N_BOOTSTRAP, derive_seed, estimate, figure
from gradloc.evaluation.results import EvalResult, MetricValue
from gradloc.evaluation.stage_figures import stage_figures
from gradloc.report.formatting import unit_name
from gradloc.report.table import Column, Table, figure_cell, make_table, rich_table
from gradloc.utils.io import to_jsonable
from gradloc.utils.names import did_you_mean


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
        return {"format": 1, "kind": "stage_analysis", **to_jsonable(self)}


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


def stage_tables(analysis: StageAnalysis) -> tuple[Table, Table]:
    """The score matrix, and the measures that are read off it."""
    heads = [
        Column(task, f"n={found.n}")
        for task, found in zip(analysis.tasks, analysis.scores[0], strict=True)
    ]
    named = [("baseline", analysis.base)] if analysis.base else []
    named += zip(analysis.stages, analysis.scores, strict=True)
    matrix = make_table(["stage", *heads], [[name, *map(figure_cell, row)] for name, row in named])
    measures = make_table(
        ["measure", "value", "better"],
        [
            [name.replace("_", " "), figure_cell(found), "↑" if found.higher_is_better else "↓"]
            for name, found in analysis.measures.items()
        ],
    )
    return matrix, measures


def main(words: list[str] | None = None) -> None:
    """Read the arguments and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", help="results.json")
    parser.add_argument("--by", choices=BY, default="task", help="what a stage was trained on")
    parser.add_argument("--metric", choices=METRICS, default="nll")
    parser.add_argument("--stage", dest="stages", action="append", default=[], metavar="ARM",
                        help="a stage, in order; default: all arms")  # fmt: skip
    parser.add_argument("--json", action="store_true")
    given = vars(parser.parse_args(words))
    as_json, path = given.pop("json"), given.pop("results")
    try:
        found = analyse_stages(EvalResult.load(path), **given)
    except GradlocError as error:
        sys.exit(str(error))
    if as_json:
        print(json.dumps(found.to_dict(), indent=1))
        return
    matrix, measures = stage_tables(found)
    unit = unit_name(found.scores[0][0].unit, difference=False)
    rich.print(rich_table(matrix, f"score after each stage, {unit} ↑", "95 % intervals below"))
    rich.print(rich_table(measures, "over all stages"))


if __name__ == "__main__":
    main()
