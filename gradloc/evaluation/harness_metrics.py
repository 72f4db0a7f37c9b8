"""Metrics of lm-evaluation-harness's tasks, beside those of a suite."""

from collections.abc import Mapping, Sequence

import numpy as np

from gradloc.errors import GradlocError
from gradloc.evaluation.aggregate import Metric
from gradloc.evaluation.bootstrap import BootstrapEstimate, derive_seed, estimate
from gradloc.evaluation.lm_eval.task_scores import TaskMetric, TaskScores
from gradloc.evaluation.score_record import CheckpointScores
from gradloc.utils.records import parse

_FROM_ERRORS = "interval from the harness's standard errors, not paired"


def harness_metrics(systems: Mapping[str, CheckpointScores], settings: dict) -> dict[str, Metric]:
    """Every metric that states its direction, as what must not be lost.

    Where the harness gives a value for each document, intervals are those of a paired bootstrap
    over documents, else they follow from its standard errors.

    Raises:
        GradlocError: The systems were asked other documents or other versions of a task.
    """
    tasks = {
        name: {
            task: parse(TaskScores, data, f"{name}: scores of task {task}")
            for task, data in scores.tasks.items()
        }
        for name, scores in systems.items()
    }
    found: dict[str, Metric] = {}
    for task, first in next(iter(tasks.values())).items():
        own: dict[str, TaskScores] = {}
        for name, others in tasks.items():
            scores = others.get(task)
            if scores is None or (scores.version, scores.doc_ids) != (first.version, first.doc_ids):
                raise GradlocError(
                    f"{name}: task {task} was run on other documents, or in another version. Run "
                    "it anew for all checkpoints."
                )
            own[name] = scores
        for metric, shape in first.metrics.items():
            columns = [scores.metrics[metric] for scores in own.values()]
            values = [column.value for column in columns if column.value is not None]
            if shape.higher_is_better is None or len(values) < len(columns):
                continue
            key = f"lm_eval_{task}_{metric}"
            estimates, note = _estimates(columns, values, first, key, settings)
            pairs = dict(zip(systems, estimates, strict=True))
            found[key] = Metric("forgetting", shape.unit, shape.higher_is_better, pairs, note)
    return found


def _estimates(
    columns: Sequence[TaskMetric],
    values: Sequence[float],
    task: TaskScores,
    key: str,
    settings: dict,
) -> tuple[tuple[BootstrapEstimate, ...], str]:
    seed, n_bootstrap = derive_seed(settings["seed"], key), settings["n_bootstrap"]
    rows = [column.values for column in columns if column.values is not None]
    if len(rows) == len(columns):
        table = np.array(rows, float)  # None becomes NaN
        answered = ~np.isnan(table).any(axis=0)
        documents = np.array(task.doc_ids)[answered].tolist()
        found = estimate(table[:, answered], documents, n_bootstrap=n_bootstrap, seed=seed)
        if columns[0].aggregation == "exp_mean":
            found = tuple(item.exp() for item in found)
        return found, ""
    # Draws of its own for each system: what the systems share is not known here.
    draws = np.random.default_rng(seed).normal(size=(len(columns), n_bootstrap))
    return tuple(
        BootstrapEstimate(value, value + (column.stderr or 0) * row, task.n, task.n)
        for value, column, row in zip(values, columns, draws, strict=True)
    ), _FROM_ERRORS
