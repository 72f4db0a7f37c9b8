"""From a profile and the name of a policy to a layer plan, with its reliability and its cost."""

import inspect
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from gradloc.errors import GradlocError, SelectionError
from gradloc.localization.budget import BUDGETS, Budget, cheapest_best, rule_scores
from gradloc.localization.cost.prediction import predict_cost
from gradloc.localization.cost.step_shape import StepShape
from gradloc.localization.plan import LayerPlan
from gradloc.localization.policies import DEFAULT_POLICY, SCORES, policy_named
from gradloc.localization.profile import GradientProfile
from gradloc.localization.reliability import reliability
from gradloc.utils.names import did_you_mean

# Kinds of unit to which a choice may be restricted.
KINDS = ("attention", "mlp")
# Options that every policy takes beside its own.
COMMON_OPTIONS = ("only", *BUDGETS)


def check_options(policy: str, options: Iterable[str]) -> None:
    """Refuse a policy, or names of its options, that do not exist; it needs no profile.

    Raises:
        SelectionError: One does not.
    """
    known = [*list(inspect.signature(policy_named(policy)).parameters)[1:], *COMMON_OPTIONS]
    for option in options:
        if option not in known:
            raise SelectionError(
                f"policy {policy!r} has no option {option!r}. {did_you_mean(option, known)}"
            )


def callback_step(*, projected: bool = False, kl_tokens: float = 0.0) -> StepShape:
    """How GradLocCallback trains where the Trainer's own loss is in use."""
    return StepShape(label_loss=True, projected=projected, kl_tokens=kl_tokens)


def select_layers(
    profile: GradientProfile,
    policy: str = DEFAULT_POLICY,
    *,
    only: str | None = None,
    budget: float | None = None,
    memory_budget: float | None = None,
    share: float | None = None,
    step: StepShape | None = None,
    **options: object,
) -> LayerPlan:
    """Choose which units to train.

    Only units of the block stack are chosen among; embeddings, head and final norm stay frozen
    (but for the policy ``all``), since training a tied head forces the backward pass through the
    whole depth.

    A low unit is expensive: the backward pass has to come down to it, and the cached forward pass
    starts no higher. ``budget``, ``memory_budget`` and ``share`` weigh that: among the units that
    the policy trains, those are kept that hold the most of its **mass** (the sum of the scores
    of the units it trains) at the least cost. Nothing is added that the policy would freeze.

    Args:
        profile: The measured profile.
        policy: A key of ``POLICIES``, or an import path (``my_module:policy``).
        only: ``mlp`` or ``attention``: choose among units of this kind and freeze all others.
            Means, ranks and sizes by which the policy decides are then those of this kind.
        budget: Largest predicted step time, as a ratio to full training; the kept mass is
            maximised.
        memory_budget: Largest predicted memory above the weights, as a ratio to full training.
        share: Least part of the mass to keep, 0-1; the predicted step time is minimised.
        step: How the steps will be set up; what the predicted cost holds for. ``None``: as
            under ``GradLocCallback``, not projected.
        **options: Options of that policy, such as ``k=10``.

    Returns:
        A plan with a scale for every unit, the scores, how far they can be trusted, and the
        predicted cost.

    Raises:
        SelectionError: Unknown policy or option, an option out of range, a profile that lacks
            what the policy needs, a kind of which no unit would be trained, or a budget in
            which no unit fits.

    Example:
        >>> select_layers(profile, budget=0.5).predicted["time_ratio"] <= 0.5   # doctest: +SKIP
        True
    """
    step = step or callback_step()
    check_options(policy, options)
    choose = policy_named(policy)
    candidates = _of_kind(profile, only)
    try:
        scale = np.asarray(choose(candidates, **options), dtype=np.float64)
    except SelectionError:
        raise
    except (GradlocError, TypeError, ValueError) as error:
        raise SelectionError(f"policy {policy!r}: {error}") from error
    if scale.shape != (len(profile.units),):
        raise SelectionError(
            f"policy {policy!r} must return one scale for each of {len(profile.units)} units; "
            f"found an array of shape {scale.shape}."
        )
    if only is not None:
        # Such as `all`, which does not ask what is chosen among.
        scale = np.where([unit.in_stack for unit in candidates.units], scale, 0.0)
        if not scale.any() and choose(profile, **options).any():
            raise SelectionError(
                f"policy {policy!r} with only={only!r} trains no unit of this kind."
            )
    limits = Budget(budget, memory_budget, share)
    if limits:
        scores = rule_scores(candidates, policy, scale)
        scale = np.where(cheapest_best(profile, scores, limits, step), scale, 0.0)
    scales = dict(zip(profile.names, scale.tolist(), strict=True))
    scored: dict[str, Any] = {}
    if policy in SCORES:
        name, values = SCORES[policy]
        scored = {
            "score_name": name,
            "scores": dict(zip(profile.names, values(candidates).tolist(), strict=True)),
            "reliability": reliability(candidates, values),
        }
    return LayerPlan(
        scale=scales,
        units=profile.units,
        policy=policy,
        options={**options, **({} if only is None else {"only": only}), **limits.given},
        granularity=profile.granularity,
        model=profile.model,
        predicted=predict_cost(profile.units, scales, profile.shape, step),
        **scored,
    )


def _of_kind(profile: GradientProfile, only: str | None) -> GradientProfile:
    """The profile with all units but those of one kind outside the stack, so not chosen among."""
    if only is None:
        return profile
    if only not in KINDS:
        raise SelectionError(f"only={only!r} is no kind of unit. {did_you_mean(only, KINDS)}")
    units = tuple(
        unit if unit.kind == only else replace(unit, block=None) for unit in profile.units
    )
    if not any(unit.in_stack for unit in units):
        raise SelectionError(
            f"only={only!r}: this profile has no unit of this kind; its granularity is "
            f"{profile.granularity!r}. Measure with granularity 'sublayer'."
        )
    return replace(profile, units=units)
