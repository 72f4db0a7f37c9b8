"""From a gradient profile to a layer plan; ``policy_table`` lists the policies."""

from gradloc.localization.policies.budget import BUDGETS, Budget, share_of_mass
from gradloc.localization.policies.policy_table import (
    DEFAULT_POLICY,
    POLICIES,
    POSITIONAL,
    SCORES,
)
from gradloc.localization.policies.selection import (
    COMMON_OPTIONS,
    callback_step,
    check_options,
    select_layers,
)

__all__ = [
    "BUDGETS",
    "COMMON_OPTIONS",
    "DEFAULT_POLICY",
    "POLICIES",
    "POSITIONAL",
    "SCORES",
    "Budget",
    "callback_step",
    "check_options",
    "select_layers",
    "share_of_mass",
]
