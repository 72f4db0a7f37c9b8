"""How far a ranking of units can be trusted."""

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy.stats import spearmanr

from gradloc.localization.plan import Reliability
from gradloc.localization.profile import GradientProfile

Score = Callable[[GradientProfile], np.ndarray]

# Below this rank correlation between two halves of the data the ranking is mostly noise.
# assumption: a conventional bar for test-retest reliability.
NOISE_BELOW = 0.5
MIN_SEQUENCES = 4


def reliability(
    profile: GradientProfile,
    score: Score,
    *,
    n_splits: int = 100,
    n_bootstrap: int = 500,
    seed: int = 0,
) -> Reliability:
    """Judge the ranking of the units that a policy chooses among.

    Split-half: the sequences are split at random into two halves, each half scores the units,
    and the two scores are rank-correlated (Spearman); the mean over splits is given. Directions
    (the sign of the mean gradient) are held fixed, so for ``interference_ratio`` this speaks of
    the sequences measured along them, not of the directions themselves.

    Args:
        profile: The measured profile.
        score: Profile -> score of each unit, (n_units,).
        n_splits: Random splits.
        n_bootstrap: Resamples of the sequences for the intervals.
        seed: Seed of both.

    Returns:
        ``split_half`` (-1 to 1, ``None`` where it cannot be had), ``low`` and ``high`` (unit
        name -> ends of the 95 % interval) and ``warning`` (empty where the ranking is sound).
    """
    n_reference = None if profile.reference_norms is None else len(profile.reference_norms)
    counts = (len(profile.probe_norms), n_reference)
    if profile.reduction == "norm_of_mean":
        return _unknown("the norm of a mean gradient cannot be split by sequence")
    if min(n for n in counts if n is not None) < MIN_SEQUENCES:
        return _unknown(f"fewer than {MIN_SEQUENCES} sequences were measured")
    generator = np.random.default_rng(seed)
    in_stack = np.array([unit.in_stack for unit in profile.units])
    if np.ptp(score(profile)[in_stack]) == 0:
        return _unknown("all units have the same score, so there is no ranking")
    correlations = []
    for _ in range(n_splits):
        order = [None if n is None else generator.permutation(n) for n in counts]
        first, second = (
            score(_take(profile, *[None if o is None else o[half::2] for o in order]))[in_stack]
            for half in (0, 1)
        )
        correlations.append(spearmanr(first, second)[0])
    resampled = []
    for _ in range(n_bootstrap):
        drawn = [None if n is None else generator.integers(0, n, n) for n in counts]
        resampled.append(score(_take(profile, *drawn)))
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    split_half = float(np.mean(correlations))
    warning = ""
    if split_half < NOISE_BELOW:
        warning = (
            f"two halves of the sequences rank the units differently (Spearman "
            f"{split_half:.2f}): this selection is mostly noise. Measure more sequences."
        )
    return {
        "split_half": split_half,
        "low": dict(zip(profile.names, low.tolist(), strict=True)),
        "high": dict(zip(profile.names, high.tolist(), strict=True)),
        "warning": warning,
    }


def _unknown(reason: str) -> Reliability:
    return {
        "split_half": None,
        "low": {},
        "high": {},
        "warning": f"how far this ranking can be trusted is unknown: {reason}.",
    }


def _take(
    profile: GradientProfile, probes: np.ndarray | None, references: np.ndarray | None
) -> GradientProfile:
    """The profile of some of its sequences."""
    rows = {
        "probe_norms": probes,
        "probe_alignment": probes,
        "reference_norms": references,
        "reference_alignment": references,
    }
    return dataclasses.replace(
        profile,
        **{
            name: getattr(profile, name)[index]
            for name, index in rows.items()
            if index is not None and getattr(profile, name) is not None
        },
    )
