"""What the report reads: a run folder, or a results file alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradloc.config.yaml_source import parse_yaml
from gradloc.errors import GradlocError, RunError
from gradloc.evaluation.results import EvalResult
from gradloc.localization.plan import LayerPlan
from gradloc.localization.profile import GradientProfile
from gradloc.report.arms import leading_arms

COMMANDS = {
    "results.json": "gradloc evaluate CHECKPOINT --suite SUITE --baseline MODEL --out results.json",
    "profile.json": "gradloc measure MODEL --probes PROBES --reference TEXT --out profile.json",
    "plan.json": "gradloc select PROFILE --policy POLICY --out plan.json",
    "recipe.yaml": "gradloc run RECIPE",
}


@dataclass(frozen=True)
class Run:
    """What a run folder or a results file holds.

    Args:
        name: Name of the recipe, of the folder or of the file.
        results: The evaluation.
        profile: The gradient profile, if there is one.
        plan: The main arm's plan, if there is one.
        recipe_text: The resolved recipe as it was written.
        recipe: The same as plain values; empty where there is none.
        page: Where its page belongs.
        is_folder: Whether it is a run folder, so that a stage can be missing from it.
    """

    name: str
    results: EvalResult
    profile: GradientProfile | None
    plan: LayerPlan | None
    recipe_text: str
    recipe: dict[str, Any]
    page: Path
    is_folder: bool = True


def read_run(path: str | Path) -> Run:
    """Read what the report needs.

    Args:
        path: A run folder, or a JSON file that ``gradloc evaluate`` wrote.

    Raises:
        RunError: There is no such folder or file, or it has no results.
        GradlocError: A file cannot be read, or is no results file.
    """
    path = Path(path)
    if path.is_file():
        return _read_file(path)
    if path.suffix == ".json" and not path.exists():
        raise RunError(
            f"{path}: no such results file, so there is nothing to report. "
            f"Make it with '{COMMANDS['results.json']}'."
        )
    return _read_folder(path)


def _read_file(path: Path) -> Run:
    results = _load_results(path)
    # The usual name says nothing; what was evaluated does.
    leading = leading_arms(results)
    alone = results.arms[leading[0]].series or leading[0] if len(leading) == 1 else results.suite
    name = alone if path.stem == "results" else path.stem
    return Run(name, results, None, None, "", {}, path.with_suffix(".html"), is_folder=False)


def _read_folder(folder: Path) -> Run:
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
    results = _load_results(folder / "results.json")
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
        page=folder / "report.html",
    )


def _load_results(path: Path) -> EvalResult:
    results = EvalResult.load(path)
    if not results.arms:
        raise RunError(
            f"{path}: holds no arm, so there is nothing to report. "
            f"Make it again with '{COMMANDS['results.json']}'."
        )
    return results


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        data = parse_yaml(text)
    except GradlocError as error:
        raise RunError(
            f"{path}: is not YAML, though gradloc wrote it so ({error}). Restore it, or delete "
            "it to get a report without the recipe."
        ) from error
    return data if isinstance(data, dict) else {}
