"""From a gradient profile to a layer plan, within a budget where one is given.

Comes in: a ``GradientProfile`` and the name of a policy. Goes out: a ``LayerPlan``. There is no
model in sight. To add a policy, see ``gradloc.localization.policies.policies``.
"""

from gradloc.localization.policies.budget import BUDGETS, Budget, share_of_mass
from gradloc.localization.policies.choosing import (
    COMMON_OPTIONS,
    callback_step,
    check_options,
    select_layers,
)
from gradloc.localization.policies.policies import DEFAULT_POLICY, POLICIES, POSITIONAL, SCORES

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
    "callback_step",
]
