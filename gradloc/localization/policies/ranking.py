"""From a score of each unit to the units that are trained."""

import numpy as np

from gradloc.errors import SelectionError
from gradloc.localization.profile import GradientProfile
from gradloc.utils.numbers import check_number

# The smallest divisor: what costs nothing keeps a finite score, above all others.
FLOOR = np.finfo(np.float64).tiny ** 0.5


def in_stack(profile: GradientProfile) -> np.ndarray:
    """Which units are chosen among, (n_units,)."""
    return np.array([unit.in_stack for unit in profile.units])


def sizes(profile: GradientProfile) -> np.ndarray:
    """Number of parameters of each unit, (n_units,)."""
    return np.array([unit.n_parameters for unit in profile.units])


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
        parameter_fraction: The best whose parameters stay within this part of the model's, 0-1. A
            unit that does not fit any more is passed over; smaller ones may follow.

    Returns:
        Scales, (n_units,).

    Raises:
        SelectionError: Both options, one out of range, or no unit fits.
    """
    if k is not None and parameter_fraction is not None:
        raise SelectionError("give k or parameter_fraction, not both.")
    stack, size = in_stack(profile), sizes(profile)
    if k is None and parameter_fraction is None:
        return (stack & (score > score[stack].mean())).astype(float)
    ranked = np.flatnonzero(stack)  # best first, ties in the model's order
    ranked = ranked[np.argsort(-score[ranked], kind="stable")]
    scale = np.zeros(len(score))
    if k is not None:
        scale[ranked[: checked_k(profile, k)]] = 1.0
        return scale
    check_number("parameter_fraction", parameter_fraction, 0, 1, above=True, error=SelectionError)
    for index in ranked:
        if (size[scale > 0].sum() + size[index]) / size.sum() <= parameter_fraction:
            scale[index] = 1.0
    if not scale.any():
        raise SelectionError(
            f"no unit fits within parameter_fraction {parameter_fraction}; the smallest is "
            f"{size[stack].min() / size.sum():.4f} of the model."
        )
    return scale


def checked_k(profile: GradientProfile, k: int, n: int | None = None, what: str = "units") -> int:
    """``k`` as it is, if there are so many to choose.

    Raises:
        SelectionError: It is no whole number from 1 to the number of units (or ``n``).
    """
    n = int(in_stack(profile).sum()) if n is None else n
    check_number(f"k ({what})", k, 1, n, whole=True, error=SelectionError)
    return k
