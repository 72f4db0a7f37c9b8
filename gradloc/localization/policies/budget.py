"""The units that hold the most score within a time or memory budget.

Comes in: a profile, the scores of the units a policy trains, a budget. Goes out: which of them to
train. It scores nothing and knows no policy.

Time is what the lowest trained unit costs (the backward pass comes down to it) plus a sum over the
trained units; memory is the largest of several such sums. Both are linear in two 0-1 variables a
unit, "is trained" and "is reached by the backward pass", so the best choice is a small integer
linear program. HiGHS (``scipy.optimize.milp``) solves it exactly in milliseconds, where a greedy
choice by density can miss by a whole unit and dynamic programming would round costs and need a
dimension for each budget.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from gradloc.errors import SelectionError
from gradloc.localization.cost import (
    StepShape,
    StepWork,
    full_step,
    step_memory,
    step_seconds,
    step_work,
)
from gradloc.localization.policies.policies import SCORES, score_of
from gradloc.localization.profile import GradientProfile

BUDGETS = ("budget", "memory_budget", "share")

# Above it a percentage is meant. A budget above 1 may bind: steps that hold the model to its base
# on short batches cost more than full training. assumption
_MAX_RATIO = 10.0
# Between choices that hold equal mass the cheaper is taken; a difference in mass goes first.
_TIE = 1e-7
# HiGHS keeps constraints up to 1e-7 or so, and a mass that is met exactly must count as met.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Budget:
    """Limits of a selection; each may be ``None``.

    Args:
        budget: Largest step time, ratio to full training.
        memory_budget: Largest memory above the weights, ratio to full training.
        share: Least part of the policy's mass, 0-1.

    Raises:
        SelectionError: A limit that is no positive number, a share above 1, or a ratio above 10.
    """

    budget: float | None = None
    memory_budget: float | None = None
    share: float | None = None

    def __post_init__(self):
        for name, value in self.given.items():
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not 0 < value < float("inf"):
                raise SelectionError(
                    f"{name} must be a number above 0, such as 0.5; found {value!r}."
                )
            if name != "share" and value > _MAX_RATIO:
                raise SelectionError(
                    f"{name} is a ratio to full training, such as 0.5 for half of it; found "
                    f"{value!r}."
                )
        if self.share is not None and self.share > 1:
            raise SelectionError(
                f"share must lie in (0, 1], such as 0.8 for 80 % of the mass; found {self.share!r}."
            )

    def __bool__(self) -> bool:
        return bool(self.given)

    @property
    def given(self) -> dict[str, float]:
        """The limits that are set, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


def rule_scores(
    profile: GradientProfile, policy: str, scale: np.ndarray, options: dict | None = None
) -> np.ndarray:
    """Scores of the units of the stack that a policy trains, 0 for all others, (n_units,).

    Their sum is the mass that budgets share out.

    Args:
        profile: The measured profile.
        policy: Policy whose scores are meant.
        scale: The scales that it gave, (n_units,).
        options: The policy's options; those that its score takes count.

    Raises:
        SelectionError: The policy ranks units by no score.
    """
    if policy not in SCORES:
        raise SelectionError(
            f"policy {policy!r} ranks units by no score, so a budget cannot choose among them. "
            f"Policies with scores: {', '.join(SCORES)}."
        )
    score = score_of(policy, options or {})(profile)
    in_stack = np.array([unit.in_stack for unit in profile.units])
    return np.where(in_stack & (scale > 0), np.maximum(score, 0.0), 0.0)


def share_of_mass(scores: np.ndarray, trained: np.ndarray) -> float:
    """Part of a policy's mass that some units hold, 0-1.

    Args:
        scores: As from ``rule_scores``: a unit that the policy freezes has none.
        trained: Which units are trained, (n_units,).
    """
    total = scores.sum()
    return float(scores[trained].sum() / total) if total else 0.0


def cheapest_best(
    profile: GradientProfile, scores: np.ndarray, limits: Budget, step: StepShape
) -> np.ndarray:
    """Choose units: the most mass within the budgets, or the least time that holds a share.

    With ``share``, time is minimised (and the budgets are kept as well); without it, mass is
    maximised. Units with score 0 are never chosen.

    Args:
        profile: For its units and the sizes of the model.
        scores: Score of each unit, (n_units,); see ``rule_scores``.
        limits: At least one limit.
        step: How steps are set up.

    Returns:
        Which units are trained, (n_units,).

    Raises:
        SelectionError: No unit fits, no choice holds the share within the budgets, or the profile
            lacks the sizes of the model.
    """
    if not profile.shape:
        raise SelectionError(
            "this profile lacks the sizes of its model, so no cost can be predicted. Measure again."
        )
    if not scores.sum():
        raise SelectionError("the policy trains no unit with a score, so no budget can be kept.")
    problem = _Problem(profile, step)
    _refuse_too_small(problem, scores, limits)
    mass = scores / scores.sum()
    n = len(mass)
    time = problem.time_row()
    constraints = [problem.reach()]
    if limits.budget is not None:
        constraints.append(LinearConstraint(time, ub=limits.budget - problem.fixed))
    if limits.memory_budget is not None:
        constraints.append(problem.within_memory(limits.memory_budget))
    if limits.share is not None:
        constraints.append(LinearConstraint(np.r_[mass, 0 * mass], lb=limits.share - _ROUNDING))
        objective = time
    else:
        objective = np.r_[-mass, 0 * mass] + _TIE * time
    solved = milp(
        objective,
        # "Is reached" may be a fraction: reach() makes it 0 or 1 as soon as "is trained" is.
        integrality=np.r_[np.ones(n), np.zeros(n)],
        bounds=Bounds(0, np.r_[(mass > 0).astype(float), np.ones(n)]),
        constraints=constraints,
        options={"mip_rel_gap": 0.0},
    )
    if solved.x is None:
        asked = ", ".join(f"{name} {value:g}" for name, value in limits.given.items())
        raise SelectionError(
            f"no choice of units keeps {asked} together. Ask for a smaller share or allow more."
        )
    return solved.x[:n] > 0.5


class _Problem:
    """Costs as rows over the variables (is trained, is reached), each relative to full training.

    Attributes:
        fixed: Time that every plan costs: head, loss and the forward pass that is not cached.
    """

    def __init__(self, profile: GradientProfile, step: StepShape):
        self.units, self.step = profile.units, step
        plain, everything = full_step(step), np.ones(len(profile.units), dtype=bool)
        full_work = step_work(self.units, profile.shape, plain)
        self.work: StepWork = step_work(self.units, profile.shape, step)
        self.full_seconds = step_seconds(self.units, full_work, everything, plain).total
        self.full_bytes = step_memory(full_work, everything)
        work = self.work
        fixed = work.head_forward + work.head_through + work.loss_backward
        fixed += 0 if step.cached else work.forward.sum()
        if work.kl is not None:
            of_pass, passes = work.kl
            head = of_pass.head_forward + of_pass.head_through + of_pass.loss_backward
            fixed += passes * (head + of_pass.forward.sum())
        self.fixed = fixed / self.full_seconds

    def time_row(self) -> np.ndarray:
        """Time of each variable, (2 n_units,)."""
        work = self.work
        reached = work.through.copy()
        if self.step.cached:
            # A block runs forward if anything up to its last unit is trained.
            last = {unit.block: i for i, unit in enumerate(self.units) if unit.in_stack}
            for i, unit in enumerate(self.units):
                reached[last.get(unit.block, i)] += work.forward[i]
        trained = work.weights + work.update + work.projection
        if work.kl is not None:
            of_pass, passes = work.kl
            trained, reached = (
                trained + passes * of_pass.weights,
                reached + passes * of_pass.through,
            )
        return np.r_[trained, reached] / self.full_seconds

    def within_memory(self, limit: float) -> LinearConstraint:
        """Memory at every moment of a step that may be the fullest, within a limit.

        Args:
            limit: Ratio to full training.
        """
        work = self.work
        always = 2 * work.gradient + work.projections + work.start
        moments = _backward_moments(work)
        moments.append((work.gradient + work.copied, 0 * work.kept, 0.0))  # the optimizer's step
        if work.kl is not None:  # its gradients are there when the others' backward pass begins
            moments += _backward_moments(work.kl[0])
            moments.append((work.gradient + work.kept_trained, work.kept, work.logits))
        rows = np.array([np.r_[always + trained, reached] for trained, reached, _ in moments])
        allowed = limit - np.array([fixed for *_, fixed in moments]) / self.full_bytes
        return LinearConstraint(rows / self.full_bytes, ub=allowed)

    def reach(self) -> LinearConstraint:
        """The backward pass reaches what is trained, and all that lies above."""
        n = len(self.units)
        rows, below = [], None
        for i in (i for i, unit in enumerate(self.units) if unit.in_stack):
            for other in (i, None if below is None else n + below):
                if other is not None:
                    row = np.zeros(2 * n)
                    row[n + i], row[other] = 1.0, -1.0
                    rows.append(row)
            below = i
        return LinearConstraint(np.array(rows), lb=0.0)

    def alone(self, index: int) -> dict[str, float]:
        """Time and memory of training one unit, by the name of the budget they count in."""
        trained = np.arange(len(self.units)) == index
        seconds = step_seconds(self.units, self.work, trained, self.step)
        return {
            "budget": seconds.total / self.full_seconds,
            "memory_budget": step_memory(self.work, trained) / self.full_bytes,
        }


def _backward_moments(work: StepWork) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Bytes of trained units, of reached ones and in any case, as a backward pass goes down."""
    moments = [(work.kept_trained, work.kept, work.logits)]
    for depth in np.unique(work.depth):
        waiting, done = work.depth < depth, work.depth >= depth
        trained = work.gradient * done + work.kept_trained * waiting
        moments.append((trained, work.kept * waiting, 0.0))
    return moments


def _refuse_too_small(problem: _Problem, scores: np.ndarray, limits: Budget) -> None:
    """Say what the cheapest unit costs where none fits."""
    costs = {int(i): problem.alone(int(i)) for i in np.flatnonzero(scores)}
    for name, what in (("budget", "time"), ("memory_budget", "memory")):
        limit = getattr(limits, name)
        cheapest = min(costs, key=lambda i: costs[i][name])
        if limit is not None and costs[cheapest][name] > limit:
            raise SelectionError(
                f"no unit fits within {name} {limit:g} ({what} of full training); the cheapest "
                f"of those that the policy trains, {problem.units[cheapest].name}, costs "
                f"{_up(costs[cheapest][name]):.2f}."
            )


def _up(value: float) -> float:
    """Rounded up to two digits, so that asking for the figure that is shown succeeds."""
    return np.ceil(value * 100) / 100
