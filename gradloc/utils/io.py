"""Values of the line as JSON files.

Comes in: a frozen dataclass or a plain dictionary. Goes out: a file that is either whole or
absent, and the value again. It knows nothing of what the values mean.
"""

import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gradloc.errors import GradlocError

# Files of a checkpoint folder beside the weights; ``training.json`` is written last.
PLAN_FILE = "plan.json"
TRAINING_FILE = "training.json"
SCORES_FILE = "scores.json"
# The first file of a stream's folder; a run's has none.
DOCUMENTS_FILE = "documents.jsonl"


def to_jsonable(value: Any) -> Any:
    """Turn dataclasses, arrays, tuples and paths into what ``json`` can write.

    Non-finite floats become ``None``, since strict JSON has no word for them.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonable(item) for item in value]
    if isinstance(value, np.ndarray):
        return to_jsonable(value.tolist())
    if isinstance(value, np.generic):
        return to_jsonable(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    return value


def write_text(path: str | Path, text: str) -> Path:
    """Write a file so that a reader sees the old content or the new, never a part.

    Raises:
        GradlocError: The folder cannot be written (disk full, no permission); what was there
            before is untouched.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes the file private; give it the mode an ordinary open() would.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise GradlocError(
            f"{path}: cannot be written: {error.strerror or error}. "
            "Free some space or choose another folder; the file that was there is unchanged."
        ) from error
    return path


def write_json(path: str | Path, value: Any, *, compact: bool = False) -> Path:
    """Write ``value`` as JSON, whole or not at all; indented unless ``compact``."""
    layout = {"separators": (",", ":")} if compact else {"indent": 1}
    return write_text(path, json.dumps(to_jsonable(value), ensure_ascii=False, **layout) + "\n")


def read_json(path: str | Path, what: str) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        what: What the file should hold ("gradient profile"), for the error text.

    Raises:
        GradlocError: The file is missing or is not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise GradlocError(f"{path}: no such file; expected a {what}.") from error
    except (OSError, ValueError) as error:
        raise GradlocError(f"{path}: cannot be read as a {what}: {error}") from error
