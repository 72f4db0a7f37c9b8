"""Plans beside each other: what each trains, holds of the policy's scores, and costs.

Comes in: a profile (or the units of a model without scores), a policy, limits, a step. Goes
out: ``Planning``. It prints nothing and trains nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gradloc.localization.cost import StepShape, added_by, full_step, predict_cost
from gradloc.localization.plan import LayerPlan
from gradloc.localization.policies import SCORES, Budget, select_layers, share_of_mass
from gradloc.localization.policies.budget import rule_scores
from gradloc.localization.profile import GradientProfile

# The part of the mass whose cheapest plan is shown when no share is asked for.
SHARE = 0.8
# Blocks trained by the plans of position that are shown for comparison. assumption: as in the
# measurements of the cost model.
N_BLOCKS = 4
WITHOUT_ISLAND = "without early island"
# Frozen blocks that part two islands of a plan, at least.
_GAP = 2


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
    predicted: dict
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
        island: What the units below the largest gap of the policy's plan buy and cost
            (``share_of_mass``, ``time_ratio``, ``cached_time_ratio``, ``memory_ratio``: what would
            be saved without them); empty where there is no such gap.
        added: What training the embedding or the head as well would add to the chosen plan.
        kept_share: The share whose cheapest plan is among the candidates; ``None`` without scores.
    """

    candidates: tuple[Candidate, ...]
    chosen: int
    step: StepShape
    island: dict = field(default_factory=dict)
    added: dict = field(default_factory=dict)
    kept_share: float | None = None

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {
            "step": {**vars(self.step), "machine": vars(self.step.machine)},
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "chosen": self.candidates[self.chosen].name,
            "early_island": self.island,
            "added_by_training": self.added,
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
    table = _Rows(profile, policy, step)
    if plan is not None:
        plan.check_units(profile.units, "profile" if table.has_scores else "model")
        table.add("your plan", plan)
    rule = table.select(policy, **options)
    table.scores = table.mass(rule)
    first = table.add(policy, rule)
    island = _early_island(rule)
    if island:
        scale = {name: 0.0 if name in island else s for name, s in rule.scale.items()}
        table.add(WITHOUT_ISLAND, replace(rule, scale=scale))
    share = limits.share or SHARE
    if table.has_scores and (limits.share is None or limits.given.keys() == {"share"}):
        table.add(f"{share:.0%} of its mass", table.select(policy, share=share, **options))
    if limits and limits.given.keys() != {"share"}:
        table.add(_asked(limits, step.cached), table.select(policy, **limits.given, **options))
    chosen = len(table.rows) - 1 if limits else 0 if plan is not None else first
    _add_positions(table, policy)
    return Planning(
        candidates=tuple(table.rows),
        chosen=chosen,
        step=step,
        island=_island_cost(table, rule, island),
        added=added_by(profile.units, table.rows[chosen].plan.scale, profile.shape, step),
        kept_share=share if table.has_scores else None,
    )


def units_only(units: tuple, shape: dict, granularity: str, model: str) -> GradientProfile:
    """A model's units and sizes without any measurement: enough for plans of position."""
    return GradientProfile(
        units=units,
        probe_norms=np.zeros((1, len(units))),
        granularity=granularity,
        model=model,
        shape=shape,
    )


class _Rows:
    """Candidates as they are found, all under one step."""

    def __init__(self, profile: GradientProfile, policy: str, step: StepShape):
        self.profile, self.policy, self.step = profile, policy, step
        self.has_scores = policy in SCORES
        self.scores: np.ndarray | None = None
        self.rows: list[Candidate] = []

    def select(self, policy: str, **options: object) -> LayerPlan:
        return select_layers(self.profile, policy, step=self.step, **options)

    def mass(self, rule: LayerPlan) -> np.ndarray | None:
        """Scores of the units that the rule trains; also completes rows that came before."""
        if not self.has_scores:
            return None
        scale = np.array([rule.scale[name] for name in self.profile.names])
        scores = rule_scores(self.profile, self.policy, scale, rule.options)
        self.rows = [replace(row, share=self._share(row.plan, scores)) for row in self.rows]
        return scores

    def add(self, name: str, plan: LayerPlan, *, plain: bool = False) -> int:
        """Add a plan with its costs; its place is returned.

        Args:
            name: Its name.
            plan: The plan.
            plain: Trained by the plain Trainer, without gradloc's loss or cache.
        """
        units, shape = self.profile.units, self.profile.shape
        step = full_step(self.step) if plain else replace(self.step, cached=False)
        predicted = predict_cost(units, plan.scale, shape, step)
        cached = None
        if predicted["lowest_block"] != 0:
            with_cache = replace(step, cached=True)
            cached = predict_cost(units, plan.scale, shape, with_cache)["time_ratio"]
        share = None if self.scores is None else self._share(plan, self.scores)
        self.rows.append(Candidate(name, replace(plan, units=units), predicted, cached, share))
        return len(self.rows) - 1

    def _share(self, plan: LayerPlan, scores: np.ndarray) -> float:
        trained = np.array([plan.scale[name] > 0 for name in self.profile.names])
        return round(share_of_mass(scores, trained), 4)


def _add_positions(table: _Rows, policy: str) -> None:
    """Plans of position, which need no profile, and full training."""
    depth = 1 + max(unit.block for unit in table.profile.units if unit.in_stack)
    k = min(N_BLOCKS, depth)
    if policy != "top_k":
        table.add(f"last {k} blocks", table.select("top_k", k=k))
    if not table.has_scores:
        table.add(f"first {k} blocks", table.select("bottom_k", k=k))
        if table.profile.granularity == "sublayer":
            table.add("MLPs of the last third", table.select("last_third_mlp"))
    table.add("full training", table.select("all"), plain=True)


def _asked(limits: Budget, cached: bool) -> str:
    words = {"budget": "cached time" if cached else "time", "memory_budget": "memory"}
    parts = [f"{words[n]} ≤ {limit:g}" for n, limit in limits.given.items() if n in words]
    if limits.share is not None:
        parts.append(f"mass ≥ {limits.share:.0%}")
    return ", ".join(parts)


def _early_island(plan: LayerPlan) -> Sequence[str]:
    """Trained units below the largest gap between trained blocks; none where gaps are small."""
    trained = set(plan.trained)
    blocks = sorted({u.block for u in plan.units if u.in_stack and u.name in trained})
    gaps = [(above - below - 1, above) for below, above in zip(blocks, blocks[1:], strict=False)]
    # Of equal gaps the highest, which leaves the cheapest rest.
    width, first = max(gaps, default=(0, 0))
    if width < _GAP:
        return ()
    return tuple(u.name for u in plan.units if u.in_stack and u.block < first and u.name in trained)


def _island_cost(table: _Rows, rule: LayerPlan, island: Sequence[str]) -> dict:
    """What leaving the island out gives up and saves."""
    if not island or not table.profile.shape:
        return {}
    rows = {row.name: row for row in table.rows}
    whole, rest = rows[rule.policy], rows[WITHOUT_ISLAND]

    def saved(name: str) -> float:
        return round(whole.predicted[name] - rest.predicted[name], 4)

    # A plan with nothing below its lowest block has no prefix to cache.
    cached = [
        row.predicted["time_ratio"] if row.cached_time_ratio is None else row.cached_time_ratio
        for row in (whole, rest)
    ]
    return {
        "units": list(island),
        "share_of_mass": None if whole.share is None else round(whole.share - rest.share, 4),
        "time_ratio": saved("time_ratio"),
        "cached_time_ratio": round(cached[0] - cached[1], 4),
        "memory_ratio": saved("memory_ratio"),
    }
