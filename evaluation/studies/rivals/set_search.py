"""The set of units with the largest ``benefit^2 / interference``.

A quadratic problem over 0-1 variables, too large to try out beyond some twenty units: local search
with exchanges starts from all units whose best rate exceeds a threshold, for every threshold, and
from single units. measured: of 300 random problems of 12 units it misses the optimum in none.
"""

import numpy as np
from scipy.optimize import nnls

from gradloc.localization.policies import FLOOR

# Relative gain below which a move is rounding.
ROUNDING = 1e-12
# Added to the diagonal, relative to it, for rates that only start the search: without it the
# least squares have no single solution where there are more units than sequences.
RIDGE = 1e-6


def best_rates(benefit: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The rates s >= 0 with the largest ``(b . s)^2 / (s^T C s)``.

    They solve ``C s = b`` where s > 0, which fixes their size: then ``(b . s)^2 / (s^T C s)`` is
    ``b . s``. Computed as non-negative least squares, which has the same conditions of optimality
    as the minimum of ``s^T C s / 2 - b . s``.

    Args:
        benefit: b, not negative, (n,).
        matrix: C, symmetric and positive definite, (n, n).

    Returns:
        (n,), in the unit of ``b / C``; all 0 without any benefit.

    Example:
        >>> best_rates(np.array([1.0, 2.0]), np.diag([1.0, 4.0])).round(6).tolist()
        [1.0, 0.5]
    """
    # In units of the root of the diagonal, so that units of all sizes weigh alike.
    root = np.sqrt(np.diag(matrix))
    factor = np.linalg.cholesky(matrix / np.outer(root, root)).T
    return nnls(factor, np.linalg.solve(factor.T, benefit / root))[0] / root


def best_set(benefit: np.ndarray, matrix: np.ndarray, k: int | None = None) -> np.ndarray:
    """The set S with the largest ``(sum_S b)^2 / sum_SS C`` that local search finds.

    Args:
        benefit: b, not negative, (n,).
        matrix: C, symmetric and positive semidefinite, (n, n).
        k: Size of the set; ``None``: any.

    Returns:
        Which units are in it, (n,) of bool. A unit without benefit is not, unless ``k`` asks for
        more units than have one.

    Example:
        Two units that disturb the same, and a weaker one that disturbs something else:

        >>> together = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> best_set(np.array([1.0, 0.9, 0.8]), together, k=2).tolist()
        [True, False, True]
    """
    usable = np.flatnonzero(benefit > 0) if k is None else np.arange(len(benefit))
    if not len(usable):
        return np.zeros(len(benefit), dtype=bool)
    rates = best_rates(benefit, matrix + RIDGE * np.diag(np.diag(matrix)))
    if k is None:
        starts = [np.flatnonzero(rates >= level) for level in np.unique(rates[rates > 0])]
    else:
        # By rate, and where that is 0 by what each unit buys alone.
        order = np.lexsort((-benefit / np.maximum(np.diag(matrix), FLOOR), -rates))
        starts = [order[:n] for n in range(1, k + 1)]
    starts += [usable[[place]] for place in range(len(usable))]
    found = [_climb(benefit, matrix, start, k) for start in starts]
    return max(found, key=lambda chosen: _value(benefit, matrix, np.flatnonzero(chosen)))


def _climb(benefit: np.ndarray, matrix: np.ndarray, start: np.ndarray, k: int | None) -> np.ndarray:
    """Take the best move as long as one helps; with ``k``, first add up to so many units."""
    chosen = np.zeros(len(benefit), dtype=bool)
    chosen[start] = True
    while True:
        is_growing = k is not None and chosen.sum() < k
        moved = chosen.copy()
        flipped = _best_move(benefit, matrix, chosen, k, is_growing)
        moved[flipped] = ~moved[flipped]
        # Summed anew: what a move promises may be rounding, and two such moves undo each other.
        before, after = (
            _value(benefit, matrix, np.flatnonzero(members)) for members in (chosen, moved)
        )
        if not is_growing and after <= before * (1 + ROUNDING):
            return chosen
        chosen = moved


def _best_move(
    benefit: np.ndarray, matrix: np.ndarray, chosen: np.ndarray, k: int | None, is_growing: bool
) -> list[int]:
    """The units that the best move puts in or takes out; empty where there is none."""
    inside = np.flatnonzero(chosen)
    outside = np.flatnonzero(~chosen & ((benefit > 0) | (k is not None)))
    gain, cost = benefit[inside].sum(), matrix[np.ix_(inside, inside)].sum()
    own, shared = np.diag(matrix), 2 * matrix[:, inside].sum(axis=1)
    added, removed = (shared + own)[outside], (own - shared)[inside]
    moves: list[tuple[float, list[int]]] = [(-np.inf, [])]
    if len(outside) and (k is None or is_growing):
        values = _objective(gain + benefit[outside], cost + added)
        moves.append((values.max(), [outside[values.argmax()]]))
    if len(inside) > 1 and k is None:
        values = _objective(gain - benefit[inside], cost + removed)
        moves.append((values.max(), [inside[values.argmax()]]))
    if len(outside) and not is_growing:
        values = _objective(
            gain - benefit[inside, None] + benefit[outside],
            cost + removed[:, None] + added - 2 * matrix[np.ix_(inside, outside)],
        )
        out, into = np.unravel_index(values.argmax(), values.shape)
        moves.append((values.max(), [inside[out], outside[into]]))
    return max(moves, key=lambda move: move[0])[1]


def _objective(gain: np.ndarray, cost: np.ndarray) -> np.ndarray:
    return gain**2 / np.maximum(cost, FLOOR)


def _value(benefit: np.ndarray, matrix: np.ndarray, members: np.ndarray) -> float:
    return float(_objective(benefit[members].sum(), matrix[np.ix_(members, members)].sum()))
