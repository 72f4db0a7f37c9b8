"""From a gradient profile to a layer plan, within a budget where one is given.

Comes in: a ``GradientProfile`` and the name of a policy. Goes out: a ``LayerPlan``. There is no
model in sight. To add a policy, see ``gradloc.selection.policies``.
"""

from gradloc.selection.budget import BUDGETS, Budget, share_of_mass
from gradloc.selection.choosing import (
    COMMON_OPTIONS,
    check_options,
    select_layers,
    step_setting,
)
from gradloc.selection.policies import DEFAULT_POLICY, POLICIES, POSITIONAL, SCORES

__all__ = [
    "BUDGETS",
    "COMMON_OPTIONS",
    "DEFAULT_POLICY",
    "POLICIES",
    "POSITIONAL",
    "SCORES",
    "Budget",
    "check_options",
    "select_layers",
    "share_of_mass",
    "step_setting",
]
