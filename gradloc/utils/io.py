"""Text and JSON files: opened in one way, written whole or not at all."""

import dataclasses
import gzip
import json
import math
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TextIO

import numpy as np

from gradloc.errors import FileError

# Files of a checkpoint folder beside the weights; ``training.json`` is written last.
PLAN_FILE = "plan.json"
TRAINING_FILE = "training.json"
SCORES_FILE = "scores.json"
# The first file of a continual training's folder; a run's has none.
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
        FileError: The folder cannot be written (disk full, no permission); what was there
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
    except (OSError, UnicodeEncodeError) as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise FileError(
            f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}. "
            "Free some space or choose another folder; the file that was there is unchanged."
        ) from error
    return path


def write_json(path: str | Path, value: Any, *, compact: bool = False) -> Path:
    """Write ``value`` as JSON, whole or not at all; indented unless ``compact``."""
    separators, indent = ((",", ":"), None) if compact else (None, 1)
    text = json.dumps(to_jsonable(value), ensure_ascii=False, indent=indent, separators=separators)
    return write_text(path, text + "\n")


def read_text(path: str | Path, what: str = "text file", *, newline: str | None = None) -> str:
    """Read a UTF-8 text file, plain or ``.gz``, with or without a byte order mark.

    Args:
        path: The file.
        what: What the file should hold ("gradient profile"), for the error text.
        newline: As for ``open``.

    Raises:
        FileError: The file is missing, damaged, or not UTF-8 text.
    """
    with _opened(path, what, newline) as file:
        text = file.read()
    if "\0" in text:
        raise _null_byte(path, text.count("\n", 0, text.index("\0")) + 1)
    return text


def read_lines(path: str | Path, what: str = "text file") -> Iterator[tuple[int, str]]:
    """Read a text file line by line, in constant memory.

    Args:
        path: The file; opened as ``read_text`` does.
        what: What it should hold.

    Yields:
        Number, from 1, and text of each line that is not blank.

    Raises:
        FileError: As ``read_text``.
    """
    with _opened(path, what) as file:
        for number, line in enumerate(file, start=1):
            if "\0" in line:
                raise _null_byte(path, number)
            if line.strip():
                yield number, line.rstrip("\n")


@contextmanager
def _opened(path: str | Path, what: str, newline: str | None = None) -> Iterator[TextIO]:
    path = Path(path)
    is_packed = path.suffix.lower() == ".gz"
    try:
        with (gzip.open if is_packed else open)(
            path, "rt", encoding="utf-8-sig", newline=newline
        ) as file:
            yield file
    except FileNotFoundError as error:
        raise FileError(f"{path}: no such file; expected a {what}.") from error
    except IsADirectoryError as error:
        raise FileError(f"{path}: is a folder; expected a {what}.") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: is not UTF-8 text ({error}). Save it again as UTF-8.") from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        cure = " Copy or download it again." if is_packed else ""
        raise FileError(f"{path}: cannot be read as a {what}: {reason}.{cure}") from error


def _null_byte(path: str | Path, line: int) -> FileError:
    return FileError(
        f"{path}:{line}: holds a null byte, so it is damaged or not UTF-8 text. Save it again as "
        "UTF-8."
    )


def parse_json(text: str, *, finite: bool = False) -> Any:
    """Read JSON text.

    Args:
        text: The text.
        finite: Refuse what strict JSON or a 64-bit machine has no number for: ``NaN``, ``1e999``.

    Raises:
        ValueError: It is not JSON, is nested too deeply, or holds half of a surrogate pair, which
            no file and no tokenizer takes.
    """
    try:
        hooks: dict[str, Any] = {}
        if finite:
            hooks = {"parse_constant": _no_number, "parse_float": _float, "parse_int": _int}
        value = json.loads(text, **hooks)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            half = ascii(error.object[error.start])
            raise ValueError(f"{half} is half of a surrogate pair and no character") from None
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number in JSON")


def _float(text: str) -> float:
    return value if math.isfinite(value := float(text)) else _no_number(text)


def _int(text: str) -> int:
    return value if abs(value := int(text)) < 2**63 else _no_number(text)


def read_json(path: str | Path, what: str) -> Any:
    """Read a JSON file whose numbers are all finite.

    Args:
        path: The file.
        what: What the file should hold ("gradient profile"), for the error text.

    Raises:
        FileError: The file is missing or is not JSON.
    """
    text = read_text(path, what)
    try:
        return parse_json(text, finite=True)
    except ValueError as error:
        raise FileError(f"{path}: cannot be read as a {what}: {error}.") from error
