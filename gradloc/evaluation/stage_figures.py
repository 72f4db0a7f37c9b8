"""Transfer and forgetting over a sequence of training stages, with intervals."""

from collections.abc import Sequence

import numpy as np

from gradloc.evaluation.bootstrap import BootstrapEstimate, figure
from gradloc.evaluation.metrics.stage_transfer import average_accuracy, stage_measures
from gradloc.evaluation.results import MetricValue

# Measure -> whether higher is better.
STAGE_MEASURES = {
    "average_accuracy": True,
    "average_incremental_accuracy": True,
    "backward_transfer": True,
    "forward_transfer": True,
    "forgetting": False,
}


def stage_figures(
    tasks: Sequence[Sequence[BootstrapEstimate]], unit: str, *, has_base: bool
) -> dict[str, MetricValue]:
    """The measures of ``metrics.stage_transfer`` that can be had, as figures.

    Args:
        tasks: For each task its score after every stage, in order; that before any stage goes
            first where there is one. Higher is better. All from paired resamples.
        unit: Unit of the scores.
        has_base: Whether the first score of each task is that before any stage.

    Returns:
        ``average_accuracy``; with one task a stage the others too, ``forward_transfer`` only with
        a base. What needs two tasks is left out where there is one.
    """

    def measures(table: np.ndarray) -> dict[str, float | None]:
        base, scores = (table[0], table[1:]) if has_base else (None, table)
        if len(scores) == len(tasks):
            return stage_measures(scores, base)
        return {"average_accuracy": average_accuracy(scores)}

    values = np.array([[found.value for found in task] for task in tasks]).T
    draws = np.array([[found.replicates for found in task] for task in tasks])
    # (n_tasks, n_systems, n_bootstrap) -> one table a resample
    drawn = [measures(table) for table in draws.transpose(2, 1, 0)]
    n = sum(task[0].n for task in tasks)
    n_clusters = min(task[0].n_clusters for task in tasks)
    figures = {}
    for name, value in measures(values).items():
        if value is not None:
            replicates = np.array([draw[name] for draw in drawn])
            measured = BootstrapEstimate(value, replicates, n, n_clusters)
            figures[name] = figure(measured, unit, STAGE_MEASURES[name])
    return figures
