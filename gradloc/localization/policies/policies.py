"""The table of policies: from a gradient profile to a scale for each unit.

Comes in: a ``GradientProfile``. Goes out: scales, (n_units,). There is no model in sight. To add
a policy, write a function of a profile and enter it in ``POLICIES``; if it ranks units by a score,
enter that in ``SCORES``. The controls stand here, the others in modules by theme.
"""

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gradloc.config.default import GradLocConfig
from gradloc.errors import SelectionError
from gradloc.localization.policies.interference import (
    contribution_score,
    interference_rates,
    interference_scaled,
    interference_set,
)
from gradloc.localization.policies.published import (
    raw_norm,
    rgn_above_mean,
    rgn_scaled,
    spectrum,
    top_rgn_k,
)
from gradloc.localization.policies.ranking import checked_k, in_stack, n_blocks, sizes
from gradloc.localization.policies.ratios import (
    agreement_level,
    agreement_score,
    fisher_ratio,
    fisher_score,
    grad_times_weight,
    interference_ratio,
    ratio_score,
    sign_agreement,
    snr,
    snr_score,
    taylor_score,
)
from gradloc.localization.profile import GradientProfile
from gradloc.utils.names import lookup

DEFAULT_POLICY = GradLocConfig.policy


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
    first = 2 * n_blocks(profile) / 3
    return np.array(
        [
            float(unit.kind == "mlp" and unit.in_stack and unit.block >= first)
            for unit in profile.units
        ]
    )


def top_k(profile: GradientProfile, *, k: int = 4) -> np.ndarray:
    """Train the last ``k`` blocks, those next to the head."""
    return _blocks(profile, range(n_blocks(profile) - _checked_blocks(profile, k), 10**9))


def bottom_k(profile: GradientProfile, *, k: int = 4) -> np.ndarray:
    """Train the first ``k`` blocks, those next to the embeddings."""
    return _blocks(profile, range(_checked_blocks(profile, k)))


def inverse(profile: GradientProfile, *, of: str = DEFAULT_POLICY) -> np.ndarray:
    """Train the units of the stack that policy ``of`` would freeze."""
    return np.where(in_stack(profile), (policy_named(of)(profile) == 0).astype(float), 0.0)


def train_all(profile: GradientProfile) -> np.ndarray:
    """Train every parameter, embeddings and head included: ordinary full training."""
    return np.ones(len(profile.units))


def train_none(profile: GradientProfile) -> np.ndarray:
    """Train nothing."""
    return np.zeros(len(profile.units))


Policy = Callable[..., np.ndarray]

POLICIES: dict[str, Policy] = {
    "interference_ratio": interference_ratio,
    "interference_set": interference_set,
    "interference_rates": interference_rates,
    "interference_scaled": interference_scaled,
    "fisher_ratio": fisher_ratio,
    "sign_agreement": sign_agreement,
    "grad_times_weight": grad_times_weight,
    "snr": snr,
    "rgn_above_mean": rgn_above_mean,
    "rgn_scaled": rgn_scaled,
    "top_rgn_k": top_rgn_k,
    "raw_norm": raw_norm,
    "spectrum": spectrum,
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
        values: Profile, and those of the policy's options that it takes -> (n_units,).
        unsplit: Profile and options -> why halves of the sequences cannot show how far the
            ranking is to be trusted; empty where they can.
    """

    name: str
    values: Callable[..., np.ndarray]
    unsplit: Callable[[GradientProfile, dict], str] = lambda profile, options: ""


def _of_mean(profile: GradientProfile, options: dict) -> str:
    return "the norm of a mean gradient cannot be split by sequence"


def _of_weights(profile: GradientProfile, options: dict) -> str:
    return "it is read off the weights, so no sequence can speak for or against it"


def _of_signs(profile: GradientProfile, options: dict) -> str:
    if agreement_level(profile, options.get("level")) == "unit":
        return ""
    return "signs of a mean gradient cannot be split by sequence"


_RATIO = Score("interference ratio", ratio_score)
_RGN = Score("relative gradient norm", lambda profile: profile.rgn)

SCORES: dict[str, Score] = {
    "interference_ratio": _RATIO,
    # The set is searched for; how each unit does alone says what there was to choose from.
    "interference_set": _RATIO,
    "interference_rates": Score("share of benefit² / interference", contribution_score),
    "interference_scaled": _RATIO,
    "fisher_ratio": Score("Fisher ratio", fisher_score),
    "sign_agreement": Score("sign agreement", agreement_score, _of_signs),
    "grad_times_weight": Score("ratio of gradient times weight", taylor_score),
    "snr": Score("gradient signal-to-noise ratio", snr_score, _of_mean),
    "rgn_above_mean": _RGN,
    "rgn_scaled": _RGN,
    "top_rgn_k": _RGN,
    "raw_norm": Score("probe gradient norm", lambda profile: profile.probe_norm),
    "spectrum": Score("Spectrum SNR", lambda profile: profile.need("spectrum_snr"), _of_weights),
}


def policy_named(name: str) -> Policy:
    """A policy of ``POLICIES``, or of a module of the user's (``my_module:policy``).

    Raises:
        SelectionError: There is none of this name.
    """
    return lookup(POLICIES, name, "policy", SelectionError)


def score_of(policy: str, options: dict) -> Callable[[GradientProfile], np.ndarray] | None:
    """What a policy under its options ranks by; ``None`` for policies without a score."""
    if policy not in SCORES:
        return None
    values = SCORES[policy].values
    taken = {
        name: value
        for name, value in options.items()
        if name in inspect.signature(values).parameters
    }
    return functools.partial(values, **taken)


def _blocks(profile: GradientProfile, blocks: range) -> np.ndarray:
    return np.array([float(unit.in_stack and unit.block in blocks) for unit in profile.units])


def _checked_blocks(profile: GradientProfile, k: int) -> int:
    return checked_k(profile, k, n_blocks(profile), "blocks")
