"""From a score of each unit to the units that are trained.

Comes in: a profile and scores, (n_units,). Goes out: scales, 1 for units that are trained and 0
for all others. It computes no score and knows no policy.
"""

import numpy as np

from gradloc.errors import SelectionError
from gradloc.localization.profile import GradientProfile

# The smallest divisor: what costs nothing keeps a finite score, above all others.
FLOOR = np.finfo(np.float64).tiny ** 0.5


def in_stack(profile: GradientProfile) -> np.ndarray:
    """Which units are chosen among, (n_units,)."""
    return np.array([unit.in_stack for unit in profile.units])


def sizes(profile: GradientProfile) -> np.ndarray:
    """Number of parameters of each unit, (n_units,)."""
    return np.array([unit.n_parameters for unit in profile.units])


def n_blocks(profile: GradientProfile) -> int:
    """Number of blocks, by the highest that holds a unit to choose."""
    return 1 + max(unit.block for unit in profile.units if unit.in_stack)


def quotient(gain: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Gain / cost of each unit; 0 without gain, finite and highest without cost."""
    return np.where(gain > 0, gain / np.maximum(cost, FLOOR), 0.0)


def take(
    profile: GradientProfile,
    score: np.ndarray,
    *,
    k: int | None = None,
    parameter_fraction: float | None = None,
) -> np.ndarray:
    """Train the units of the highest scores.

    Args:
        profile: For its units.
        score: Higher is better, (n_units,).
        k: So many units; with neither option those above the mean score of the stack.
        parameter_fraction: The best whose parameters stay within this part of the model's, 0-1.

    Returns:
        Scales, (n_units,).

    Raises:
        SelectionError: Both options, one out of range, or no unit fits.
    """
    if k is not None and parameter_fraction is not None:
        raise SelectionError("give k or parameter_fraction, not both.")
    if k is not None:
        return best(profile, score, k)
    if parameter_fraction is not None:
        return best_within(profile, score, parameter_fraction)
    return above_mean(profile, score)


def above_mean(profile: GradientProfile, score: np.ndarray) -> np.ndarray:
    """Train the units whose score exceeds the mean over the stack."""
    stack = in_stack(profile)
    return (stack & (score > score[stack].mean())).astype(float)


def best(profile: GradientProfile, score: np.ndarray, k: int) -> np.ndarray:
    """Train the ``k`` units of the highest scores."""
    scale = np.zeros(len(score))
    scale[ranked(profile, score)[: checked_k(profile, k)]] = 1.0
    return scale


def best_within(profile: GradientProfile, score: np.ndarray, fraction: float) -> np.ndarray:
    """Train the best units, in order, that together keep within a part of the parameters.

    A unit that does not fit any more is passed over; smaller ones may follow.
    """
    if not 0 < fraction <= 1:
        raise SelectionError(f"parameter_fraction must lie in (0, 1]; found {fraction!r}.")
    size = sizes(profile)
    scale = np.zeros(len(score))
    for index in ranked(profile, score):
        if (size[scale > 0].sum() + size[index]) / size.sum() <= fraction:
            scale[index] = 1.0
    if not scale.any():
        raise SelectionError(
            f"no unit fits within parameter_fraction {fraction}; the smallest is "
            f"{size[in_stack(profile)].min() / size.sum():.4f} of the model."
        )
    return scale


def ranked(profile: GradientProfile, score: np.ndarray) -> np.ndarray:
    """Indices of the stack's units, best first; ties in the model's order."""
    stack = np.flatnonzero(in_stack(profile))
    return stack[np.argsort(-score[stack], kind="stable")]


def checked_k(profile: GradientProfile, k: int, n: int | None = None, what: str = "units") -> int:
    """``k`` as it is, if there are so many to choose.

    Raises:
        SelectionError: It is no whole number from 1 to the number of units (or ``n``).
    """
    n = int(in_stack(profile).sum()) if n is None else n
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= n:
        raise SelectionError(f"k must be a whole number from 1 to {n} ({what}); found {k!r}.")
    return k


def checked_number(name: str, value: object, low: float, high: float, *, above: bool) -> float:
    """An option's value as it is, if it is a number in range.

    Args:
        name: Name of the option.
        value: What was given.
        low: Least value.
        high: Largest value.
        above: Whether ``low`` itself is out of range.

    Raises:
        SelectionError: It is no number, or out of range.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or (above and value == low):
        bounds = f"{'(' if above else '['}{low:g}, {high:g}]"
        raise SelectionError(f"{name} must be a number in {bounds}; found {value!r}.")
    return float(value)
