"""Suites: what a checkpoint is asked, and by which metrics it is judged."""

from gradloc.evaluation.suites.suite import TASK_METRICS, Suite, is_known_fact
from gradloc.evaluation.suites.suite_config import SuiteConfig
from gradloc.evaluation.suites.suite_files import load_suite, recipe_suite

__all__ = ["TASK_METRICS", "Suite", "SuiteConfig", "is_known_fact", "load_suite", "recipe_suite"]
