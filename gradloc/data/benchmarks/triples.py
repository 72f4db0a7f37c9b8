"""Facts as subject, relation and object in time: TemporalWiki and TempLAMA."""

import re
from collections.abc import Iterator
from pathlib import Path

from gradloc.data.benchmarks.benchmark_files import stem
from gradloc.data.benchmarks.benchmark_row import Row, outdated
from gradloc.data.benchmarks.probe_building import Fields, FieldsOf
from gradloc.errors import ProbeError

_GAP = "_X_"
# Three of TempLAMA's nine templates begin so: "_X_ is the head coach of Inter."
_ANSWER_FIRST = re.compile(rf"{_GAP} is the (.+?)(\.?)")


def temporalwiki_fields(path: Path, rows: list[Row]) -> FieldsOf:
    """Changed and unchanged Wikidata triples between two Wikipedia snapshots.

    The prompt is ``<subject> <relation>``, the target the object. Whether the triples changed is
    told by the file's name: ``0801-0901_changed.csv`` makes ``updated`` facts under the task
    ``temporalwiki_changed``, ``0801-0901_unchanged.csv`` ``invariant`` ones.

    Args:
        path: A table or JSON with ``subject, relation, object``, or JSON lists of the three.

    Raises:
        ProbeError: The name says neither; otherwise as ``read_benchmark``.

    References:
        Jang et al. 2022, arXiv:2204.14211.
    """
    name = stem(path).lower()
    if "changed" not in name:
        cure = "rename the file so that its name says 'changed' or 'unchanged'"
        raise ProbeError(path, [f"its name does not say whether its triples changed; {cure}"])
    is_changed = "unchanged" not in name

    def fields_of(row: Row) -> Iterator[Fields]:
        subject = row.text("subject").strip()
        yield {
            "group": "updated" if is_changed else "invariant",
            "prompt": f"{subject} {row.text('relation').strip()}",
            # The generator calls the column 'objective' in its table before the last filter.
            "targets": row.text("object", "objective").strip(),
            "entity": subject,
            "task": "temporalwiki_changed" if is_changed else "temporalwiki_unchanged",
        }

    return fields_of


def templama_fields(path: Path, rows: list[Row]) -> FieldsOf:
    """Who or what held in each year: one probe for each subject, relation and year.

    A probe is ``updated`` where a name of the last earlier year in the file no longer holds, and
    ``invariant`` otherwise. ``kind`` is the year, so that each year is reported apart: the query
    itself names none. A query that begins with its answer is turned round
    (``_X_ is the chair of A.`` -> ``The chair of A is``), since a model that reads from the left
    would have nothing to go on. ``entity`` is the subject's Wikidata id.

    Args:
        path: ``train.json``, ``val.json`` or ``test.json``, one object a line.

    References:
        Dhingra et al. 2022, arXiv:2106.15110.
    """
    facts = {row.number: _dated_fact(row) for row in rows if not row.problems}
    history: dict[str, dict[int, tuple[str, ...]]] = {}
    for fact, year, names in facts.values():
        years = history.setdefault(fact, {})
        years[year] = years.get(year, ()) + names

    def fields_of(row: Row) -> Iterator[Fields]:
        fact, year, names = facts[row.number]
        years = history[fact]
        earlier = max((other for other in years if other < year), default=year)
        old = outdated(years[earlier], years[year])
        prompt, suffix = _around_answer(row)
        yield {
            "id": row.text("id"),
            "group": "updated" if old else "invariant",
            "prompt": prompt,
            "targets": names,
            "old_targets": old,
            "suffix": suffix,
            "entity": fact.partition("_")[0],
            "date": f"{year:04d}-01-01",
            "kind": str(year),
        }

    return fields_of


def _around_answer(row: Row) -> tuple[str, str]:
    """What stands before and after the answer, which may be moved to the end."""
    turned = _ANSWER_FIRST.fullmatch(str(row.value("query")).strip())
    return (f"The {turned[1]} is", turned[2]) if turned else row.around_gap("query", _GAP)


def _dated_fact(row: Row) -> tuple[str, int, tuple[str, ...]]:
    """Subject and relation, the year, and who or what held then; problems go to the row."""
    year = row.text("date")
    if year and not re.fullmatch(r"[12]\d{3}", year):
        row.complain(f"date: expected a year, found {year!r}")
        year = ""
    answers = row.value("answer")
    answers = answers if isinstance(answers, list) else [answers]
    if not all(isinstance(answer, dict) for answer in answers):
        row.complain("answer: expected objects with a 'name'")
        answers = []
    names = tuple(dict.fromkeys(row.part("answer", answer).text("name") for answer in answers))
    return row.text("id").removesuffix(f"_{year}"), int(year or 0), names
