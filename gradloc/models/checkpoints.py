"""The checkpoints that a training run saved."""

import re
from pathlib import Path

from gradloc.errors import GradlocError
from gradloc.models import resolve
from gradloc.utils.io import TRAINING_FILE, read_json

_NAME = re.compile(r"checkpoint-(\d+)")


def saved_checkpoints(source: str | Path) -> list[str | Path]:
    """A model by itself, or the checkpoints of a training run.

    Args:
        source: A model, or the output folder of a ``Trainer``: one with ``checkpoint-<step>``
            folders, and perhaps with the final model in it.

    Returns:
        The checkpoints in the order of their steps, then the final model; ``[source]`` for
        anything else.
    """
    folder = Path(source)
    if not folder.is_dir():
        return [source]
    found = sorted((step, path) for path in folder.iterdir() if (step := _step_in(path.name)))
    if not found:
        return [source]
    checkpoints: list[str | Path] = [path for _, path in found]
    try:
        resolve(source)
    except GradlocError:
        return checkpoints
    # The final model, unless it is the last checkpoint again.
    return checkpoints if step_of(folder) == found[-1][0] else [*checkpoints, source]


def series_and_step(source: str | Path) -> tuple[str, int | None]:
    """The run that a checkpoint is one of several of, and its optimizer step.

    Returns:
        Name of the run and step; ``("", None)`` where the checkpoint stands alone.

    Example:
        >>> series_and_step("runs/news/checkpoint-40")
        ('news', 40)
    """
    folder = Path(source)
    if step := _step_in(folder.name):
        return folder.parent.name or "run", step
    if folder.is_dir() and any(_step_in(path.name) for path in folder.iterdir()):
        return folder.name, step_of(folder)
    return "", None


def step_of(folder: Path) -> int | None:
    """Optimizer steps of a final model, from what training left beside it."""
    for name, key in (("trainer_state.json", "global_step"), (TRAINING_FILE, "n_steps")):
        if (folder / name).is_file():
            return read_json(folder / name, "training state").get(key)
    return None


def _step_in(name: str) -> int | None:
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None
