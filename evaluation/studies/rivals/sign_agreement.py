"""A policy that trains where probes and reference text pull the same way."""

import numpy as np

from gradloc.localization.policies.ranking import sizes, take
from gradloc.localization.profile import GradientProfile


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


def agreement_score(profile: GradientProfile) -> np.ndarray:
    """The score of each unit, (n_units,)."""
    # A vector of signs is as long as the root of its size. Entries without any gradient make it
    # shorter; in a unit of the stack there are few of them.
    length = profile.need("reference_norms") * np.sqrt(sizes(profile))
    aligned = profile.need("reference_alignment")
    return np.divide(aligned, length, out=np.zeros_like(aligned), where=length > 0).mean(axis=0)
