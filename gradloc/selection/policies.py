"""Policies: from a gradient profile to a scale for each unit.

Comes in: a ``GradientProfile``. Goes out: scales, (n_units,). There is no model in sight. To add
a policy, write a function of a profile and enter it in ``POLICIES``; if it ranks units by a score,
enter that in ``SCORES``.
"""

import difflib
from collections.abc import Callable

import numpy as np

from gradloc.errors import SelectionError
from gradloc.profile import GradientProfile

DEFAULT_POLICY = "interference_ratio"


def interference_ratio(
    profile: GradientProfile, *, k: int | None = None, parameter_fraction: float | None = None
) -> np.ndarray:
    """Train the units whose step buys much and disturbs the reference text little.

    Score: benefit / interference (see ``GradientProfile``). Minimising forgetting C over squared
    uptake B^2 for a set of units stepped together, including u pays exactly when
    b_u / c_u > B / (2C). Taken are the units above the mean score; or the best ``k``; or the best
    whose parameters stay within ``parameter_fraction`` of the model's.
    """
    score = _ratio_score(profile)
    if k is not None and parameter_fraction is not None:
        raise SelectionError("give k or parameter_fraction, not both.")
    if k is not None:
        return _best(profile, score, k)
    if parameter_fraction is not None:
        return _best_within(profile, score, parameter_fraction)
    return _above_mean(profile, score)


def rgn_above_mean(profile: GradientProfile) -> np.ndarray:
    """Train the units whose relative gradient norm exceeds the mean.

    The published "frozen parameters" rule of arXiv:2411.04448.
    """
    return _above_mean(profile, profile.rgn)


def rgn_scaled(profile: GradientProfile) -> np.ndarray:
    """Train every unit of the stack at the learning rate times RGN / mean RGN.

    The published learning-rate rule of arXiv:2411.04448. It acts on the optimizer's rates:
    under Adam, scaling gradients does nothing.
    """
    stack = _in_stack(profile)
    return np.where(stack, profile.rgn / profile.rgn[stack].mean(), 0.0)


def top_rgn_k(profile: GradientProfile, *, k: int = 10) -> np.ndarray:
    """Train the ``k`` units of the highest relative gradient norm."""
    return _best(profile, profile.rgn, k)


def raw_norm(profile: GradientProfile, *, k: int = 10) -> np.ndarray:
    """Train the ``k`` units of the highest probe gradient norm, without reference text."""
    return _best(profile, profile.probe_norm, k)


def random_k(
    profile: GradientProfile, *, k: int | None = None, like: str = DEFAULT_POLICY, seed: int = 0
) -> np.ndarray:
    """Train random units: ``k`` of them, or as many parameters as policy ``like`` would train.

    A control: what a selection of this size does by chance.
    """
    order = np.random.default_rng(seed).permutation(np.flatnonzero(_in_stack(profile)))
    sizes = _sizes(profile)
    scale = np.zeros(len(sizes))
    if k is not None:
        scale[order[: _checked_k(profile, k)]] = 1.0
        return scale
    budget = sizes[policy_named(like)(profile) > 0].sum()
    for index in order:
        # The last unit may overshoot by less than what leaving it out would lack.
        if sizes[scale > 0].sum() + sizes[index] / 2 <= budget:
            scale[index] = 1.0
    return scale


def last_third_mlp(profile: GradientProfile) -> np.ndarray:
    """Train the MLPs of the last third of the blocks: the heuristic to beat."""
    if profile.granularity != "sublayer":
        raise SelectionError("last_third_mlp needs a profile of granularity 'sublayer'.")
    first = 2 * _n_blocks(profile) / 3
    return np.array(
        [
            float(unit.kind == "mlp" and unit.in_stack and unit.block >= first)
            for unit in profile.units
        ]
    )


def top_k(profile: GradientProfile, *, k: int = 4) -> np.ndarray:
    """Train the last ``k`` blocks, those next to the head."""
    return _blocks(profile, range(_n_blocks(profile) - _checked_blocks(profile, k), 10**9))


def bottom_k(profile: GradientProfile, *, k: int = 4) -> np.ndarray:
    """Train the first ``k`` blocks, those next to the embeddings."""
    return _blocks(profile, range(_checked_blocks(profile, k)))


def inverse(profile: GradientProfile, *, of: str = DEFAULT_POLICY) -> np.ndarray:
    """Train the units of the stack that policy ``of`` would freeze."""
    return np.where(_in_stack(profile), (policy_named(of)(profile) == 0).astype(float), 0.0)


def train_all(profile: GradientProfile) -> np.ndarray:
    """Train every parameter, embeddings and head included: ordinary full training."""
    return np.ones(len(profile.units))


def train_none(profile: GradientProfile) -> np.ndarray:
    """Train nothing."""
    return np.zeros(len(profile.units))


Policy = Callable[..., np.ndarray]

POLICIES: dict[str, Policy] = {
    "interference_ratio": interference_ratio,
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


def _ratio_score(profile: GradientProfile) -> np.ndarray:
    """Benefit / interference; 0 where the probes have no gradient at all."""
    benefit, interference = profile.benefit, profile.interference
    # A unit without interference is free; the tiny floor keeps its score finite and highest.
    floor = np.finfo(np.float64).tiny ** 0.5
    return np.where(benefit > 0, benefit / np.maximum(interference, floor), 0.0)


# Policy -> what it ranks units by, shown beside every selection with its reliability.
SCORES: dict[str, tuple[str, Callable[[GradientProfile], np.ndarray]]] = {
    "interference_ratio": ("interference ratio", _ratio_score),
    "rgn_above_mean": ("relative gradient norm", lambda profile: profile.rgn),
    "rgn_scaled": ("relative gradient norm", lambda profile: profile.rgn),
    "top_rgn_k": ("relative gradient norm", lambda profile: profile.rgn),
    "raw_norm": ("probe gradient norm", lambda profile: profile.probe_norm),
}


def policy_named(name: str) -> Policy:
    """A policy of ``POLICIES``.

    Raises:
        SelectionError: There is none of this name.
    """
    if name not in POLICIES:
        raise SelectionError(
            f"policy {name!r} is unknown.{did_you_mean(name, POLICIES)} "
            f"Policies: {', '.join(POLICIES)}."
        )
    return POLICIES[name]


def did_you_mean(word: str, choices) -> str:
    """The closest choice as a question, with a blank before it, or nothing."""
    close = difflib.get_close_matches(str(word), list(choices), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _in_stack(profile: GradientProfile) -> np.ndarray:
    return np.array([unit.in_stack for unit in profile.units])


def _sizes(profile: GradientProfile) -> np.ndarray:
    return np.array([unit.n_parameters for unit in profile.units])


def _n_blocks(profile: GradientProfile) -> int:
    return 1 + max(unit.block for unit in profile.units if unit.in_stack)


def _blocks(profile: GradientProfile, blocks: range) -> np.ndarray:
    return np.array([float(unit.in_stack and unit.block in blocks) for unit in profile.units])


def _above_mean(profile: GradientProfile, score: np.ndarray) -> np.ndarray:
    stack = _in_stack(profile)
    return (stack & (score > score[stack].mean())).astype(float)


def _best(profile: GradientProfile, score: np.ndarray, k: int) -> np.ndarray:
    ranked = _ranked(profile, score)
    scale = np.zeros(len(score))
    scale[ranked[: _checked_k(profile, k)]] = 1.0
    return scale


def _best_within(profile: GradientProfile, score: np.ndarray, fraction: float) -> np.ndarray:
    if not 0 < fraction <= 1:
        raise SelectionError(f"parameter_fraction must lie in (0, 1]; found {fraction!r}.")
    sizes = _sizes(profile)
    scale = np.zeros(len(score))
    for index in _ranked(profile, score):
        if (sizes[scale > 0].sum() + sizes[index]) / sizes.sum() <= fraction:
            scale[index] = 1.0
    if not scale.any():
        raise SelectionError(
            f"no unit fits within parameter_fraction {fraction}; the smallest is "
            f"{sizes[_in_stack(profile)].min() / sizes.sum():.4f} of the model."
        )
    return scale


def _ranked(profile: GradientProfile, score: np.ndarray) -> np.ndarray:
    """Indices of the stack's units, best first; ties in the model's order."""
    stack = np.flatnonzero(_in_stack(profile))
    return stack[np.argsort(-score[stack], kind="stable")]


def _checked_k(profile: GradientProfile, k: int, n: int | None = None, what: str = "units") -> int:
    n = int(_in_stack(profile).sum()) if n is None else n
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= n:
        raise SelectionError(f"k must be a whole number from 1 to {n} ({what}); found {k!r}.")
    return k


def _checked_blocks(profile: GradientProfile, k: int) -> int:
    return _checked_k(profile, k, _n_blocks(profile), "blocks")
