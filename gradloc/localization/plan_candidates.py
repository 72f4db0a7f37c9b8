"""Plans beside each other: what each trains, holds of the policy's scores, and costs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradloc.localization.budget import Budget, rule_scores, share_of_mass
from gradloc.localization.cost.prediction import PredictedCost, predict_cost
from gradloc.localization.cost.step_shape import StepShape
from gradloc.localization.layer_selection import select_layers
from gradloc.localization.plan import LayerPlan
from gradloc.localization.policies import SCORES
from gradloc.localization.profile import GradientProfile
from gradloc.models.unit_info import Granularity, ModelShape, UnitInfo

# The part of the mass whose cheapest plan is shown when no share is asked for.
SHARE = 0.8
# Blocks trained by the plans of position that are shown for comparison. assumption: as in the
# measurements of the cost model.
N_BLOCKS = 4


@dataclass(frozen=True)
class Candidate:
    """One plan.

    Args:
        name: What it is, in a few words.
        plan: The plan.
        predicted: As ``predict_cost``, without a cache.
        cached_time_ratio: Step time against full training with the blocks below the lowest
            trained one cached; ``None`` where nothing lies below it.
        share: Part of the policy's mass that it holds, 0-1; ``None`` without scores.
    """

    name: str
    plan: LayerPlan
    predicted: PredictedCost
    cached_time_ratio: float | None
    share: float | None

    def to_dict(self) -> dict:
        """The row as plain values."""
        return {
            "name": self.name,
            "trained": list(self.plan.trained),
            "share_of_mass": self.share,
            **self.predicted,
            "cached_time_ratio": self.cached_time_ratio,
        }


@dataclass(frozen=True)
class Planning:
    """Plans beside each other.

    Args:
        candidates: The plans; the first is the policy's own, or the user's.
        chosen: Place of the one that the user asked for.
        step: What the costs hold for.
        kept_share: The share whose cheapest plan is among the candidates; ``None`` without scores.
    """

    candidates: tuple[Candidate, ...]
    chosen: int
    step: StepShape
    kept_share: float | None = None

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {
            "step": {**vars(self.step), "machine": vars(self.step.machine)},
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "chosen": self.candidates[self.chosen].name,
        }


def plan_candidates(
    profile: GradientProfile,
    policy: str,
    *,
    limits: Budget | None = None,
    step: StepShape | None = None,
    plan: LayerPlan | None = None,
    **options: object,
) -> Planning:
    """Put the plans beside each other that are worth comparing.

    Args:
        profile: The profile; of a model without scores see ``units_only``.
        policy: Policy whose plan is taken apart.
        limits: What the user can afford or wants to keep.
        step: How steps are set up.
        plan: A plan of the user's, to stand among the others.
        **options: Options of the policy.

    Raises:
        SelectionError: As ``select_layers``.
        PlanMismatchError: The user's plan is for a model with other units.
    """
    step, limits = step or StepShape(label_loss=True), limits or Budget()
    has_scores = policy in SCORES
    if plan is not None:
        plan.check_units(profile.units, "profile" if has_scores else "model")

    def select(policy: str, **options: Any) -> LayerPlan:
        return select_layers(profile, policy, step=step, **options)

    rule = select(policy, **options)
    plans = [] if plan is None else [("your plan", plan)]
    plans.append((policy, rule))
    share = limits.share or SHARE
    only_share = limits.given.keys() == {"share"}
    if has_scores and (limits.share is None or only_share):
        plans.append((f"{share:.0%} of its mass", select(policy, share=share, **options)))
    if limits and not only_share:
        name = _asked(limits, step.cached)
        plans.append((name, select(policy, **limits.given, **options)))
    chosen = len(plans) - 1 if limits else 0
    plans += _positions(profile, policy, select)
    mass = rule_scores(profile, policy, _scales(rule, profile)) if has_scores else None
    rows = [_candidate(name, plan, profile, mass, step) for name, plan in plans]
    # Full training is that of the plain Trainer, without gradloc's loss or cache.
    rows.append(_candidate("full training", select("all"), profile, mass, step.plain))
    return Planning(
        candidates=tuple(rows),
        chosen=chosen,
        step=step,
        kept_share=share if has_scores else None,
    )


def units_only(
    units: tuple[UnitInfo, ...], shape: ModelShape, granularity: Granularity, model: str
) -> GradientProfile:
    """A model's units and sizes without any measurement: enough for plans of position."""
    return GradientProfile(
        units=units,
        probe_norms=np.zeros((1, len(units))),
        granularity=granularity,
        model=model,
        shape=shape,
    )


def _candidate(
    name: str, plan: LayerPlan, profile: GradientProfile, mass: np.ndarray | None, step: StepShape
) -> Candidate:
    """A plan with its costs and its share of the mass."""

    def cost(cached: bool) -> PredictedCost:
        units, shape = profile.units, profile.shape
        return predict_cost(units, plan.scale, shape, replace(step, cached=cached))

    predicted = cost(cached=False)
    return Candidate(
        name,
        replace(plan, units=profile.units),
        predicted,
        None if predicted.get("lowest_block") == 0 else cost(cached=True).get("time_ratio"),
        None if mass is None else round(share_of_mass(mass, _scales(plan, profile) > 0), 4),
    )


def _scales(plan: LayerPlan, profile: GradientProfile) -> np.ndarray:
    return np.array([plan.scale[name] for name in profile.names])


def _positions(
    profile: GradientProfile, policy: str, select: Callable[..., LayerPlan]
) -> list[tuple[str, LayerPlan]]:
    """Plans of position, which need no measurement."""
    k = min(N_BLOCKS, 1 + max(u.block for u in profile.units if u.block is not None))
    plans = [] if policy == "top_k" else [(f"last {k} blocks", select("top_k", k=k))]
    if policy not in SCORES:
        plans.append((f"first {k} blocks", select("bottom_k", k=k)))
        if profile.granularity == "sublayer":
            plans.append(("MLPs of the last third", select("last_third_mlp")))
    return plans


def _asked(limits: Budget, cached: bool) -> str:
    words = {"budget": "cached time" if cached else "time", "memory_budget": "memory"}
    parts = [f"{words[n]} ≤ {limit:g}" for n, limit in limits.given.items() if n in words]
    if limits.share is not None:
        parts.append(f"mass ≥ {limits.share:.0%}")
    return ", ".join(parts)
