"""EvolvingQA: questions on what changed in Wikipedia from month to month."""

import datetime
import re
from collections.abc import Iterator
from pathlib import Path

from gradloc.data.benchmarks.benchmark_files import stem
from gradloc.data.benchmarks.benchmark_row import Row, outdated, question_prompt
from gradloc.data.benchmarks.probe_building import Fields, FieldsOf
from gradloc.errors import ProbeError

_MONTHS = tuple(
    "January February March April May June July August September October November December".split()
)
_DATES = (
    re.compile(r"\b(?P<year>[12]\d{3})-(?P<month>\d\d)(?:-(?P<day>\d\d))?\b"),
    re.compile(rf"\b(?P<name>{'|'.join(_MONTHS)}),? (?:of )?(?P<year>[12]\d{{3}})\b"),
    re.compile(r"\b(?P<year>[12]\d{3})\b"),
)


def evolvingqa_fields(path: Path, rows: list[Row]) -> FieldsOf:
    """Questions on unchanged, new and edited knowledge; the answer is what a model continues with.

    Rows with ``answer1`` (outdated) and ``answer2`` are ``updated`` facts. Rows with ``answer``
    are ``invariant`` or ``new``, as the file's name says: ``unchanged_eval.csv``,
    ``new_0203.csv``. The prompt is ``Question: ...`` and ``Answer:`` on two lines; ``date`` is
    the time that ``question_time`` names, the first of the month or year where it names no day.

    Args:
        path: A CSV file of the release.

    Raises:
        ProbeError: The name of a file with one answer says neither; otherwise as
            ``read_benchmark``.

    References:
        Kim et al. 2024, arXiv:2311.08106.
    """
    name = stem(path).lower()
    group = "invariant" if "unchanged" in name else "new" if "new" in name else ""
    if not group and not any("answer2" in row.values for row in rows):
        cure = "rename it so that its name says 'unchanged' or 'new'"
        raise ProbeError(path, [f"its name does not say which knowledge it asks for; {cure}"])

    def fields_of(row: Row) -> Iterator[Fields]:
        question = row.text("question")
        fields = {
            "prompt": question_prompt(question),
            "date": named_date(row.value("question_time")),
        }
        if "answer2" in row.values:
            new, old = row.texts("answer2"), row.texts("answer1")
            yield {
                **fields, "group": "updated", "targets": new, "old_targets": outdated(old, new)
            }  # fmt: skip
        else:
            yield {**fields, "group": group, "targets": row.texts("answer")}

    return fields_of


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
                return datetime.date(
                    int(parts["year"]), int(month or 1), int(parts.get("day") or 1)
                ).isoformat()
            except ValueError:  # 2023-13: no date
                continue
    return ""
