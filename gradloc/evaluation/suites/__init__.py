"""Suites: what a checkpoint is asked, and by which metrics it is judged.

Comes in: the name of a shipped suite, a YAML file, a probe file, a run folder or a recipe. Goes
out: a ``Suite``. It scores nothing.
"""

from gradloc.evaluation.suites.config import SuiteConfig, SuiteSource
from gradloc.evaluation.suites.loading import build_suite, general_texts, load_suite, recipe_suite
from gradloc.evaluation.suites.suite import TASK_METRICS, Suite, is_known_fact

__all__ = [
    "TASK_METRICS",
    "Suite",
    "SuiteConfig",
    "SuiteSource",
    "build_suite",
    "general_texts",
    "is_known_fact",
    "load_suite",
    "recipe_suite",
]
