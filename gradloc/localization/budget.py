"""The units that hold the most score within a time or memory budget.

Time and memory are linear in two 0-1 variables a unit, "is trained" and "is reached by the backward
pass" (``cost.prediction``), so the best choice is a small integer linear program. HiGHS
(``scipy.optimize.milp``) solves it exactly in milliseconds, where a greedy choice by density can
miss by a whole unit.
"""

from dataclasses import dataclass

import numpy as np

from gradloc.errors import SelectionError
from gradloc.localization.cost.prediction import full_training, memory_rows, time_rows
from gradloc.localization.cost.step_shape import StepShape
from gradloc.localization.cost.work import step_work
from gradloc.localization.policies import SCORES
from gradloc.localization.profile import GradientProfile
from gradloc.models.unit_info import UnitInfo
from gradloc.utils.numbers import check_number

BUDGETS = ("budget", "memory_budget", "share")

# Above it a percentage is meant. A budget above 1 may bind: steps with a KL pass on short batches
# cost more than full training. assumption
_MAX_RATIO = 10.0
# Between choices that hold equal mass the cheaper is taken; a difference in mass goes first.
_TIE = 1e-7
# HiGHS keeps constraints up to 1e-7 or so, and a mass that is met exactly must count as met.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Budget:
    """Limits of a selection; each may be ``None``.

    Args:
        budget: Largest step time, as a ratio to full training (0.5: half as long).
        memory_budget: Largest memory above the weights, as a ratio to full training.
        share: Least part of the policy's mass, 0-1.

    Raises:
        SelectionError: A limit that is no positive number, a share above 1, or a ratio above 10.
    """

    budget: float | None = None
    memory_budget: float | None = None
    share: float | None = None

    def __post_init__(self):
        for name, value in self.given.items():
            what, high = "a ratio to full training (0.5: half of it)", _MAX_RATIO
            if name == "share":
                what, high = "a part of the mass (0.8: 80 % of it)", 1.0
            check_number(f"{name}, {what},", value, 0, high, above=True, error=SelectionError)

    def __bool__(self) -> bool:
        return bool(self.given)

    @property
    def given(self) -> dict[str, float]:
        """The limits that are set, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


def rule_scores(profile: GradientProfile, policy: str, scale: np.ndarray) -> np.ndarray:
    """Scores of the units of the stack that a policy trains, 0 for all others, (n_units,).

    Their sum is the mass that budgets share out.

    Args:
        profile: The measured profile.
        policy: Policy whose scores are meant.
        scale: The scales that it gave, (n_units,).

    Raises:
        SelectionError: The policy ranks units by no score.
    """
    if policy not in SCORES:
        raise SelectionError(
            f"policy {policy!r} ranks units by no score, so a budget cannot choose among them. "
            f"Policies with scores: {', '.join(SCORES)}."
        )
    in_stack = np.array([unit.in_stack for unit in profile.units])
    score = SCORES[policy].values(profile)
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
    from scipy.optimize import Bounds, LinearConstraint, milp  # slow to import, seldom needed

    units, mass, n = profile.units, scores / scores.sum(), len(scores)
    seconds, n_bytes = full_training(units, profile.shape, step)
    work = step_work(units, profile.shape, step)
    times, memory = time_rows(units, work, step), memory_rows(work)
    alone = np.eye(n, dtype=bool)[scores > 0]
    costs = {
        "budget": [times.of(work, unit).sum() / seconds for unit in alone],
        "memory_budget": [memory.of(work, unit).max() / n_bytes for unit in alone],
    }
    names = [unit.name for unit, score in zip(units, scores, strict=True) if score > 0]
    _refuse_too_small(names, costs, limits)
    time = np.r_[times.trained.sum(axis=0), times.reached.sum(axis=0)] / seconds
    constraints = [LinearConstraint(_reach(units), lb=0.0)]
    if limits.budget is not None:
        fixed = times.fixed.sum() / seconds
        constraints.append(LinearConstraint(time, ub=limits.budget - fixed))
    if limits.memory_budget is not None:
        rows = np.hstack([memory.trained, memory.reached]) / n_bytes
        allowed = limits.memory_budget - memory.fixed / n_bytes
        # SciPy's stub knows no array here; its documentation asks for one.
        constraints.append(LinearConstraint(rows, ub=allowed))  # type: ignore[arg-type]
    objective = np.r_[-mass, 0 * mass] + _TIE * time
    if limits.share is not None:
        constraints.append(LinearConstraint(np.r_[mass, 0 * mass], lb=limits.share - _ROUNDING))
        objective = time
    solved = milp(
        objective,
        # "Is reached" may be a fraction: _reach makes it 0 or 1 as soon as "is trained" is.
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


def _reach(units: tuple[UnitInfo, ...]) -> np.ndarray:
    """Rows >= 0: the backward pass reaches what is trained, and all that lies above it."""
    stack = [i for i, unit in enumerate(units) if unit.in_stack]
    n, rows = len(units), []
    for place, i in enumerate(stack):
        for lower in (i, *(n + below for below in stack[max(0, place - 1) : place])):
            row = np.zeros(2 * n)
            row[n + i], row[lower] = 1.0, -1.0
            rows.append(row)
    return np.array(rows)


def _refuse_too_small(names: list[str], costs: dict[str, list[float]], limits: Budget) -> None:
    """Say what the cheapest unit costs where none fits."""
    for name, what in (("budget", "time"), ("memory_budget", "memory")):
        limit, cheapest = getattr(limits, name), int(np.argmin(costs[name]))
        if limit is not None and costs[name][cheapest] > limit:
            raise SelectionError(
                f"no unit fits within {name} {limit:g} ({what} of full training); the cheapest "
                f"of those that the policy trains, {names[cheapest]}, costs "
                # Rounded up, so that asking for the figure that is shown succeeds.
                f"{np.ceil(costs[name][cheapest] * 100) / 100:.2f}."
            )
