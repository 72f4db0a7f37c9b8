"""Selection policies, ``POLICIES``: from a gradient profile to a scale for each unit.

A policy is a function of a ``GradientProfile`` that returns scales, (n_units,); its options are
keyword-only. To add one, enter it in ``POLICIES`` (and its score in ``SCORES``, if it has one), or
name it in a recipe by its import path.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from gradloc.config.default import GradLocConfig
from gradloc.errors import SelectionError
from gradloc.localization.profile import GradientProfile
from gradloc.utils.names import lookup
from gradloc.utils.numbers import check_number

DEFAULT_POLICY = GradLocConfig.policy
# The smallest divisor: what costs nothing keeps a finite score, above all others.
FLOOR = np.finfo(np.float64).tiny ** 0.5

# ---- scores, (n_units,): higher ones are trained


def ratio_score(profile: GradientProfile) -> np.ndarray:
    """Benefit / interference; 0 where the probes have no gradient at all."""
    return quotient(profile.benefit, profile.interference)


def fisher_score(profile: GradientProfile) -> np.ndarray:
    """Mean squared gradient norm on probes / on reference text."""
    reference = (profile.need("reference_norms") ** 2).mean(axis=0)
    return quotient((profile.probe_norms**2).mean(axis=0), reference)


def agreement_score(profile: GradientProfile) -> np.ndarray:
    """Mean cosine between reference gradients and the signs of the mean probe gradient, -1 to 1."""
    # A vector of signs is as long as the root of its size. Entries without any gradient make it
    # shorter; in a unit of the stack there are few of them.
    length = profile.need("reference_norms") * np.sqrt(sizes(profile))
    aligned = profile.need("reference_alignment")
    return np.divide(aligned, length, out=np.zeros_like(aligned), where=length > 0).mean(axis=0)


# ---- policies by a score: those above the mean score, the best k, or the best within a part of
# ---- the parameters


def interference_ratio(
    profile: GradientProfile, *, k: int | None = None, parameter_fraction: float | None = None
) -> np.ndarray:
    """Train the units whose step buys much and disturbs the reference text little.

    Score: benefit / interference (see ``GradientProfile``). Minimising forgetting C over squared
    uptake B^2 for a set of units stepped together, including u pays when
    b_u / c_u > B^2 / (C (2B + b_u)), about B / (2C) where u is a small part of the set. The mean
    score stands in for that threshold.
    """
    return take(profile, ratio_score(profile), k=k, parameter_fraction=parameter_fraction)


def fisher_ratio(
    profile: GradientProfile, *, k: int | None = None, parameter_fraction: float | None = None
) -> np.ndarray:
    """Train the units where the probes hold more Fisher information than the reference text.

    Score: ``mean_s ||g_probe,s||^2 / mean_s ||g_ref,s||^2`` of each unit, the quotient of the
    traces of two empirical Fisher matrices (gradients of the labels that are there, not of
    labels drawn from the model). No direction enters: a unit scores high whether or not a step on
    the probes is one that the reference text feels.

    References:
        Kirkpatrick et al. 2017, arXiv:1612.00796 (diagonal Fisher information as the importance
        of a parameter for what was learnt).
    """
    return take(profile, fisher_score(profile), k=k, parameter_fraction=parameter_fraction)


def sign_agreement(
    profile: GradientProfile, *, k: int | None = None, parameter_fraction: float | None = None
) -> np.ndarray:
    """Train the units in which probes and reference text pull the same way.

    Score: the mean over reference sequences of the cosine between ``g_ref,s`` and the sign of the
    mean probe gradient, -1 to 1: positive where the probes' first step of Adam lowers the
    reference loss too.

    References:
        Yu et al. 2020, arXiv:2001.06782 definition 1 (gradients of two tasks conflict where their
        cosine is negative).
    """
    return take(profile, agreement_score(profile), k=k, parameter_fraction=parameter_fraction)


def rgn_above_mean(profile: GradientProfile) -> np.ndarray:
    """Train the units whose relative gradient norm exceeds the mean.

    The published "frozen parameters" rule of arXiv:2411.04448.
    """
    return take(profile, profile.rgn)


def rgn_scaled(profile: GradientProfile) -> np.ndarray:
    """Train every unit of the stack at the learning rate times RGN / mean RGN.

    The published learning-rate rule of arXiv:2411.04448. It acts on the optimizer's rates:
    under Adam, scaling gradients does nothing.
    """
    stack = in_stack(profile)
    return np.where(stack, profile.rgn / profile.rgn[stack].mean(), 0.0)


def top_rgn_k(profile: GradientProfile, *, k: int = 10) -> np.ndarray:
    """Train the ``k`` units of the highest relative gradient norm."""
    return take(profile, profile.rgn, k=k)


def raw_norm(profile: GradientProfile, *, k: int = 10) -> np.ndarray:
    """Train the ``k`` units of the highest probe gradient norm, without reference text."""
    return take(profile, profile.probe_norm, k=k)


# ---- controls


def random_k(
    profile: GradientProfile, *, k: int | None = None, like: str = DEFAULT_POLICY, seed: int = 0
) -> np.ndarray:
    """Train random units: ``k`` of them, or as many parameters as policy ``like`` would train.

    A control: what a selection of this size does by chance.
    """
    order = np.random.default_rng(seed).permutation(np.flatnonzero(in_stack(profile)))
    size = sizes(profile)
    scale = np.zeros(len(size))
    if k is not None:
        scale[order[: checked_k(profile, k)]] = 1.0
        return scale
    budget = size[policy_named(like)(profile) > 0].sum()
    for index in order:
        # The last unit may overshoot by less than what leaving it out would lack.
        if size[scale > 0].sum() + size[index] / 2 <= budget:
            scale[index] = 1.0
    return scale


def last_third_mlp(profile: GradientProfile) -> np.ndarray:
    """Train the MLPs of the last third of the blocks: the heuristic to beat."""
    if profile.granularity != "sublayer":
        raise SelectionError("last_third_mlp needs a profile of granularity 'sublayer'.")
    depth = _depth(profile)
    is_mlp = np.array([unit.kind == "mlp" for unit in profile.units])
    return _blocks(profile, [block for block in range(depth) if block >= 2 * depth / 3]) * is_mlp


def top_k(profile: GradientProfile, *, k: int = 4) -> np.ndarray:
    """Train the last ``k`` blocks, those next to the head."""
    depth = _depth(profile)
    return _blocks(profile, range(depth - checked_k(profile, k, depth, "blocks"), depth))


def bottom_k(profile: GradientProfile, *, k: int = 4) -> np.ndarray:
    """Train the first ``k`` blocks, those next to the embeddings."""
    return _blocks(profile, range(checked_k(profile, k, _depth(profile), "blocks")))


def inverse(profile: GradientProfile, *, of: str = DEFAULT_POLICY) -> np.ndarray:
    """Train the units of the stack that policy ``of`` would freeze."""
    return (in_stack(profile) & (policy_named(of)(profile) == 0)).astype(float)


def train_all(profile: GradientProfile) -> np.ndarray:
    """Train every parameter, embeddings and head included: ordinary full training."""
    return np.ones(len(profile.units))


def train_none(profile: GradientProfile) -> np.ndarray:
    """Train nothing."""
    return np.zeros(len(profile.units))


Policy = Callable[..., np.ndarray]

POLICIES: dict[str, Policy] = {
    "interference_ratio": interference_ratio,
    "fisher_ratio": fisher_ratio,
    "sign_agreement": sign_agreement,
    "rgn_above_mean": rgn_above_mean,
    "rgn_scaled": rgn_scaled,
    "top_rgn_k": top_rgn_k,
    "raw_norm": raw_norm,
    "random_k": random_k,
    "last_third_mlp": last_third_mlp,
    "top_k": top_k,
    "bottom_k": bottom_k,
    "inverse": inverse,
    "all": train_all,
    "none": train_none,
}

# These ask for the layout of the model alone: they choose the same whatever was measured.
POSITIONAL = frozenset({"last_third_mlp", "top_k", "bottom_k", "all", "none"})


class Score(NamedTuple):
    """What a policy ranks units by, shown beside every selection with its reliability.

    Args:
        name: Its name in tables.
        values: Profile -> (n_units,).
    """

    name: str
    values: Callable[[GradientProfile], np.ndarray]


_RGN = Score("relative gradient norm", lambda profile: profile.rgn)
SCORES: dict[str, Score] = {
    "interference_ratio": Score("interference ratio", ratio_score),
    "fisher_ratio": Score("Fisher ratio", fisher_score),
    "sign_agreement": Score("sign agreement", agreement_score),
    "rgn_above_mean": _RGN,
    "rgn_scaled": _RGN,
    "top_rgn_k": _RGN,
    "raw_norm": Score("probe gradient norm", lambda profile: profile.probe_norm),
}


def policy_named(name: str) -> Policy:
    """A policy of ``POLICIES``, or of a module of your own (``my_module:policy``).

    Raises:
        SelectionError: There is none of this name.
    """
    return lookup(POLICIES, name, "policy", SelectionError)


# ---- what policies are made of


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


def _depth(profile: GradientProfile) -> int:
    """Number of blocks, by the highest that holds a unit to choose."""
    return 1 + max(unit.block for unit in profile.units if unit.block is not None)


def _blocks(profile: GradientProfile, blocks: Iterable[int]) -> np.ndarray:
    chosen = set(blocks)
    return np.array([float(unit.block in chosen) for unit in profile.units])
