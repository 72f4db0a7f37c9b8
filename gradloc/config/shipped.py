"""Recipes and suites that come with gradloc, in a clone and in an installed wheel alike."""

from pathlib import Path

from gradloc.errors import GradlocError
from gradloc.utils.names import did_you_mean

# Kind -> its folder, in a clone and below ``_shipped`` in the wheel.
KINDS = {
    "recipes": "recipes",
    "suites": "evaluation/suites",
    "metrics": "evaluation/metrics",
    "lm_eval_tasks": "evaluation/lm_eval_tasks",
}


def shipped_dir(kind: str) -> Path:
    """Folder of the shipped files of one kind.

    Args:
        kind: One of ``KINDS``.

    Raises:
        GradlocError: The kind is unknown, or the installation lacks the folder.
    """
    if kind not in KINDS:
        raise GradlocError(f"shipped files of the kind '{kind}': {did_you_mean(kind, KINDS)}")
    package = Path(__file__).resolve().parents[1]
    # The wheel carries them inside the package; a clone (or editable install) beside it.
    for folder in (package / "_shipped" / KINDS[kind], package.parent / KINDS[kind]):
        if folder.is_dir():
            return folder
    raise GradlocError(
        f"the folder of shipped {kind} is missing beside {package}; reinstall gradloc."
    )


def shipped_names(kind: str) -> tuple[str, ...]:
    """Names of the shipped YAML files: their paths below the folder, without ``.yaml``.

    Args:
        kind: One of ``KINDS``.

    Returns:
        The names, sorted.
    """
    folder = shipped_dir(kind)
    paths = folder.rglob("*.yaml")
    return tuple(sorted(path.relative_to(folder).with_suffix("").as_posix() for path in paths))


def shipped_path(kind: str, name: str) -> Path:
    """Path of a shipped file.

    Args:
        kind: One of ``KINDS``.
        name: A name of ``shipped_names`` (``quickstart``), or a file below the folder with its
            suffix (``quickstart.yaml``, ``probes/capitals.jsonl``).

    Returns:
        The path of an existing file.

    Raises:
        GradlocError: There is no such file.
    """
    folder = shipped_dir(kind)
    for candidate in (folder / name, folder / f"{name}.yaml"):
        # resolve() keeps '../x' from leading out of the folder.
        if candidate.is_file() and folder in candidate.resolve().parents:
            return candidate
    hint = did_you_mean(name, shipped_names(kind))
    raise GradlocError(f"no shipped file '{name}' among the {kind}. {hint}")


def find_data(path: str) -> str:
    """The file that a recipe means: in the working directory, else among the shipped recipes.

    Returns:
        The path of the file; the same path if there is none at either place.

    Example:
        >>> Path(find_data("data/quickstart/probes.jsonl")).is_file()
        True
    """
    folder = shipped_dir("recipes")
    shipped = folder / path
    ours = shipped.is_file() and folder / "data" in shipped.resolve().parents
    return str(shipped) if ours and not Path(path).exists() else path
