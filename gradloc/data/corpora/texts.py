"""Undated texts of a file: reference text, and general text to be judged on."""

import re
from collections.abc import Iterator
from pathlib import Path

from gradloc.errors import CorpusError
from gradloc.utils.io import parse_json, read_lines, read_text

# Forms that would be read as passages, brackets and commas and all.
_NO_TEXT = (".json", ".csv", ".tsv", ".parquet")
_EXPECTED = "text file (JSON lines with 'text', or plain text)"


def read_texts(path: str | Path) -> Iterator[str]:
    """Read the texts of a file, one by one.

    Args:
        path: ``.jsonl`` or ``.jsonl.gz`` with ``text`` in each line, or any other text file with
            blank lines between passages.

    Raises:
        FileError: The file is missing, damaged, or not UTF-8 text.
        CorpusError: It is a table or array, a line is not JSON or has no
            ``text``, or there is no text at all.
    """
    path = Path(path)
    name = path.name.removesuffix(".gz")
    if name.lower().endswith(_NO_TEXT):
        raise CorpusError(
            f"{path}: expected .jsonl (an object with 'text' a line) or .txt (passages between "
            "blank lines)."
        )
    jsonl = name.endswith(".jsonl")
    n_texts = 0
    for text in _jsonl_texts(path) if jsonl else re.split(r"\n\s*\n", read_text(path, _EXPECTED)):
        if text.strip():
            n_texts += 1
            yield text.strip()
    if not n_texts:
        raise CorpusError(f"{path}: holds no text.")


def _jsonl_texts(path: Path) -> Iterator[str]:
    for number, line in read_lines(path, _EXPECTED):
        try:
            row = parse_json(line)
        except ValueError as error:
            raise CorpusError(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise CorpusError(f"{path}:{number}: has no 'text'.")
        yield row["text"]
