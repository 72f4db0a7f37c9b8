"""Policies that score each unit by itself, by what probes and reference text do to it.

Comes in: a ``GradientProfile``. Goes out: scores and scales, (n_units,); higher scores are trained.
Interactions between units are left to ``interference``.

All take the units above the mean score; or the best ``k``; or the best whose parameters stay
within ``parameter_fraction`` of the model's.
"""

import numpy as np

from gradloc.errors import SelectionError
from gradloc.localization.policies.ranking import quotient, sizes, take
from gradloc.localization.profile import GradientProfile

LEVELS = ("unit", "parameter")


def interference_ratio(
    profile: GradientProfile, *, k: int | None = None, parameter_fraction: float | None = None
) -> np.ndarray:
    """Train the units whose step buys much and disturbs the reference text little.

    Score: benefit / interference (see ``GradientProfile``). Minimising forgetting C over squared
    uptake B^2 for a set of units stepped together, including u pays when
    b_u / c_u > B^2 / (C (2B + b_u)), about B / (2C) where u is a small part of the set. Taken are
    the units above the mean score, which stands in for that threshold; or the best ``k``; or the
    best whose parameters stay within ``parameter_fraction`` of the model's.
    """
    return take(profile, ratio_score(profile), k=k, parameter_fraction=parameter_fraction)


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
    return take(profile, fisher_score(profile), k=k, parameter_fraction=parameter_fraction)


def sign_agreement(
    profile: GradientProfile,
    *,
    level: str | None = None,
    k: int | None = None,
    parameter_fraction: float | None = None,
) -> np.ndarray:
    """Train the units in which probes and reference text pull the same way.

    At level ``unit`` the score is the mean over reference sequences of the cosine between
    ``g_ref,s`` and the sign of the mean probe gradient, -1 to 1: positive where the probes' first
    step of Adam lowers the reference loss too. At level ``parameter`` it is the fraction of the
    unit's parameters, 0 to 1, whose mean gradients on both have the same sign; chance is 0.5. It
    needs a profile that was measured with ``signs``. Without ``level`` it is ``parameter`` where
    that was measured, else ``unit``.

    Raises:
        SelectionError: A level that there is not, or that was not measured.

    References:
        Yu et al. 2020, arXiv:2001.06782 definition 1 (gradients of two tasks conflict where their
        cosine is negative).
    """
    score = agreement_score(profile, level=level)
    return take(profile, score, k=k, parameter_fraction=parameter_fraction)


def grad_times_weight(
    profile: GradientProfile, *, k: int | None = None, parameter_fraction: float | None = None
) -> np.ndarray:
    """Train the units whose weights the new facts' loss depends on more than the old text's.

    Score: ``mean_s |<g_probe,s, w>| / mean_s |<g_ref,s, w>|`` with the unit's weights w. To first
    order ``|<g, w>|`` is how much a sequence's loss changes, in nats, when the unit's weights are
    taken away. Needs a profile that was measured with ``weights``.

    References:
        Molchanov et al. 2019, arXiv:1906.10771: the first-order Taylor importance of a group of
        weights behind one gate is ``(sum_i g_i w_i)^2``. Here it is the root of it, for a unit,
        averaged over sequences, and divided by its value on reference text.
    """
    return take(profile, taylor_score(profile), k=k, parameter_fraction=parameter_fraction)


def snr(
    profile: GradientProfile, *, k: int | None = None, parameter_fraction: float | None = None
) -> np.ndarray:
    """Train the units in which the probes' gradients agree with each other.

    Score: gradient signal-to-noise ratio ``||mean_s g_s|| / sqrt(mean_s ||g_s - mean||^2)`` over
    the probes, from 0 up. What is trained there is common to the facts; elsewhere each fact pulls
    its own way. Of n gradients without anything in common it is about ``1 / sqrt(n - 1)``, so
    only profiles of equally many probes compare. Needs ``probe_norm_of_mean``.

    References:
        Liu et al. 2020, arXiv:2001.07384 definition 2.1 is the square of it for one parameter.
    """
    return take(profile, snr_score(profile), k=k, parameter_fraction=parameter_fraction)


def ratio_score(profile: GradientProfile) -> np.ndarray:
    """Benefit / interference; 0 where the probes have no gradient at all."""
    return quotient(profile.benefit, profile.interference)


def fisher_score(profile: GradientProfile) -> np.ndarray:
    """Mean squared gradient norm on probes / on reference text."""
    reference = (profile.need("reference_norms") ** 2).mean(axis=0)
    return quotient((profile.probe_norms**2).mean(axis=0), reference)


def agreement_level(profile: GradientProfile, level: str | None) -> str:
    """The level that is meant: where none is given, the finest that was measured."""
    if level is None:
        return "unit" if profile.sign_agreement is None else "parameter"
    if level not in LEVELS:
        raise SelectionError(f"level {level!r} is unknown; choose one of {', '.join(LEVELS)}.")
    return level


def agreement_score(profile: GradientProfile, *, level: str | None = None) -> np.ndarray:
    """Agreement of signs at one of two levels; see ``sign_agreement``."""
    if agreement_level(profile, level) == "parameter":
        return profile.need("sign_agreement")
    # A vector of signs is as long as the root of its size. Entries without any gradient make it
    # shorter; in a unit of the stack there are none to speak of.
    length = profile.need("reference_norms") * np.sqrt(sizes(profile))
    aligned = profile.need("reference_alignment")
    return np.divide(aligned, length, out=np.zeros_like(aligned), where=length > 0).mean(axis=0)


def taylor_score(profile: GradientProfile) -> np.ndarray:
    """First-order importance of the weights for probes / for reference text."""
    probe = np.abs(profile.need("probe_weight_alignment")).mean(axis=0)
    return quotient(probe, np.abs(profile.need("reference_weight_alignment")).mean(axis=0))


def snr_score(profile: GradientProfile) -> np.ndarray:
    """Norm of the mean probe gradient / root of the gradients' mean squared distance from it."""
    mean = profile.need("probe_norm_of_mean")
    # Equal gradients leave nothing but rounding, which may lie below zero.
    variance = np.maximum((profile.probe_norms**2).mean(axis=0) - mean**2, 0.0)
    return quotient(mean, np.sqrt(variance))
