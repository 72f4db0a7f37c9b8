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


def stage_measures(scores: ArrayLike, base: ArrayLike | None = None) -> dict[str, float | None]:
    """All measures of a sequence in which every stage teaches one task.

    Args:
        scores: R, (n_tasks, n_tasks): row i holds the scores after stage i, in which task i is
            learned. Scores of tasks not yet seen may be NaN where no measure needs them.
        base: Scores of the model before any stage, (n_tasks,). (GEM starts from random weights;
            with a pretrained model this is the pretrained one.)

    Returns:
        In the unit of the scores; higher is better but for ``forgetting``. The last three are
        ``None`` where there is one task only.

        - ``average_accuracy``: mean over all tasks after the last stage.
        - ``average_incremental_accuracy``: mean over stages of the mean over tasks seen so far.
        - ``backward_transfer``: mean over all but the last task of (score at the end - score when
          just learned); negative: tasks were forgotten.
        - ``forward_transfer``: mean over all but the first task of (score just before it is
          learned - base score); ``None`` without ``base``.
        - ``forgetting``: mean over all but the last task of (best earlier score - score at the
          end); negative where a task kept improving.

    Raises:
        GradlocError: R is not square, ``base`` has not one score a task, or a score that is
            needed is missing.

    Example:
        >>> found = stage_measures([[0.9, 0.2], [0.7, 0.8]], base=[0.1, 0.15])
        >>> {name: round(value, 4) for name, value in found.items()} == {
        ...     "average_accuracy": 0.75,
        ...     "average_incremental_accuracy": 0.825,
        ...     "backward_transfer": -0.2,
        ...     "forward_transfer": 0.05,
        ...     "forgetting": 0.2,
        ... }
        True
    """
    table = _square(scores)
    rows = [_mean(row[: stage + 1], f"stage {stage}") for stage, row in enumerate(table)]
    found: dict[str, float | None] = {
        "average_accuracy": average_accuracy(table),
        "average_incremental_accuracy": float(np.mean(rows)),
    }
    learned, end, several = np.diag(table), "the last row and the diagonal", len(table) > 1
    found["backward_transfer"] = _mean((table[-1] - learned)[:-1], end) if several else None
    found["forward_transfer"] = None
    if base is not None:
        base = np.asarray(base, float)
        if base.shape != (len(table),):
            raise GradlocError(
                f"base scores of shape {base.shape} for {len(table)} tasks; give one for each task."
            )
        if several:
            ahead = np.diag(table, k=1) - base[1:]
            found["forward_transfer"] = _mean(ahead, "the row before each task, and base")
    # A task's own stage always has a score, or the mean above would have said that it is missing.
    best = np.fmax.reduce(table[:-1, :-1], axis=0) if several else None
    found["forgetting"] = None if best is None else _mean(best - table[-1, :-1], end)
    return found


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
