"""A policy that trains where the probes' gradients agree with each other."""

import numpy as np

from gradloc.localization.policies import quotient, take
from gradloc.localization.profile import GradientProfile


def snr(
    profile: GradientProfile, *, k: int | None = None, parameter_fraction: float | None = None
) -> np.ndarray:
    """Train the units in which the probes' gradients agree with each other.

    Score: gradient signal-to-noise ratio ``||mean_s g_s|| / sqrt(mean_s ||g_s - mean||^2)`` over
    the probes, from 0 up. What is trained there is common to the facts; elsewhere each fact pulls
    its own way. Of n gradients without anything in common it is about ``1 / sqrt(n - 1)``, so
    only profiles of equally many probes compare. Needs reference text.

    References:
        Liu et al. 2020, arXiv:2001.07384 definition 2.1 is the square of it for one parameter.
    """
    mean = profile.need("probe_norm_of_mean")
    # Equal gradients leave nothing but rounding, which may lie below zero.
    variance = np.maximum((profile.probe_norms**2).mean(axis=0) - mean**2, 0.0)
    score = quotient(mean, np.sqrt(variance))
    return take(profile, score, k=k, parameter_fraction=parameter_fraction)
