"""Scores of single items on disk, so that an interrupted evaluation continues."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gradloc.errors import GradlocError
from gradloc.utils.io import parse_json, to_jsonable

# assumption: some seconds of work on a small machine, and batches of like length all the same.
CHUNK = 256


class ScoreLog:
    """The scores of one checkpoint that are known so far.

    Args:
        path: JSONL file, made when the first score arrives; ``None``: kept in memory only.

    Raises:
        GradlocError: The file cannot be read.
    """

    def __init__(self, path: str | Path | None = None):
        self.path = Path(path) if path is not None else None
        self._known: dict[str, Any] = {}
        if self.path is not None and self.path.exists():
            self._known = dict(_lines(self.path))

    def __len__(self) -> int:
        return len(self._known)

    def fill(
        self,
        what: str,
        items: Sequence[Any],
        compute: Callable[[Sequence[Any]], Sequence[Any]],
        chunk: int = CHUNK,
    ) -> list[Any]:
        """The scores of items: those known from before, and those computed now.

        Args:
            what: What is asked of the items; the same item asked otherwise is another entry.
            items: Values that ``json`` can write, or dataclasses.
            compute: Takes the items without a score, ``chunk`` at a time, and returns one score
                each. Not called where all are known.
            chunk: Items that are scored between two writes.

        Returns:
            One score an item, in order.

        Raises:
            GradlocError: The scores cannot be written.
        """
        keys = [_key(what, item) for item in items]
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in self}
        pending = list(missing.items())
        for start in range(0, len(pending), chunk):
            keys_now, items_now = zip(*pending[start : start + chunk], strict=True)
            found = to_jsonable(list(compute(items_now)))
            self._append(dict(zip(keys_now, found, strict=True)))
        return [self._known[key] for key in keys]

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def _append(self, entries: dict[str, Any]) -> None:
        self._known.update(entries)
        if self.path is None:
            return
        text = "".join(json.dumps([key, value]) + "\n" for key, value in entries.items())
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise GradlocError(
                f"{self.path}: scores cannot be written: {error.strerror or error}. Free some "
                "space and run again; what is in the file is kept."
            ) from error


def _lines(path: Path):
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise GradlocError(f"{path}: cannot be read: {error.strerror or error}.") from error
    if text and not text.endswith("\n"):
        # A kill cut the last line short; what comes next must not be glued to it.
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            entry = parse_json(line)
        except ValueError:  # cut short by a kill: scored again
            continue
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            raise GradlocError(
                f"{path}:{number}: expected [key, score], found {line[:60]!r}. This is no log of "
                "scores, or it is damaged; remove it to score again."
            )
        yield tuple(entry)


def _key(what: str, item: Any) -> str:
    text = json.dumps([what, to_jsonable(item)], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
