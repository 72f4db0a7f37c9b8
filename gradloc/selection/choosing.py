"""From a profile and the name of a policy to a layer plan.

Comes in: a ``GradientProfile``, a policy, its options, a budget. Goes out: a ``LayerPlan`` with
scores, reliability and predicted cost. It ranks nothing itself (``policies`` does).
"""

import inspect

import numpy as np

from gradloc.cost import StepSetting, predict_cost
from gradloc.errors import SelectionError
from gradloc.plan import LayerPlan
from gradloc.profile import GradientProfile
from gradloc.reliability import reliability
from gradloc.selection.budget import Budget, cheapest_best, rule_scores
from gradloc.selection.policies import DEFAULT_POLICY, SCORES, did_you_mean, policy_named

# How GradLocCallback trains where the Trainer's own loss is in use.
SETTING = StepSetting(label_loss=True)


def select_layers(
    profile: GradientProfile,
    policy: str = DEFAULT_POLICY,
    *,
    budget: float | None = None,
    memory_budget: float | None = None,
    share: float | None = None,
    setting: StepSetting = SETTING,
    **options: object,
) -> LayerPlan:
    """Choose which units to train.

    Only units of the block stack are chosen among; embeddings, head and final norm stay frozen
    (but for the policy ``all``), since training a tied head forces the backward pass through the
    whole depth.

    A low unit is dear: the backward pass has to come down to it, and the cached forward pass
    starts no higher. ``budget``, ``memory_budget`` and ``share`` weigh that: among the units that
    the policy trains, those are kept that hold the most of its **mass** (the sum of the scores
    of the units it trains) at the least cost. Nothing is added that the policy would freeze.

    Args:
        profile: The measured profile.
        policy: A key of ``POLICIES``.
        budget: Largest predicted step time, as a ratio to full training; the kept mass is
            maximised.
        memory_budget: Largest predicted memory above the weights, as a ratio to full training.
        share: Least part of the mass to keep, 0-1; the predicted step time is minimised.
        setting: How the steps will be set up; what the predicted cost holds for.
        **options: Options of that policy, such as ``k=10``.

    Returns:
        A plan with a scale for every unit, the scores, how far they can be trusted, and the
        predicted cost.

    Raises:
        SelectionError: Unknown policy or option, an option out of range, a profile that lacks
            what the policy needs, or a budget in which no unit fits.

    Example:
        >>> select_layers(profile, budget=0.5).predicted["time_ratio"] <= 0.5   # doctest: +SKIP
        True
    """
    choose = policy_named(policy)
    known = list(inspect.signature(choose).parameters)[1:]
    for option in options:
        if option not in known:
            raise SelectionError(
                f"policy {policy!r} has no option {option!r}.{did_you_mean(option, known)} "
                f"Options: {', '.join(known) or 'none'}."
            )
    try:
        scale = np.asarray(choose(profile, **options), dtype=np.float64)
    except TypeError as error:
        raise SelectionError(f"policy {policy!r}: {error}") from error
    limits = Budget(budget, memory_budget, share)
    if limits:
        scores = rule_scores(profile, policy, scale)
        scale = np.where(cheapest_best(profile, scores, limits, setting), scale, 0.0)
    scales = {name: float(value) for name, value in zip(profile.names, scale, strict=True)}
    score_name, score = SCORES.get(policy, ("", None))
    return LayerPlan(
        scale=scales,
        units=profile.units,
        policy=policy,
        options={**options, **limits.given},
        granularity=profile.granularity,
        model=profile.model,
        score_name=score_name,
        scores=dict(zip(profile.names, score(profile).tolist(), strict=True)) if score else {},
        reliability=reliability(profile, score) if score else {},
        predicted=predict_cost(profile.units, scales, profile.shape, **vars(setting)),
    )
