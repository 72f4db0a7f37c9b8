"""The rows of a downloaded file."""

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from gradloc.data.benchmarks.benchmark_row import Row
from gradloc.errors import ProbeError
from gradloc.utils.io import parse_json, read_text

# TemporalWiki's own generator writes its tables as .scv.
_DELIMITERS = {".csv": ",", ".scv": ",", ".tsv": "\t"}
_BLANKS = re.compile(r"[ \t\r\n]*")


def read_rows(path: Path, columns: Sequence[str] = ()) -> list[Row]:
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


def stem(path: Path) -> str:
    """Name of a file without its endings.

    Example:
        >>> stem(Path("data/new_0203.csv.gz"))
        'new_0203'
    """
    unpacked = _unpacked(path)
    return unpacked.stem or unpacked.name


def _unpacked(path: Path) -> Path:
    return path.with_suffix("") if path.suffix.lower() == ".gz" else path


def _table_rows(text: str, delimiter: str) -> Iterator[Row]:
    """Rows of a table; a row's place is the line on which it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    number, begins = 0, 1
    try:
        for cells in reader:
            if cells and header:
                number += 1
                row = Row(f"line {begins}", number, dict(zip(header, cells, strict=False)))
                if len(cells) > len(header):
                    row.complain(f"has {len(cells)} cells under {len(header)} column names")
                yield row
            header = header or [cell.strip() for cell in cells]
            begins = reader.line_num + 1
    except csv.Error as error:
        # After a broken quote nobody can say where the next row begins.
        yield Row(f"line {begins}", number + 1, {}, [f"is not CSV: {error}"])


def _object_rows(text: str, columns: Sequence[str]) -> Iterator[Row]:
    """One JSON object a line; a row's number is its line."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _row(f"line {number}", number, line, columns)


def _array_rows(text: str, columns: Sequence[str]) -> Iterator[Row]:
    """Items of a JSON array, one by one, so that each knows its line."""
    at, number, mark = _skip(text, text.index("[") + 1), 0, ","
    if text[at : at + 1] == "]":
        return
    while mark == ",":
        number += 1
        place = f"item {number} (line {text.count(chr(10), 0, at) + 1})"
        try:
            _, end = json.JSONDecoder().raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            yield Row(place, number, {}, [f"is not JSON: {error}"])
            return
        yield _row(place, number, text[at:end], columns)
        end = _skip(text, end)
        mark, at = text[end : end + 1], _skip(text, end + 1)
    if mark != "]":
        found = repr(mark) if mark else "the end of the file"
        yield Row(place, number, {}, [f"is followed by {found}; expected ',' or ']'"])


def _row(place: str, number: int, text: str, columns: Sequence[str]) -> Row:
    try:
        value = parse_json(text)
    except ValueError as error:
        return Row(place, number, {}, [f"is not JSON: {error}"])
    if isinstance(value, dict):
        return Row(place, number, value)
    if isinstance(value, list) and columns and len(value) == len(columns):
        return Row(place, number, dict(zip(columns, value, strict=True)))
    wanted = f" or a list of {len(columns)}" if columns else ""
    found = f"expected an object in braces{wanted}, found a {type(value).__name__}"
    return Row(place, number, {}, [found])


def _skip(text: str, at: int) -> int:
    """The place of the next character that is no blank."""
    found = _BLANKS.match(text, at)
    assert found is not None  # it also matches nothing
    return found.end()
