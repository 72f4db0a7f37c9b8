"""Policies as others have published them.

Comes in: a ``GradientProfile``. Goes out: scales, (n_units,). Where the paper and its code differ,
the docstring says which is followed.
"""

import numpy as np

from gradloc.localization.policies.ranking import above_mean, best, checked_number, in_stack, ranked
from gradloc.localization.profile import GradientProfile


def rgn_above_mean(profile: GradientProfile) -> np.ndarray:
    """Train the units whose relative gradient norm exceeds the mean.

    The published "frozen parameters" rule of arXiv:2411.04448.
    """
    return above_mean(profile, profile.rgn)


def rgn_scaled(profile: GradientProfile) -> np.ndarray:
    """Train every unit of the stack at the learning rate times RGN / mean RGN.

    The published learning-rate rule of arXiv:2411.04448. It acts on the optimizer's rates:
    under Adam, scaling gradients does nothing.
    """
    stack = in_stack(profile)
    return np.where(stack, profile.rgn / profile.rgn[stack].mean(), 0.0)


def top_rgn_k(profile: GradientProfile, *, k: int = 10) -> np.ndarray:
    """Train the ``k`` units of the highest relative gradient norm."""
    return best(profile, profile.rgn, k)


def raw_norm(profile: GradientProfile, *, k: int = 10) -> np.ndarray:
    """Train the ``k`` units of the highest probe gradient norm, without reference text."""
    return best(profile, profile.probe_norm, k)


def spectrum(profile: GradientProfile, *, fraction: float = 0.25) -> np.ndarray:
    """Train the units whose weights stand out most from noise, by the Spectrum rule.

    Score: ``spectrum_snr`` of the profile, a number of the weights alone; no fact and no text
    enters. Of each kind of unit (attention, MLP) the best ``fraction`` is trained, rounded down,
    at least one. Needs a profile that was measured with ``spectrum``.

    The paper ranks single weight matrices within each type of module, 25 % of them by default
    (its code: 50 %), and its code trains the embeddings and the head beside them. Here whole
    units are ranked by the mean over their matrices, and embeddings and head stay frozen.

    Raises:
        SelectionError: A fraction outside (0, 1].

    References:
        Hartford et al. 2024, arXiv:2406.06623 sections 3.3 and 4.2.
    """
    checked_number("fraction", fraction, 0, 1, above=True)
    order = ranked(profile, profile.need("spectrum_snr"))
    scale = np.zeros(len(profile.units))
    for kind in {profile.units[index].kind for index in order}:
        alike = [index for index in order if profile.units[index].kind == kind]
        # The small number undoes what binary fractions take from a whole product.
        scale[alike[: max(1, int(len(alike) * fraction + 1e-9))]] = 1.0
    return scale
