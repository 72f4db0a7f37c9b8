"""What the report reads from a run folder.

Comes in: a folder. Goes out: ``Run``. A stage that is missing is named with the command that
makes it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gradloc.errors import RunError
from gradloc.plan import LayerPlan
from gradloc.profile import GradientProfile
from gradloc.results import EvalResult

COMMANDS = {
    "results.json": "gradloc evaluate CHECKPOINT --suite SUITE --baseline MODEL --out results.json",
    "profile.json": "gradloc measure MODEL --probes PROBES --reference TEXT --out profile.json",
    "plan.json": "gradloc select PROFILE --policy POLICY --out plan.json",
    "recipe.yaml": "gradloc run RECIPE",
}


@dataclass(frozen=True)
class Run:
    """What a run folder holds.

    Args:
        name: Name of the recipe, or of the folder.
        results: The evaluation.
        profile: The gradient profile, if there is one.
        plan: The main arm's plan, if there is one.
        recipe_text: The resolved recipe as it was written.
        recipe: The same as plain values; empty where there is none.
    """

    name: str
    results: EvalResult
    profile: GradientProfile | None
    plan: LayerPlan | None
    recipe_text: str
    recipe: dict[str, Any]


def read_run(run_dir: str | Path) -> Run:
    """Read what the report needs from a run folder.

    Raises:
        RunError: There is no such folder, or it has no results.
    """
    folder = Path(run_dir)
    if not folder.is_dir():
        raise RunError(
            f"{folder}: no such run folder, so there is nothing to report. "
            f"Make it with '{COMMANDS['recipe.yaml']}'."
        )
    if not (folder / "results.json").is_file():
        raise RunError(
            f"{folder / 'results.json'}: missing, and a report is made from it. "
            f"Make it with '{COMMANDS['results.json']}', or the whole run with "
            f"'{COMMANDS['recipe.yaml']}'."
        )
    results = EvalResult.load(folder / "results.json")
    if not results.arms:
        raise RunError(
            f"{folder / 'results.json'}: holds no arm, so there is nothing to report. "
            f"Make it again with '{COMMANDS['results.json']}'."
        )
    profile, plan = folder / "profile.json", folder / "plan.json"
    recipe_path = folder / "recipe.yaml"
    recipe_text = recipe_path.read_text(encoding="utf-8") if recipe_path.is_file() else ""
    recipe = _parse(recipe_text, recipe_path)
    return Run(
        name=str(recipe.get("name") or folder.resolve().name),
        results=results,
        profile=GradientProfile.load(profile) if profile.is_file() else None,
        plan=LayerPlan.load(plan) if plan.is_file() else None,
        recipe_text=recipe_text,
        recipe=recipe,
    )


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RunError(
            f"{path}: is not YAML, though gradloc wrote it so ({error}). Restore it, or delete "
            "it to get a report without the recipe."
        ) from error
    return data if isinstance(data, dict) else {}
