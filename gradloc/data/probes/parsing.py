"""One line of a probe file as the fields of a probe, with everything that is wrong with it."""

import dataclasses
import datetime
import unicodedata
from collections.abc import Mapping
from typing import Any

from gradloc.data.probes.probe import Probe
from gradloc.utils.io import parse_json
from gradloc.utils.names import did_you_mean

GROUPS = ("new", "updated", "invariant")
DEPTHS = ("verbatim", "paraphrase", "composition")
SPLITS = ("localization", "evaluation")
CHOICES = {"group": GROUPS, "depth": DEPTHS, "split": SPLITS}

LISTS = ("targets", "old_targets", "candidates")
REQUIRED = ("prompt", "targets", "group")
FIELDS = tuple(field.name for field in dataclasses.fields(Probe))
# What other formats call these fields.
_SYNONYMS = {
    "answer": "targets",
    "answers": "targets",
    "target": "targets",
    "old_answer": "old_targets",
    "old_answers": "old_targets",
    "old_target": "old_targets",
    "question": "prompt",
    "query": "prompt",
    "choices": "candidates",
    "subject": "entity",
}
_OTHER_COLUMNS = (
    "A suite or recipe can name other columns ('fields: {targets: COLUMN}'), or a benchmark's own "
    "form ('format: NAME')"
)
# One look at a broken file shows whether one line or every line is wrong.
MAX_PROBLEMS = 50
# What a field holds when it holds nothing.
_NOTHING = (None, "", [])


def parse_line(line: str, problems: list[str]) -> dict[str, Any]:
    """The JSON object on a line; empty, with a problem noted, where there is none."""
    try:
        row = parse_json(line)
    except ValueError as error:
        problems.append(f"is not JSON: {error}")
        return {}
    if not isinstance(row, dict):
        problems.append(f"expected an object in braces, found a {type(row).__name__}")
        return {}
    return row


def to_fields(
    row: Mapping[str, Any],
    columns: Mapping[str, str],
    defaults: Mapping[str, Any],
    problems: list[str],
) -> dict[str, Any]:
    """Check the values of a row.

    A single text where a list is expected becomes a list of one; whole numbers become text;
    ``null``, empty text and the empty list count as absent.

    Args:
        row: Column -> value.
        columns: Probe field -> column, where they differ. If empty, unknown keys are problems.
        defaults: Probe field -> value, where the row has none.
        problems: What is wrong is added here.

    Returns:
        Probe field -> text or tuple of texts, for the fields that the row has.
    """
    if not columns:
        problems += [f"{unknown_field(key)} {_OTHER_COLUMNS}" for key in row if key not in FIELDS]
    label = {name: name for name in FIELDS}
    label |= {name: f"{name} (column {column!r})" for name, column in columns.items()}
    values: dict[str, Any] = {}
    for name in FIELDS:
        value = row.get(columns.get(name, name))
        value = defaults.get(name) if value in _NOTHING else value
        if value in _NOTHING:
            if name in REQUIRED and not (name == "prompt" and _whole_sentences(row, columns)):
                problems.append(f"{label[name]}: is missing or empty; every probe needs it")
            continue
        items = value if isinstance(value, list) and name in LISTS else [value]
        texts = [number_as_text(item) for item in items]
        if not all(isinstance(text, str) for text in texts):
            kind = "text or a list of texts" if name in LISTS else "text"
            problems.append(f"{label[name]}: expected {kind}, found {shown(value)}")
        elif not all(text.strip() for text in texts) and name != "suffix":
            problems.append(f"{label[name]}: holds an empty text")
        else:
            values[name] = tuple(texts) if name in LISTS else texts[0]
    values.setdefault("prompt", "")
    problems += [f"{label[name]}: {found}" for name, found in _wrong(values)]
    return values


def first_problems(problems: list[str]) -> list[str]:
    """The problems, or the first fifty and how many more there are."""
    more = len(problems) - MAX_PROBLEMS
    return problems if more <= 0 else [*problems[:MAX_PROBLEMS], f"... and {more} more"]


def unknown_choice(name: str, value: str) -> str:
    """Say that a group, depth or split does not exist, and which does."""
    return f"{value!r} is unknown. {did_you_mean(value, CHOICES[name])}"


def unknown_field(key: str) -> str:
    """Say that a probe has no such field, and which it has."""
    meant = _SYNONYMS.get(key.casefold())
    return f"unknown key {key!r}. " + (
        f"Did you mean '{meant}'?" if meant else did_you_mean(key, FIELDS)
    )


def plain(text: str) -> str:
    """A text without differences of case, outer blanks and Unicode form."""
    return unicodedata.normalize("NFC", text).strip().casefold()


def number_as_text(value: Any) -> Any:
    """A whole number as text; anything else as it is."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def shown(value: Any) -> str:
    """A value as messages show it: in ASCII, cut where it is long."""
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _whole_sentences(row: Mapping[str, Any], columns: Mapping[str, str]) -> bool:
    """Whether the row compares whole sentences (BLiMP), which have no prompt."""
    return bool(row.get(columns.get("candidates", "candidates")))


def _wrong(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Field and problem for each value that is of the right type and yet wrong."""
    wrong = [
        (name, unknown_choice(name, values[name]))
        for name, known in CHOICES.items()
        if values.get(name, known[0]) not in known
    ]
    if "date" in values and not _is_iso_date(values["date"]):
        wrong.append(("date", f"expected YYYY-MM-DD, found {values['date']!r}"))
    if len(values.get("candidates", ("", ""))) < 2:
        wrong.append(("candidates", "holds one text; a choice needs two or more"))
    right = {plain(text) for text in values.get("targets", ())}
    for text in values.get("old_targets", ()):
        if plain(text) in right:
            cure = "an answer cannot be both right and out of date"
            wrong.append(("old_targets", f"{text!r} is a target too; {cure}"))
    return wrong


def _is_iso_date(text: str) -> bool:
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
