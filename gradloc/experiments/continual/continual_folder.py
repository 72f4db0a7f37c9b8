"""Open a continual training: make what its arms share, or read it where it has been made."""

import logging
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from gradloc.config.recipe import Recipe, save_resolved
from gradloc.data.probes import load_probes
from gradloc.errors import RunError
from gradloc.experiments.continual.periods import Period
from gradloc.experiments.continual.shared_inputs import (
    PERIODS_FILE,
    PROBES_FILE,
    RECIPE_FILE,
    Division,
    SharedInputs,
)
from gradloc.experiments.continual.stage_data import plan_stages
from gradloc.experiments.recipes import load_recipe
from gradloc.experiments.run import STAGE_FILES
from gradloc.utils.io import DOCUMENTS_FILE, read_json, write_json

logger = logging.getLogger(__name__)


def open_continual(recipe: Recipe, division: Division) -> SharedInputs:
    """Make what the arms share, or read it where it has been made.

    Args:
        recipe: The recipe. Its ``cutoff`` and ``until`` bound the time where ``division`` does
            not.
        division: How time is divided.

    Raises:
        RunError: The folder holds another continual training or a run.
        ProbeError: No dated evaluation probe, or a stage without probes to choose layers by.
        GradlocError: Bad input.
    """
    folder = recipe.run_dir
    if (folder / PERIODS_FILE).is_file():
        _check_same(recipe, division, folder)
        return _read(recipe, division, folder)
    _refuse_run(folder)
    shared = plan_stages(recipe, division)
    shared.probes.save(folder / PROBES_FILE)
    save_resolved(recipe, folder / RECIPE_FILE)
    # Last, since its presence says that the others are complete.
    write_json(folder / PERIODS_FILE, {
        "division": asdict(division),
        "periods": shared.periods,
        "stages": [stage.name for stage in shared.stages],
        "notes": shared.notes,
    })  # fmt: skip
    logger.info(
        f"stages     {len(shared.stages)}: {shared.stages[0].name} to {shared.stages[-1].name}"
    )
    return shared


def _refuse_run(folder: Path) -> None:
    """See that the folder is no run's; one that was killed has at least its documents."""
    found = [name for name in STAGE_FILES[1:] if (folder / name).exists()]
    if found and not (folder / DOCUMENTS_FILE).is_file():
        raise RunError(
            f"{folder} holds {', '.join(found)} of a run. Give this one another name "
            "(--set name=...), or remove the folder."
        )


def _check_same(recipe: Recipe, division: Division, folder: Path) -> None:
    """See that the folder was made for this; arms may be added, trained ones not changed."""
    kept = read_json(folder / PERIODS_FILE, "periods of continual training")["division"]
    differing = [f"--{name}" for name, value in asdict(division).items() if kept[name] != value]
    found = load_recipe(folder / RECIPE_FILE)
    differing += [
        field.name
        for field in fields(recipe)
        if field.compare
        and field.name != "arms"
        and getattr(found, field.name) != getattr(recipe, field.name)
    ]
    changed = [name for name, arm in recipe.arms.items() if found.arms.get(name) != arm]
    differing += [f"arms.{name}" for name in changed if (folder / name).is_dir()]
    if differing:
        flags = {"--first": "--from", "--last": "--to"}
        names = ", ".join(flags.get(name, name) for name in differing)
        raise RunError(
            f"{folder} holds another continual training (it differs in {names}). Give this one "
            "another name (--set name=...), or remove the folder."
        )
    if changed:
        save_resolved(replace(found, arms={**found.arms, **recipe.arms}), folder / RECIPE_FILE)


def _read(recipe: Recipe, division: Division, folder: Path) -> SharedInputs:
    data: dict[str, Any] = read_json(folder / PERIODS_FILE, "periods of continual training")
    periods = tuple(Period(*period) for period in data["periods"])
    return SharedInputs(
        recipe=recipe,
        division=division,
        periods=periods,
        stages=tuple(period for period in periods if period.name in data["stages"]),
        probes=load_probes(folder / PROBES_FILE),
        notes=tuple(data["notes"]),
    )
