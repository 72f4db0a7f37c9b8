"""Metrics of lm-evaluation-harness's tasks, beside those of a suite."""

from collections.abc import Mapping

import numpy as np

from gradloc.errors import GradlocError
from gradloc.evaluation.aggregate import Metric
from gradloc.evaluation.bootstrap import BootstrapEstimate, derive_seed, estimate
from gradloc.evaluation.lm_eval.task_scores import TaskMetric, TaskScores
from gradloc.evaluation.score_record import CheckpointScores

_FROM_ERRORS = "interval from the harness's standard errors, not paired"


def harness_metrics(systems: Mapping[str, CheckpointScores], settings: dict) -> dict[str, Metric]:
    """Every metric that states its direction, as what must not be lost.

    Where the harness gives a value for each document, intervals are those of a paired bootstrap
    over documents, else they follow from its standard errors.

    Raises:
        GradlocError: The systems were asked other documents or other versions of a task.
    """
    tasks = {
        name: {task: TaskScores.from_dict(data) for task, data in scores.tasks.items()}
        for name, scores in systems.items()
    }
    found: dict[str, Metric] = {}
    for task, first in next(iter(tasks.values())).items():
        own = {name: scores.get(task) for name, scores in tasks.items()}
        for name, scores in own.items():
            if scores is None or (scores.version, scores.doc_ids) != (first.version, first.doc_ids):
                raise GradlocError(
                    f"{name}: task {task} was run on other documents, or in another version. Run "
                    "it anew for all checkpoints."
                )
        for metric, shape in first.metrics.items():
            columns = {name: scores.metrics[metric] for name, scores in own.items()}
            missing = any(column.value is None for column in columns.values())
            if shape.higher_is_better is None or missing:
                continue
            key = f"lm_eval_{task}_{metric}"
            estimates, note = _estimates(columns, first, key, settings)
            pairs = dict(zip(systems, estimates, strict=True))
            found[key] = Metric("forgetting", shape.unit, shape.higher_is_better, pairs, note)
    return found


def _estimates(
    columns: Mapping[str, TaskMetric], task: TaskScores, key: str, settings: dict
) -> tuple[tuple[BootstrapEstimate, ...], str]:
    seed, n_bootstrap = derive_seed(settings["seed"], key), settings["n_bootstrap"]
    if all(column.values is not None for column in columns.values()):
        rows = [
            [np.nan if value is None else value for value in column.values]
            for column in columns.values()
        ]
        values = np.array(rows, float)
        answered = ~np.isnan(values).any(axis=0)
        documents = np.array(task.doc_ids)[answered].tolist()
        found = estimate(values[:, answered], documents, n_bootstrap=n_bootstrap, seed=seed)
        if next(iter(columns.values())).aggregation == "exp_mean":
            found = tuple(
                item._replace(value=float(np.exp(item.value)), replicates=np.exp(item.replicates))
                for item in found
            )
        return found, ""
    # Draws of its own for each system: what the systems share is not known here.
    draws = np.random.default_rng(seed).normal(size=(len(columns), n_bootstrap))
    return tuple(
        BootstrapEstimate(column.value, column.value + (column.stderr or 0) * row, task.n, task.n)
        for column, row in zip(columns.values(), draws, strict=True)
    ), _FROM_ERRORS
