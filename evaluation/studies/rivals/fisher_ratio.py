"""A policy that trains where the probes hold more Fisher information than the reference text."""

import numpy as np

from gradloc.localization.policies.ranking import quotient, take
from gradloc.localization.profile import GradientProfile


def fisher_ratio(
    profile: GradientProfile, *, k: int | None = None, parameter_fraction: float | None = None
) -> np.ndarray:
    """Train the units where the probes hold more Fisher information than the reference text.

    Score: ``mean_s ||g_probe,s||^2 / mean_s ||g_ref,s||^2`` of each unit, the quotient of the
    traces of two empirical Fisher matrices (gradients of the labels that are there, not of
    labels drawn from the model). Squares, so a few sequences with large gradients count more
    than in ``rgn``. No direction enters: a unit scores high whether or not a step on the probes
    is one that the reference text feels.

    References:
        Kirkpatrick et al. 2017, arXiv:1612.00796 (diagonal Fisher information as the importance
        of a parameter for what was learnt).
    """
    reference = (profile.need("reference_norms") ** 2).mean(axis=0)
    score = quotient((profile.probe_norms**2).mean(axis=0), reference)
    return take(profile, score, k=k, parameter_fraction=parameter_fraction)
