"""Continual knowledge learning: the LAMA tables by whether a fact stayed, changed or is new."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradloc.data.benchmarks.benchmark_row import MASK, Row, outdated, question_prompt
from gradloc.data.benchmarks.probe_building import Fields, FieldsOf
from gradloc.errors import ProbeError
from gradloc.utils.io import read_json

_UPDATED_ANSWERS = "updatedlama_val_answers.json"
_NEW_ANSWERS = "recentlama_h_val_answers.json"
_EASY_ANSWERS = "recentlama_val_answers.json"

# Id of a row -> its answers, as the release keeps them apart from the tables.
Answers = dict[str, list[Any]]


def ckl_fields(path: Path, rows: list[Row]) -> FieldsOf:
    """InvariantLAMA, UpdatedLAMA and NewLAMA, told apart by their columns.

    ``input, output`` make ``invariant`` facts; ``statement, new_answer`` ``updated`` ones;
    ``statement, answer`` (also the easy version) ``new`` ones. A row without a gap in its
    statement is asked by its ``question``. Answers in a cell stand between semicolons. Where the
    answer file of the release lies beside the table or one folder above it, its lists replace the
    cells, as in the authors' evaluation.

    Args:
        path: ``invariantLAMA.csv``, ``updatedLAMA.csv``, ``newLAMA.csv`` or
            ``newLAMA_easy.csv``.

    References:
        Jang et al. 2022, arXiv:2110.03215.
    """
    table = path
    columns = {column for row in rows for column in row.values}
    new_name = _EASY_ANSWERS if "easy" in table.name.lower() else _NEW_ANSWERS
    name = _UPDATED_ANSWERS if "new_answer" in columns else new_name
    answers = _answers_near(table, name) if columns & {"answer", "new_answer"} else None

    def fields_of(row: Row) -> Iterator[Fields]:
        if row.has("input"):
            prompt, suffix = row.around_gap("input")
            gold = tuple(text.replace(MASK, "").strip() for text in row.texts("output"))
            fields = {"group": "invariant", "targets": gold}
        elif "new_answer" in row.values:
            prompt, suffix = _asked(row)
            new, old = _new_and_old(row, answers)
            fields = {"group": "updated", "targets": new, "old_targets": outdated(old, new)}
        elif "answer" in row.values:
            prompt, suffix = _asked(row)
            entry = _entry(row, answers, name)
            fields = {"group": "new", "targets": entry or _split(row.text("answer"))}
        else:
            found = ", ".join(row.values)
            row.complain(f"expected 'input' and 'output', 'new_answer' or 'answer', found {found}")
            return
        own_id = row.value("unique_id", "id")
        own_id = row.number if own_id is None else own_id
        yield {"id": own_id, "prompt": prompt, "suffix": suffix, **fields}

    return fields_of


def _asked(row: Row) -> tuple[str, str]:
    """Prompt and suffix from the statement, or from the question where that has no gap."""
    if MASK not in str(row.value("statement")) and row.has("question"):
        return question_prompt(row.text("question")), ""
    return row.around_gap("statement")


def _new_and_old(row: Row, answers: Answers | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The new and the old answers of an updated fact."""
    if answers is not None:
        entry = _entry(row, answers, _UPDATED_ANSWERS)
        if not entry:
            return (), ()
        lists = row.part(_UPDATED_ANSWERS, {"0": entry[0]}).inner("0")
        return lists.texts("new"), lists.texts("old")
    if not row.has("old_answer"):
        row.complain(f"old_answer: is missing; or put {_UPDATED_ANSWERS} beside the table")
    return _split(row.text("new_answer")), _split(str(row.value("old_answer") or ""))


def _entry(row: Row, answers: Answers | None, name: str) -> tuple[Any, ...]:
    """What the answer file lists for a row: answers, or one object with ``old`` and ``new``."""
    if answers is None:
        return ()
    entry = answers.get(row.text("unique_id"))
    if not isinstance(entry, list) or not entry:
        row.complain(f"unique_id: {name} lists no answers for {row.value('unique_id')!r}")
        return ()
    return tuple(entry)


def _split(cell: str) -> tuple[str, ...]:
    """Answers of a cell, which stand between semicolons, each once."""
    return tuple(dict.fromkeys(text.strip() for text in cell.split(";") if text.strip()))


def _answers_near(table: Path, name: str) -> Answers | None:
    """The answer file of that name beside the table or one folder above it."""
    files = (folder / name for folder in table.absolute().parents[:2])
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return None
    data = read_json(file, "file of answers")
    if not isinstance(data, dict):
        raise ProbeError(file, [f"expected an object in braces, found a {type(data).__name__}"])
    return data
