"""The rows of a downloaded file."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from gradloc.data.benchmarks.benchmark_row import Row
from gradloc.errors import ProbeError
from gradloc.utils.io import parse_json, read_text

# TemporalWiki's own generator writes its tables as .scv.
_DELIMITERS = {".csv": ",", ".scv": ",", ".tsv": "\t"}
TABLE_FILES = tuple(_DELIMITERS)
JSON_FILES = (".json", ".jsonl")
_BLANKS = " \t\r\n"


def read_rows(path: str | Path, columns: Sequence[str] = ()) -> list[Row]:
    """Read all rows of a file.

    The ending decides between a table with a header and JSON. JSON is one array, or one object
    a line: several benchmarks call the second ``.json`` as well.

    Args:
        path: The file.
        columns: Names for the values of JSON rows that are bare lists.

    Returns:
        The rows in the order of the file. A row that cannot be read has no values and says why
        in its ``problems``.

    Raises:
        FileError: The file is missing, damaged, or not UTF-8 text.
        ProbeError: It is empty.
    """
    path = Path(path)
    text = read_text(path, "benchmark file", newline="")
    delimiter = _DELIMITERS.get(_unpacked(path).suffix.lower())
    if delimiter:
        rows = list(_table_rows(text, delimiter))
    elif text.lstrip().startswith("["):
        rows = list(_array_rows(text, columns))
    else:
        rows = list(_object_rows(text, columns))
    if not rows:
        raise ProbeError(path, ["the file is empty; expected at least one row"])
    return rows


def stem(path: str | Path) -> str:
    """Name of a file without its endings.

    Example:
        >>> stem("data/new_0203.csv.gz")
        'new_0203'
    """
    unpacked = _unpacked(Path(path))
    return unpacked.stem or unpacked.name


def _unpacked(path: Path) -> Path:
    return path.with_suffix("") if path.suffix.lower() == ".gz" else path


def _table_rows(text: str, delimiter: str) -> Iterator[Row]:
    """Rows of a table; a row's place is the line on which it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    number, begins = 0, 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            # After a broken quote nobody can say where the next row begins.
            yield Row(f"line {begins}", number + 1, {}, [f"is not CSV: {error}"])
            return
        if cells is None:
            return
        place, begins = f"line {begins}", reader.line_num + 1
        if not cells:
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            continue
        number += 1
        row = Row(place, number, dict(zip(header, cells, strict=False)))
        if len(cells) > len(header):
            row.complain(f"has {len(cells)} cells under {len(header)} column names")
        yield row


def _object_rows(text: str, columns: Sequence[str]) -> Iterator[Row]:
    """One JSON object a line; a row's number is its line."""
    lines = text.split("\n")
    try:
        whole = parse_json(text) if len(lines) > 1 else None
    except ValueError:
        whole = None
    if isinstance(whole, dict):  # a single object over several lines
        yield Row("line 1", 1, whole)
        return
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield _row(f"line {number}", number, parse_json(line), columns)
        except ValueError as error:
            yield Row(f"line {number}", number, {}, [f"is not JSON: {error}"])


def _array_rows(text: str, columns: Sequence[str]) -> Iterator[Row]:
    """Items of a JSON array, one by one, so that each knows its line."""
    decoder = json.JSONDecoder()
    at, number = _skip(text, text.index("[") + 1), 0
    if text[at : at + 1] == "]":
        return
    while True:
        number += 1
        place = f"item {number} (line {text.count(chr(10), 0, at) + 1})"
        try:
            start, (_, at) = at, decoder.raw_decode(text, at)
            value = parse_json(text[start:at])
        except (ValueError, RecursionError) as error:
            yield Row(place, number, {}, [f"is not JSON: {error}"])
            return
        yield _row(place, number, value, columns)
        at = _skip(text, at)
        mark, at = text[at : at + 1], _skip(text, at + 1)
        if mark == "]":
            return
        if mark != ",":
            found = repr(mark) if mark else "the end of the file"
            yield Row(place, number, {}, [f"is followed by {found}; expected ',' or ']'"])
            return


def _row(place: str, number: int, value: object, columns: Sequence[str]) -> Row:
    if isinstance(value, dict):
        return Row(place, number, value)
    if isinstance(value, list) and columns and len(value) == len(columns):
        return Row(place, number, dict(zip(columns, value, strict=True)))
    wanted = (
        f"an object in braces or a list of {len(columns)}" if columns else "an object in braces"
    )
    return Row(place, number, {}, [f"expected {wanted}, found a {type(value).__name__}"])


def _skip(text: str, at: int) -> int:
    """The place of the next character that is no blank."""
    while text[at : at + 1] and text[at] in _BLANKS:
        at += 1
    return at
