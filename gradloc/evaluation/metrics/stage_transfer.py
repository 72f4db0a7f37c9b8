"""What a sequence of training stages did to every task.

References: Lopez-Paz & Ranzato 2017 (GEM), arXiv:1706.08840, section 2; Chaudhry et al. 2018
(RWalk), arXiv:1801.10112, section 3; Rebuffi et al. 2017 (iCaRL), arXiv:1611.07725.
"""

import numpy as np
from numpy.typing import ArrayLike

from gradloc.errors import GradlocError


def average_accuracy(scores: ArrayLike) -> float:
    """Mean score over all tasks after the last stage.

    Args:
        scores: R, (n_stages, n_tasks): row i holds the scores after stage i.

    Returns:
        In the unit of the scores; higher is better (if higher scores are).

    Raises:
        GradlocError: R is no table, or a score that is needed is missing.

    Example:
        >>> average_accuracy([[0.9, 0.2], [0.7, 0.8]])
        0.75
    """
    return _mean(_table(scores)[-1], "the last stage's row")


def average_incremental_accuracy(scores: ArrayLike) -> float:
    """Mean over stages of the mean score on the tasks seen up to then.

    Args:
        scores: R, (n_tasks, n_tasks): task i is learned in stage i. Tasks not yet seen may be NaN.

    Returns:
        In the unit of the scores; higher is better.

    Raises:
        GradlocError: R is not square, or a score that is needed is missing.

    Example:
        >>> average_incremental_accuracy([[0.9, 0.2], [0.7, 0.8]])
        0.825
    """
    table = _square(scores)
    rows = [_mean(row[: stage + 1], f"stage {stage}") for stage, row in enumerate(table)]
    return float(np.mean(rows))


def backward_transfer(scores: ArrayLike) -> float | None:
    """Mean over all but the last task of (score at the end - score when just learned).

    Args:
        scores: R, (n_tasks, n_tasks): task i is learned in stage i.

    Returns:
        In the unit of the scores; higher is better; negative: tasks were forgotten. ``None``
        where there is one task only.

    Raises:
        GradlocError: R is not square, or a score that is needed is missing.

    Example:
        >>> round(backward_transfer([[0.9, 0.2], [0.7, 0.8]]), 4)
        -0.2
    """
    table = _square(scores)
    if len(table) < 2:
        return None
    return _mean((table[-1] - np.diag(table))[:-1], "the last row and the diagonal")


def forward_transfer(scores: ArrayLike, base: ArrayLike) -> float | None:
    """Mean over all but the first task of (score just before it is learned - base score).

    Args:
        scores: R, (n_tasks, n_tasks): task i is learned in stage i.
        base: Scores of the model before any stage, (n_tasks,). (GEM starts from random weights;
            with a pretrained model this is the pretrained one.)

    Returns:
        In the unit of the scores; higher is better. ``None`` where there is one task only.

    Raises:
        GradlocError: R is not square, ``base`` has not one score a task, or a score that is
            needed is missing.

    Example:
        >>> round(forward_transfer([[0.9, 0.2], [0.7, 0.8]], base=[0.1, 0.15]), 4)
        0.05
    """
    table = _square(scores)
    base = np.asarray(base, float)
    if base.shape != (len(table),):
        raise GradlocError(
            f"base scores of shape {base.shape} for {len(table)} tasks; give one for each task."
        )
    if len(table) < 2:
        return None
    return _mean(np.diag(table, k=1) - base[1:], "the row before each task, and base")


def forgetting(scores: ArrayLike) -> float | None:
    """Mean over all but the last task of (best earlier score - score at the end).

    Args:
        scores: R, (n_tasks, n_tasks): task i is learned in stage i. The best is taken over the
            stages before the last one that have a score (are not NaN).

    Returns:
        In the unit of the scores; lower is better; negative where a task kept improving.
        ``None`` where there is one task only.

    Raises:
        GradlocError: R is not square, or a score that is needed is missing.

    Example:
        >>> round(forgetting([[0.9, 0.2], [0.7, 0.8]]), 4)
        0.2
    """
    table = _square(scores)
    if len(table) < 2:
        return None
    earlier = table[:-1, :-1]
    # A task's own stage always has a score, or the mean below would say that it is missing.
    best = np.where(np.isnan(np.diag(earlier)), np.nan, np.fmax.reduce(earlier, axis=0))
    return _mean(best - table[-1, :-1], "the last row and the diagonal")


def stage_measures(scores: ArrayLike, base: ArrayLike | None = None) -> dict[str, float | None]:
    """All measures of this module by name.

    Args:
        scores: R, (n_tasks, n_tasks): task i is learned in stage i.
        base: Scores of the model before any stage, (n_tasks,).

    Returns:
        ``average_accuracy``, ``average_incremental_accuracy``, ``backward_transfer``,
        ``forward_transfer`` (``None`` without ``base``) and ``forgetting``.

    Raises:
        GradlocError: R is not square, or a score that is needed is missing.
    """
    table = _square(scores)
    return {
        "average_accuracy": average_accuracy(table),
        "average_incremental_accuracy": average_incremental_accuracy(table),
        "backward_transfer": backward_transfer(table),
        "forward_transfer": None if base is None else forward_transfer(table, base),
        "forgetting": forgetting(table),
    }


def _table(scores: ArrayLike) -> np.ndarray:
    try:
        table = np.asarray(scores, float)
    except ValueError:
        raise GradlocError("rows of the score matrix differ in length; give a score or NaN for "
                           "every stage and task.") from None  # fmt: skip
    if table.ndim != 2 or not table.size:
        raise GradlocError(
            f"a score matrix of shape {table.shape}; give one row a stage and one column a task."
        )
    return table


def _square(scores: ArrayLike) -> np.ndarray:
    table = _table(scores)
    if table.shape[0] != table.shape[1]:
        raise GradlocError(
            f"{table.shape[0]} stages and {table.shape[1]} tasks; transfer and forgetting need "
            "one task for each stage, in the order of training. A model before any stage is given "
            "as base."
        )
    return table


def _mean(values: np.ndarray, where: str) -> float:
    if np.isnan(values).any():
        raise GradlocError(f"a score is missing in {where}; evaluate every task there.")
    return float(np.mean(values))
