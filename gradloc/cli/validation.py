"""Check the files that people write by hand, each by its kind; nothing is run."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from tyro.conf import Positional, arg

from gradloc.config.recipe import find_recipe
from gradloc.config.shipped import shipped_names
from gradloc.config.yaml_source import read_yaml
from gradloc.data.probes import load_probes
from gradloc.errors import GradlocError, RecipeError
from gradloc.evaluation.results import EvalResult
from gradloc.evaluation.suites import load_suite
from gradloc.experiments.recipes import load_recipe
from gradloc.experiments.sweep.sweep_config import load_sweep
from gradloc.experiments.sweep.sweep_record import SweepRecord
from gradloc.localization.plan import LayerPlan
from gradloc.localization.profile import GradientProfile
from gradloc.utils.io import read_json, read_text


def validate(
    files: Annotated[tuple[Path, ...], Positional, arg(metavar="FILE ..."), Field(min_length=1)],
) -> None:
    """Check recipes, sweeps, suites, probe files, plans and profiles; all problems at once.

    Args:
        files: .yaml (recipe, sweep or suite, or the name of a shipped one), .jsonl (probes) or
            .json (plan, profile, results, record of a sweep).
    """
    failures = []
    for file in files:
        try:
            print(f"{file}: {validate_file(file)}")
        except GradlocError as error:
            failures.append(str(error))
    if failures:
        raise GradlocError("\n".join(failures))


def validate_file(path: Path) -> str:
    """Load a recipe, sweep, suite, probe file, plan, profile, results file or record.

    Args:
        path: The file, or the name of a recipe, sweep or suite that comes with gradloc.

    Returns:
        What it is and what it holds, in a few words.

    Raises:
        GradlocError: The file has problems (all of them are named) or is of no known kind.
    """
    name = path.name.removesuffix(".gz")
    if name.endswith((".yaml", ".yml")) or not path.suffix:
        return _yaml(path)
    if name.endswith(".jsonl"):
        probes = load_probes(path)
        entities = len({probe.entity or probe.id for probe in probes})
        return f"{_counted(len(probes), 'probe')} on {_counted(entities, 'entity', 'entities')}"
    if name.endswith(".json"):
        return _json(path)
    raise GradlocError(f"{path}: expected .yaml, .jsonl or .json.")


def _yaml(path: Path) -> str:
    """A sweep has ``corpora``, a suite ``probes`` but none of a recipe's own keys."""
    try:
        data = read_yaml(read_text(find_recipe(path))).data
    except RecipeError:
        if path.stem not in shipped_names("suites"):
            raise
        return _suite(path)
    keys = set(data) if isinstance(data, dict) else set()
    if "corpora" in keys:
        sweep = load_sweep(path)
        return f"sweep {sweep.name} of {', '.join(sweep.corpora)}, arms {', '.join(sweep.arms)}"
    if keys and keys.isdisjoint({"model", "training", "arms", "corpus", "measure"}):
        return _suite(path)
    recipe = load_recipe(path)
    return f"recipe {recipe.name}, arms {', '.join(recipe.arms)}"


def _suite(path: Path) -> str:
    suite = load_suite(path)
    tasks = [task for task in dict.fromkeys(p.task for p in suite.probes) if task]
    named = f", tasks {', '.join(tasks)}" if tasks else ""
    return f"suite {suite.name}, {_counted(len(suite.probes), 'probe')}{named}"


# Kind of a JSON file -> its loader, and what it says of the value.
_KINDS: dict[str, tuple[Callable[[Path], Any], Callable[[Any], str]]] = {
    "profile": (
        GradientProfile.load,
        lambda p: f"profile of {len(p.units)} units, {len(p.probe_norms)} probe sequences",
    ),
    "results": (EvalResult.load, lambda result: f"results of {', '.join(result.arms)}"),
    "sweep": (
        SweepRecord.load,
        lambda r: f"record of a sweep, arms {', '.join(dict.fromkeys(run.arm for run in r.runs))}",
    ),
    "plan": (
        LayerPlan.load,
        lambda plan: f"plan that trains {len(plan.trained)} of {len(plan.scale)} units",
    ),
}


def _json(path: Path) -> str:
    data = read_json(path, "plan, profile, results or record")
    fields = data if isinstance(data, dict) else {}
    # A plan written by hand has no kind.
    kind = fields.get("kind", "plan" if "scale" in fields else None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise GradlocError(f"{path}: no plan, profile, results or record of a sweep.")
    load, describe = _KINDS[kind]
    return describe(load(path))


def _counted(n: int, one: str, many: str = "") -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"
