"""Policies that count what units disturb together.

Comes in: a ``GradientProfile``. Goes out: scales, (n_units,). It needs no measurement beyond that
of ``interference_ratio``.

Let unit u step along its direction at the rate s_u. To first order the probes' loss falls by
``B = sum_u b_u s_u``, and the reference behaviour is disturbed by ``C = s^T C s`` with
``C_uv = mean_s a_su a_sv``, where a_su is the inner product of the gradient of reference
sequence s with the direction in u. The step that reaches a given uptake is as long as 1 / B and its
cost grows with the square, so the quantity to be large is ``B^2 / C``. ``interference_ratio`` takes
C to be diagonal: as if what two units disturb never added up.

Entries off the diagonal are means over few sequences. Their noise is damped by **shrinkage**
towards the diagonal, ``C_uv (1 - shrinkage)`` for u != v: 0 is C as measured, 1 is diagonal. By
default it is estimated (see ``estimated_shrinkage``).

References:
    Schäfer, Strimmer 2005, doi:10.2202/1544-6115.1175, section 2.3 and table 1, target D.
"""

import numpy as np

from gradloc.localization.policies.ranking import FLOOR, checked_k, checked_number, in_stack
from gradloc.localization.policies.ratios import ratio_score
from gradloc.localization.policies.search import best_rates, best_set
from gradloc.localization.profile import GradientProfile

# Units whose mean score is the full learning rate in interference_scaled.
# assumption: one outlier should not slow all others down.
N_TOP = 5
# Of rates. Without any shrinkage they have no single optimum where there are more units than
# sequences. assumption: this keeps six digits of float64 in the solution.
LEAST_SHRINKAGE = 0.01


def interference_set(
    profile: GradientProfile, *, k: int | None = None, shrinkage: float | None = None
) -> np.ndarray:
    """Train the set of units that buys most for what it disturbs together.

    The set S maximises ``(sum_S b)^2 / sum_SS C`` (see the module), among all sets or those of
    ``k`` units. Found by local search (see ``gradloc.localization.policies.search``), which
    proves nothing. The optimum is flat: sets of other sizes may be within a per cent of it.

    Args:
        profile: Needs reference text.
        k: Number of units; ``None``: as many as pay.
        shrinkage: 0-1; ``None``: estimated.

    Raises:
        SelectionError: An option out of range.
    """
    stack, benefit, matrix = _problem(profile, shrinkage)
    k = None if k is None else checked_k(profile, k)
    scale = np.zeros(len(profile.units))
    scale[stack] = best_set(benefit, matrix, k)
    return scale


def interference_rates(
    profile: GradientProfile, *, shrinkage: float | None = None, cap: float = 3.0
) -> np.ndarray:
    """Train at the learning rates that buy most for what they disturb together.

    The rates s >= 0 maximise ``(b . s)^2 / (s^T C s)`` (see the module): where s > 0, C s is in
    proportion to b. Many come out 0. They are divided by their mean over the trained units, so
    that the learning rate keeps its usual size, and cut at ``cap``: a first-order picture does
    not carry far beyond it.

    Args:
        profile: Needs reference text.
        shrinkage: 0.01-1; ``None``: estimated.
        cap: Largest scale, from 1 up; at 1 no unit gets more than the learning rate.

    Raises:
        SelectionError: An option out of range.
    """
    checked_number("cap", cap, 1, np.inf, above=False)
    rates = _rates(profile, shrinkage)
    if not rates.any():
        return rates
    return np.minimum(rates / rates[rates > 0].mean(), cap)


def interference_scaled(profile: GradientProfile) -> np.ndarray:
    """Train every unit at a learning rate in proportion to its interference ratio, 1 at most.

    ``min(score_u / mean of the five highest scores, 1)``. No unit is frozen whose probes have a
    gradient, so nothing is saved; it is the soft form of ``interference_ratio``.
    """
    stack = in_stack(profile)
    score = np.where(stack, ratio_score(profile), 0.0)
    top = np.sort(score[stack])[-N_TOP:].mean()
    return np.minimum(score / top, 1.0) if top > 0 else score


def contribution_score(profile: GradientProfile, *, shrinkage: float | None = None) -> np.ndarray:
    """What each unit adds to the largest ``B^2 / C`` that rates can reach, as a share, 0-1.

    At the optimum ``B^2 / C = sum_u b_u s_u`` for the s that solves ``C s = b`` where s > 0.
    """
    share = np.zeros(len(profile.units))
    stack = in_stack(profile)
    share[stack] = profile.benefit[stack] * _rates(profile, shrinkage)[stack]
    return share / share.sum() if share.any() else share


def estimated_shrinkage(aligned: np.ndarray) -> float:
    """The shrinkage that makes the expected squared error of the matrix least, 0-1.

    ``sum_(u != v) Var(r_uv) / sum_(u != v) r_uv^2`` with r the matrix scaled to a diagonal of
    ones. Second moments are taken about zero, not about the mean, as the matrix is.

    Args:
        aligned: Inner products of reference gradients with the directions, (n_sequences, n_units).

    Returns:
        1 for one sequence or where nothing is off the diagonal. measured: 0.31 for 24 passages
        and the 60 units of SmolLM2-135M, where the root mean square of r_uv is 0.41.
    """
    n = len(aligned)
    if n < 2:
        return 1.0
    size = np.sqrt((aligned**2).mean(axis=0))
    scaled = np.divide(aligned, size, out=np.zeros_like(aligned), where=size > 0)
    r = scaled.T @ scaled / n
    variance = ((scaled**2).T @ scaled**2 / n - r**2) / (n - 1)
    off = ~np.eye(len(r), dtype=bool)
    signal = (r[off] ** 2).sum()
    return float(np.clip(variance[off].sum() / signal, 0.0, 1.0)) if signal > 0 else 1.0


def _rates(profile: GradientProfile, shrinkage: float | None) -> np.ndarray:
    """Rates s >= 0 with ``C s = b`` where s > 0, in units of their own, (n_units,)."""
    if shrinkage is not None:
        checked_number("shrinkage", shrinkage, LEAST_SHRINKAGE, 1, above=False)
    stack, benefit, matrix = _problem(profile, shrinkage, least=LEAST_SHRINKAGE)
    rates = np.zeros(len(profile.units))
    rates[stack] = best_rates(benefit, matrix)
    return rates


def _problem(
    profile: GradientProfile, shrinkage: float | None, least: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of the units to choose, their benefit and their shrunk interference matrix.

    Benefit and matrix are divided by their means, so that sums and squares keep their digits.
    """
    stack = np.flatnonzero(in_stack(profile))
    benefit = profile.benefit[stack]
    aligned = profile.need("reference_alignment")[:, stack]
    if shrinkage is None:
        shrinkage = max(estimated_shrinkage(aligned), least)
    checked_number("shrinkage", shrinkage, 0, 1, above=False)
    matrix = profile.interference_matrix[np.ix_(stack, stack)]
    own = np.diag(matrix)
    if own.any():
        matrix = matrix / own.mean()
    own = np.maximum(np.diag(matrix), FLOOR)
    matrix = (1 - shrinkage) * matrix
    np.fill_diagonal(matrix, own)
    return stack, benefit / benefit.mean() if benefit.any() else benefit, matrix
