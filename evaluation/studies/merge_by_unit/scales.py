"""The least disturbing scales that still buy an uptake: a small convex program."""

import numpy as np
from scipy.optimize import minimize


def least_cost_scales(gain: np.ndarray, cost: np.ndarray, target: float) -> np.ndarray:
    """Scales a that minimise ``a' C a`` under ``gain' a >= target`` and ``0 <= a <= 1``.

    Convex, so what is found is the minimum. A unit whose gain is negative is kept only where it
    undoes the disturbance of another. If the target is out of reach, the most that can be had:
    1 where the gain is positive, 0 elsewhere.

    Args:
        gain: What each change buys at scale 1, (n,), in any unit.
        cost: Symmetric positive semi-definite, (n, n).
        target: What is to be bought, in the unit of ``gain``.

    Returns:
        The scales, (n,), from 0 to 1.

    Example:
        >>> least_cost_scales(np.array([1.0, 1.0]), np.diag([1.0, 3.0]), 1.0).round(3)
        array([0.75, 0.25])
    """
    most = (gain > 0).astype(float)
    if target <= 0:
        return np.zeros_like(most)
    if gain @ most <= target:
        return most
    # The scale of the numbers would otherwise decide when the search stops.
    cost = cost / (np.trace(cost) / len(cost) or 1.0)
    gain, target = gain / target, 1.0
    found = minimize(
        lambda a: (a @ cost @ a, 2 * cost @ a),
        most,
        jac=True,
        bounds=[(0.0, 1.0)] * len(gain),
        constraints={"type": "ineq", "fun": lambda a: gain @ a - target, "jac": lambda a: gain},
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-12},
    )
    return np.clip(found.x, 0.0, 1.0)


def shrunk_second_moment(rows: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean of ``row row'``, its off-diagonal shrunk by as much as they are noise.

    With fewer rows than columns the plain mean has directions of no cost at all, and a program
    that minimises cost would find them. After scaling each column to second moment 1, the
    off-diagonal is multiplied by ``1 - w`` with ``w = sum Var(C_uv) / sum C_uv^2`` over u != v,
    cut to 0 ... 1: the weight of least expected squared error.

    Args:
        rows: (n_rows, n_columns), of mean zero by nature.

    Returns:
        The matrix, (n_columns, n_columns), and the weight w; w is 1 for a single row.

    References:
        Schafer and Strimmer 2005, doi:10.2202/1544-6115.1175, target D (correlations to zero,
        variances as they are).
    """
    n, width = rows.shape
    plain = rows.T @ rows / n
    size = np.sqrt(np.diag(plain))
    unit = np.divide(rows, size, out=np.zeros_like(rows, dtype=float), where=size > 0)
    mean = unit.T @ unit / n
    others = ~np.eye(width, dtype=bool)
    signal = float(np.sum(mean[others] ** 2))
    if n == 1 or not signal:
        weight = 1.0
    else:
        # Variance of a mean of n products.
        spread = (unit**2).T @ unit**2 / n - mean**2
        weight = float(np.clip(np.sum(spread[others]) / (n - 1) / signal, 0.0, 1.0))
    return np.where(others, (1 - weight) * plain, plain), weight
