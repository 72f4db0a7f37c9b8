"""One row of a user's file as a ``Document``, with everything that is wrong with it."""

import datetime
import re
import reprlib
from collections.abc import Mapping
from typing import Any

from gradloc.data.corpora.documents import Document, EntityMention
from gradloc.errors import CorpusError
from gradloc.utils.names import did_you_mean

FIELDS = ("id", "date", "text", "entities")

_ISO_DAY = re.compile(r"\d{4}-\d{2}-\d{2}(?=$|[T ])")


def check_fields(fields: dict[str, str]) -> None:
    """Refuse a mapping of fields that a document does not have.

    Raises:
        CorpusError: A key is no field of a document.
    """
    for key in fields:
        if key not in FIELDS:
            raise CorpusError(
                f"corpus.fields: a document has no field {key!r}. {did_you_mean(key, FIELDS)} "
                "Write field: column; the column of the source stands on the right."
            )


def to_document(
    record: dict[str, Any], fields: dict[str, str], default_id: str, default_date: str = ""
) -> tuple[Document | None, list[str]]:
    """Build a document from a record.

    Args:
        record: Column -> value.
        fields: Document field -> column, where they differ.
        default_id: Used when the record has no id.
        default_date: Used when the record has no date.

    Returns:
        The document and no problems, or ``None`` and one line for each problem.
    """
    column = {name: fields.get(name, name) for name in FIELDS}
    problems: list[str] = []
    text = record.get(column["text"])
    if not isinstance(text, str) or not text.strip():
        problems.append(_wrong("text", "text", record, fields))
        text = ""
    day = _iso_day(record.get(column["date"], default_date or None))
    if not day:
        problems.append(_wrong("date", "a date YYYY-MM-DD", record, fields))
    entities = _entities(record.get(column["entities"]), text, problems)
    if problems:
        return None, problems
    identifier = record.get(column["id"])
    identifier = default_id if identifier in (None, "") else str(identifier)
    return Document(identifier, day, text, entities), []


def _wrong(field: str, wanted: str, record: dict, fields: dict) -> str:
    column = fields.get(field, field)
    if column in record:
        return f"{column}: expected {wanted}, found {reprlib.repr(record[column])}"
    there = ", ".join(map(str, list(record)[:8])) or "none"
    cure = "" if field in fields else f" (corpus.fields can name another column: {field}: ...)"
    return f"{column}: missing; the columns are {there}{cure}"


def _iso_day(value: object) -> str:
    """The day of a date, a time stamp, or an ISO string with or without a time; else empty."""
    if isinstance(value, datetime.date):  # a time stamp is one too
        return value.isoformat()[:10]
    if isinstance(value, str) and (match := _ISO_DAY.match(value)):
        try:
            return datetime.date.fromisoformat(match.group()).isoformat()
        except ValueError:
            return ""
    return ""


def _entities(rows: object, text: str, problems: list[str]) -> tuple[EntityMention, ...]:
    """Mentions from ``[start, end, name, novel]`` rows or dictionaries with these keys."""
    if rows is None:
        return ()
    if not isinstance(rows, (list, tuple)):
        problems.append(f"entities: expected a list of mentions, found {type(rows).__name__}")
        return ()
    mentions = []
    for number, row in enumerate(rows):
        match [row.get(key) for key in EntityMention._fields] if isinstance(row, Mapping) else row:
            case [int(start), int(end), str(name), 0 | 1 as novel] if not (
                isinstance(start, bool) or isinstance(end, bool)
            ):
                if 0 <= start < end <= len(text):
                    mentions.append(EntityMention(start, end, name, bool(novel)))
                    continue
                found = f"span {start}:{end} of {name!r} lies outside the text "
                problems.append(f"entities[{number}]: {found}({len(text)} characters)")
            case found:
                wanted = "expected [start, end, name, novel]"
                problems.append(f"entities[{number}]: {wanted}, found {found!r}")
    return tuple(mentions)
