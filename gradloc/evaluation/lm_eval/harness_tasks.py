"""Tasks of the harness by name."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradloc.errors import GradlocError
from gradloc.utils.names import did_you_mean


class _UnknownTaskError(LookupError):
    """A manager does not know a name."""


def require_harness() -> None:
    """Import the harness.

    Raises:
        GradlocError: It is not installed.
    """
    try:
        import lm_eval  # noqa: F401 - imported to see whether it is there
    except ImportError as error:
        raise GradlocError(
            "tasks of lm-evaluation-harness were asked for, and it is not installed. "
            "Install it with: pip install 'lm-eval>=0.4.12'"
        ) from error


def load_tasks(
    asked: Sequence[str],
    include_path: str | Path | Sequence[str | Path] | None,
    metadata: Mapping[str, Any],
) -> dict[str, Any]:
    """Find and load tasks with their data.

    Args:
        asked: Names of tasks, groups or tags, patterns (``blimp_*``) or paths of YAML files.
        include_path: Folders with tasks of one's own, which go before the harness's.
        metadata: What tasks are told.

    Returns:
        Name -> the harness's task, in the order asked for.

    Raises:
        GradlocError: A task is unknown, cannot be loaded or must not be run.
    """
    from lm_eval.tasks import TaskManager

    folders = [include_path] if isinstance(include_path, str | Path) else list(include_path or ())
    if missing := [str(folder) for folder in folders if not Path(folder).is_dir()]:
        raise GradlocError(f"include_path: there is no folder {missing[0]!r}; name existing ones.")
    paths: list[str | Path] = [str(folder) for folder in folders]
    metadata = dict(metadata)
    if paths:
        # These first: an index of the harness's own 14 000 names takes ten seconds.
        manager = TaskManager(include_path=paths, include_defaults=False, metadata=metadata)
        try:
            return _load_all(manager, asked)
        except (_UnknownTaskError, KeyError):  # also a group of theirs with the harness's tasks
            manager = TaskManager(include_path=paths, metadata=metadata)
    else:
        manager = TaskManager(metadata=metadata) if metadata else _shipped_tasks()
    try:
        return _load_all(manager, asked)
    except _UnknownTaskError as error:
        hint = did_you_mean(error, manager.all_tasks)
        # A list of 14 000 names helps nobody.
        hint = hint if hint.startswith("Did") else "List what there is with: lm_eval ls tasks"
        raise GradlocError(f"lm-evaluation-harness has no task '{error}'. {hint}") from error
    except KeyError as error:
        raise GradlocError(
            f"tasks {', '.join(asked)} of lm-evaluation-harness: {error} is missing in a task's "
            "configuration or data. Run the task with lm_eval to see more."
        ) from error


@functools.cache
def _shipped_tasks() -> Any:
    """The index of the harness's own tasks: one for all checkpoints that are evaluated."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _load_all(manager: Any, asked: Sequence[str]) -> dict[str, Any]:
    loaded: dict[str, Any] = {}
    for name in asked:
        is_file = name.endswith((".yaml", ".yml")) and Path(name).is_file()
        names = [name] if is_file else manager.match_tasks([name])
        if not names:
            raise _UnknownTaskError(name)
        for match in names:
            loaded |= _load(manager, match)
    for name, task in loaded.items():
        if getattr(task, "UNSAFE_CODE", False):
            raise GradlocError(
                f"task {name!r} runs code that the model writes, which gradloc does not. Run it "
                "by itself, in a sandbox: lm_eval --confirm_run_unsafe_code ..."
            )
    return loaded


def _load(manager: Any, name: str) -> dict[str, Any]:
    try:
        return manager.load([name])["tasks"]
    except (GradlocError, KeyError):
        raise
    except Exception as error:  # whatever a task's own code and the data library raise
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        if isinstance(error, OSError):  # no network, no such data set, no file
            found = f"its data cannot be had ({reason})"
            cure = "Connect once, so that they are kept, or read local data by a task of your own"
            cure += " in include_path."
        elif isinstance(error, ImportError):
            found, cure = f"it needs a package that is missing ({reason})", "Install the package."
        else:
            found, cure = f"it cannot be loaded ({reason})", "Run it with lm_eval to see more."
        raise GradlocError(f"task {name!r} of lm-evaluation-harness: {found}. {cure}") from error
