"""From a row to the fields of its probes, by the rules of a benchmark."""

import datetime
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradloc.data.benchmarks import unfolding
from gradloc.data.benchmarks.benchmark_files import stem
from gradloc.data.benchmarks.benchmark_row import MASK, Row, outdated, question_prompt
from gradloc.data.benchmarks.unfolding import Draft
from gradloc.errors import ProbeError

_SENTINEL = re.compile(r"<extra_id_\d+>")
_MONTHS = tuple(
    "January February March April May June July August September October November December".split()
)
_DATES = (
    re.compile(r"\b(?P<year>[12]\d{3})-(?P<month>\d\d)(?:-(?P<day>\d\d))?\b"),
    re.compile(rf"\b(?P<name>{'|'.join(_MONTHS)}),? (?:of )?(?P<year>[12]\d{{3}})\b"),
    re.compile(r"\b(?P<year>[12]\d{3})\b"),
)


@dataclass(frozen=True)
class Benchmark:
    """A benchmark that users download; its fields are the keys of ``benchmarks.yaml``."""

    about: str
    source: str
    files: list[str]
    columns: list[str] = field(default_factory=list)
    rows: str = ""
    named: dict[str, str] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    forms: list[dict[str, Any]] = field(default_factory=list)


def drafts(benchmark: Benchmark, path: Path, rows: list[Row]) -> Iterator[Draft]:
    """Each row with the fields of one of its probes; what is wrong is noted in the row.

    Args:
        benchmark: Whose rules are followed.
        path: The file.
        rows: Its rows.

    Raises:
        ProbeError: The file's name does not say what its rows leave open.
    """
    word = next((word for word in benchmark.named if word in stem(path).lower()), "")
    said = {"group": benchmark.named[word]} if word else {}
    alone: Iterator[Draft] = ((row, {}) for row in rows)
    unfolded = getattr(unfolding, benchmark.rows)(path, rows) if benchmark.rows else alone
    for row, own in unfolded:
        form = next((f for f in benchmark.forms if f.get("has", "") in {*row.values, ""}), None)
        if form is None and benchmark.forms:
            *others, last = (f"{form['has']!r}" for form in benchmark.forms)
            row.complain(f"expected {', '.join(others)} or {last}, found {', '.join(row.values)}")
            continue
        rules = said | benchmark.fields | (form or {})
        fields = _filled(row, rules, {"file": stem(path), "named": word}) | own
        if benchmark.named and "group" not in fields:
            first, second = map(repr, benchmark.named)
            cure = f"rename it so that its name says {first} or {second}"
            raise ProbeError(path, [f"its name does not say what its rows ask for; {cure}"])
        old = fields.get("old_targets", ())
        yield row, fields | {"old_targets": outdated(old, fields.get("targets", ()))}


def named_date(text: object) -> str:
    """The last date that a text names, as an ISO date; empty if it names none.

    Example:
        >>> named_date("As of March 2023, who leads the club?")
        '2023-03-01'
    """
    for pattern in _DATES:
        for match in reversed(list(pattern.finditer(str(text or "")))):
            parts = match.groupdict()
            month = _MONTHS.index(parts["name"]) + 1 if parts.get("name") else parts.get("month")
            try:
                day = int(parts.get("day") or 1)
                return datetime.date(int(parts["year"]), int(month or 1), day).isoformat()
            except ValueError:  # 2023-13: no date
                continue
    return ""


def _gold(row: Row, *columns: str) -> tuple[str, ...]:
    """The texts of a column without T5's sentinels; of an object, what stands for the first gap."""
    value = row.value(*columns)
    if isinstance(value, Mapping):
        row, columns = row.inner(next(name for name in columns if row.has(name))), (MASK,)
    return tuple(_SENTINEL.sub("", text).strip() for text in row.texts(*columns))


# Name of a rule -> what it makes of the columns that are named.
RULES: dict[str, Callable[..., Any]] = {
    "text": lambda row, *columns: row.text(*columns).strip(),
    "texts": Row.texts,
    "words": lambda row, *columns: " ".join(row.text(name).strip() for name in columns),
    "gold": _gold,
    "date": lambda row, *columns: named_date(row.value(*columns)),
}


def _filled(row: Row, rules: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    """The fields that rules make of a row."""

    def value(match: re.Match) -> str:
        return str(known.get(match[1], row.value(match[1])))

    fields: dict[str, Any] = {}
    for name, rule in rules.items():
        if name == "cloze":
            fields |= row.around_gap(*rule)
        elif name == "question":
            fields["prompt"] = question_prompt(row.text(*rule))
        elif isinstance(rule, str):
            fields[name] = re.sub(r"\{(\w+)\}", value, rule)
        elif isinstance(rule, list):
            fields[name] = row.value(*rule)
        else:
            ((kind, columns),) = rule.items()
            fields[name] = RULES[kind](row, *columns)
    fields.pop("has", None)
    return fields
