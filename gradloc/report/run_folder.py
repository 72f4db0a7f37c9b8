"""What the report reads: a run folder, or a results file alone."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

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


class Run(NamedTuple):
    """What a run folder or a results file holds.

    Args:
        name: Name of the recipe, of the folder or of the file.
        results: The evaluation.
        page: Where its page belongs.
        profile: The gradient profile, if there is one.
        plan: The main arm's plan, if there is one.
        recipe_text: The resolved recipe as it was written.
        recipe: The same as plain values; empty where there is none.
        is_folder: Whether it is a run folder, so that a stage can be missing from it.
    """

    name: str
    results: EvalResult
    page: Path
    profile: GradientProfile | None = None
    plan: LayerPlan | None = None
    recipe_text: str = ""
    recipe: Mapping[str, Any] = MappingProxyType({})
    is_folder: bool = False


def read_run(path: str | Path) -> Run:
    """Read what the report needs.

    Args:
        path: A run folder, or a JSON file that ``gradloc evaluate`` wrote.

    Raises:
        RunError: There is no such folder or file, or it has no results.
        GradlocError: A file cannot be read, or is no results file.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        is_results = path.suffix == ".json"
        raise RunError(
            f"{path}: no such {'results file' if is_results else 'run folder'}, so there is "
            "nothing to report. Make it with "
            f"'{COMMANDS['results.json' if is_results else 'recipe.yaml']}'."
        )
    results = _load_results(path)
    # The usual name says nothing; what was evaluated does.
    leading = leading_arms(results)
    alone = results.arms[leading[0]].series or leading[0] if len(leading) == 1 else results.suite
    return Run(alone if path.stem == "results" else path.stem, results, path.with_suffix(".html"))


def _read_folder(folder: Path) -> Run:
    results, profile, plan, recipe = (folder / name for name in COMMANDS)
    if not results.is_file():
        raise RunError(
            f"{results}: missing, and a report is made from it. Make it with "
            f"'{COMMANDS['results.json']}', or the whole run with '{COMMANDS['recipe.yaml']}'."
        )
    found, text = _load_results(results), ""
    if recipe.is_file():
        text = recipe.read_text(encoding="utf-8")
    values = _parse(text, recipe)
    return Run(
        name=str(values.get("name") or folder.resolve().name),
        results=found,
        page=folder / "report.html",
        profile=GradientProfile.load(profile) if profile.is_file() else None,
        plan=LayerPlan.load(plan) if plan.is_file() else None,
        recipe_text=text,
        recipe=values,
        is_folder=True,
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
