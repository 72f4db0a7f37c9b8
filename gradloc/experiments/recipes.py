"""Recipes whose names are checked: policies, corpus readers and training methods that exist."""

from collections.abc import Iterable
from pathlib import Path

from gradloc.config.checks import check_arm_methods, check_names
from gradloc.config.recipe import Recipe, read_recipe
from gradloc.config.yaml_source import Source
from gradloc.data.corpora.readers import READERS
from gradloc.localization.layer_selection import COMMON_OPTIONS
from gradloc.localization.policies import POLICIES


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and check everything that can be checked without opening its corpus.

    Args:
        path: YAML file, the name of a shipped recipe (``quickstart``), or its path in a clone
            (``recipes/quickstart.yaml``) from any working directory.
        overrides: ``key.path=value`` each, set before the checks; values are YAML
            (``training.learning_rate=1.0e-4``, ``arms.full.policy=all``).

    Returns:
        The recipe, with every default filled in.

    Raises:
        RecipeError: The file is missing or no YAML, or any of its keys and values is wrong; all
            problems are reported at once.

    Example:
        >>> load_recipe("quickstart", ["seed=3"]).seed
        3
    """
    return read_recipe(path, overrides, checks=(_check_names, _check_methods))


def _check_names(source: Source, recipe: Recipe | None) -> None:
    check_names(source, policies=POLICIES, common=COMMON_OPTIONS, readers=READERS)


def _check_methods(source: Source, recipe: Recipe | None) -> None:
    arms = source.data.get("arms")
    if not isinstance(arms, dict) or not any(
        isinstance(a, dict) and a.get("methods") for a in arms.values()
    ):
        return
    # Imported here: it brings torch along, and most recipes have no method.
    from gradloc.training.methods.method_table import build_method

    check_arm_methods(source, build_method)
