"""Choices between given texts: multiple choice and minimal pairs."""

from collections.abc import Iterator
from pathlib import Path

from gradloc.data.benchmarks.benchmark_files import stem
from gradloc.data.benchmarks.benchmark_row import Row, question_prompt
from gradloc.data.benchmarks.probe_building import Fields, FieldsOf


def multiple_choice_fields(path: Path, rows: list[Row]) -> FieldsOf:
    """Questions with several answers of which one is right (ARC).

    The prompt is ``Question: ...`` and ``Answer:`` on two lines; the task is the file's name.

    Args:
        path: JSON with ``query, choices, gold`` (a list and the index of the right one), or in
            the hub's form with ``question, choices: {text, label}, answerKey``.

    References:
        Clark et al. 2018, arXiv:1803.05457.
    """
    task = stem(path)

    def fields_of(row: Row) -> Iterator[Fields]:
        candidates, right = _labelled(row) if row.has("answerKey") else _indexed(row)
        yield {
            "id": row.number if row.value("id") is None else row.value("id"),
            "group": "invariant",
            "prompt": question_prompt(row.text("query", "question")),
            "targets": candidates[right : right + 1],
            "candidates": candidates,
            "task": task,
        }

    return fields_of


def minimal_pairs_fields(path: Path, rows: list[Row]) -> FieldsOf:
    """Pairs of sentences of which one is grammatical (BLiMP).

    The candidates are the good and the bad sentence, and there is no prompt; ``kind`` is the
    paradigm (``UID``), the task the file's name.

    Args:
        path: JSON with ``good, bad`` or ``sentence_good, sentence_bad``, and ``UID``.

    References:
        Warstadt et al. 2020, arXiv:1912.00582.
    """
    task = stem(path)

    def fields_of(row: Row) -> Iterator[Fields]:
        good, bad = row.text("good", "sentence_good"), row.text("bad", "sentence_bad")
        paradigm, pair = row.value("UID"), row.value("pairID", "pair_id")
        yield {
            "id": row.number if pair is None else f"{paradigm or 'pair'}-{pair}",
            "group": "invariant",
            "prompt": "",
            "targets": good,
            "candidates": (good, bad),
            "task": task,
            "kind": paradigm,
        }

    return fields_of


def _indexed(row: Row) -> tuple[tuple[str, ...], int]:
    """The choices and the index of the right one; an index that is none is noted."""
    choices, gold = row.texts("choices"), row.text("gold")
    if len(choices) == 1:
        row.complain(f"choices: expected a list of two texts or more, found {choices[0]!r}")
    if gold and choices and not (gold.isdecimal() and int(gold) < len(choices)):
        row.complain(f"gold: expected an index from 0 to {len(choices) - 1}, found {gold!r}")
    return choices, int(gold) if gold.isdecimal() else 0


def _labelled(row: Row) -> tuple[tuple[str, ...], int]:
    """The same from the hub's form, where the right one is named by its label."""
    choices, key = row.inner("choices"), row.text("answerKey")
    texts, labels = choices.texts("text"), choices.texts("label")
    if len(texts) != len(labels):
        choices.complain(f"label: {len(labels)} labels for {len(texts)} texts")
    elif labels and key not in labels:
        row.complain(f"answerKey: {key!r} is none of the labels {', '.join(labels)}")
    return texts, labels.index(key) if key in labels else 0
