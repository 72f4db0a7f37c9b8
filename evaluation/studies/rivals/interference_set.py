"""A policy that counts what units disturb together.

Let unit u step along its direction at the rate s_u. To first order the probes' loss falls by
``B = sum_u b_u s_u``, and the reference behaviour is disturbed by ``C = s^T C s`` with
``C_uv = mean_s a_su a_sv``, where a_su is the inner product of the gradient of reference
sequence s with the direction in u. The step that reaches a given uptake is as long as 1 / B and its
cost grows with the square, so the quantity to be large is ``B^2 / C``. ``interference_ratio`` takes
C to be diagonal: as if what two units disturb never added up.

Entries off the diagonal are means over few sequences. Their noise is damped by **shrinkage**
towards the diagonal, ``C_uv (1 - shrinkage)`` for u != v: 0 is C as measured, 1 is diagonal.

References:
    Schäfer, Strimmer 2005, doi:10.2202/1544-6115.1175, section 2.3 and table 1, target D.
"""

import numpy as np

from evaluation.studies.rivals.set_search import best_set
from gradloc.errors import SelectionError
from gradloc.localization.policies import FLOOR, checked_k, in_stack
from gradloc.localization.profile import GradientProfile
from gradloc.utils.numbers import check_number


def interference_set(
    profile: GradientProfile, *, k: int | None = None, shrinkage: float | None = None
) -> np.ndarray:
    """Train the set of units that buys most for what it disturbs together.

    The set S maximises ``(sum_S b)^2 / sum_SS C`` (see the module), among all sets or those of
    ``k`` units. The optimum is flat: sets of other sizes may be within a per cent of it.

    Args:
        profile: Needs reference text.
        k: Number of units; ``None``: as many as pay.
        shrinkage: 0-1; ``None``: estimated.

    Raises:
        SelectionError: An option out of range.
    """
    stack = np.flatnonzero(in_stack(profile))
    benefit = profile.benefit[stack]
    aligned = profile.need("reference_alignment")[:, stack]
    if shrinkage is None:
        shrinkage = estimated_shrinkage(aligned)
    check_number("shrinkage", shrinkage, 0, 1, error=SelectionError)
    # Benefit and matrix are divided by their means, so that sums and squares keep their digits.
    matrix = aligned.T @ aligned / len(aligned)
    own = np.diag(matrix)
    if own.any():
        matrix = matrix / own.mean()
    own = np.maximum(np.diag(matrix), FLOOR)
    matrix = (1 - shrinkage) * matrix
    np.fill_diagonal(matrix, own)
    if benefit.any():
        benefit = benefit / benefit.mean()
    scale = np.zeros(len(profile.units))
    scale[stack] = best_set(benefit, matrix, None if k is None else checked_k(profile, k))
    return scale


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
