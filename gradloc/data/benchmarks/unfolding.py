"""What rules over columns cannot say of a benchmark: several probes a row, rows that need others.

Each function goes over a file's rows and gives a row, or a part of it, with fields of one probe.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gradloc.data.benchmarks.benchmark_files import stem
from gradloc.data.benchmarks.benchmark_row import MASK, Row, flatten, outdated, question_prompt
from gradloc.errors import ProbeError
from gradloc.utils.io import read_json

Draft = tuple[Row, dict[str, Any]]

_ANSWERS = {"answer", "new_answer"}
_FAMILIES = {"NP": "NP", "RANDOM": "random"}
_DEPTHS = {"mem": "verbatim", "gen": "paraphrase", "hard_gen": "composition"}
_SECTIONS = {"portability": ("updated", "composition"), "locality": ("invariant", "paraphrase")}
_GAP = "_X_"
# Three of TempLAMA's nine templates begin so: "_X_ is the head coach of Inter."
_ANSWER_FIRST = re.compile(rf"{_GAP} is the (.+?)(\.?)")


def templates(path: Path, rows: list[Row]) -> Iterator[Draft]:
    """The sentences in ``probe_sentences``, each with its row's other columns."""
    for row in rows:
        own_id, found = row.text("ex_id"), row.inner("probe_sentences")
        for name in found.values:
            cloze = found.inner(name)
            whole = found.part(name, {**row.values, **cloze.values})
            yield whole, {"id": own_id if len(found.values) == 1 else f"{own_id}-{name}"}


def dated_entities(path: Path, rows: list[Row]) -> Iterator[Draft]:
    """ECBD: entities of a year are ``new``; popular ones, of a file or folder so called, stay.

    ``kind`` is the family of the span, ``entity`` the title of the Wikipedia page. Two pages of
    one title (from dumps of different years) stay two entities.
    """
    n_pages = Counter(title for title, _ in {_page(row) for row in rows})
    all_popular = path.absolute().parent.name == "popular" or "popular" in stem(path).split("_")
    for row in rows:
        title, page = _page(row)
        if row.has("ex_id") and not title:
            form = "title_pageid_paragraph_sentence"
            row.complain(f"ex_id: expected {form}, found {row.value('ex_id')!r}")
        fields = {
            "entity": f"{title} ({page})" if n_pages[title] > 1 else title,
            "kind": _family(row, path),
        }
        if all_popular or row.value("year") == "popular":
            fields |= {"group": "invariant", "task": "ecbd_popular"}
        alone = [(row, {"id": row.text("ex_id")})]
        for part, own in templates(path, [row]) if row.has("probe_sentences") else alone:
            yield part, fields | own


def listed_answers(path: Path, rows: list[Row]) -> Iterator[Draft]:
    """CKL's own answers: of the file beside the table or one folder above it, or of the cells.

    A row without a gap in its statement is asked by its question.
    """
    columns = {column for row in rows for column in row.values}
    kind = "recentlama" if "easy" in path.name.lower() else "recentlama_h"
    name = f"{'updatedlama' if 'new_answer' in columns else kind}_val_answers.json"
    near = [f for folder in path.absolute().parents[:2] if (f := folder / name).is_file()]
    listed = read_json(near[0], "file of answers") if near and columns & _ANSWERS else None
    if not isinstance(listed, dict | None):
        found = type(listed).__name__
        raise ProbeError(near[0], [f"expected an object in braces, found a {found}"])
    for row in rows:
        if row.has("input") or not row.values.keys() & _ANSWERS:
            yield row, {}
            continue
        if MASK not in str(row.value("statement")) and row.has("question"):
            asked = {"prompt": question_prompt(row.text("question"))}
        else:
            asked = row.around_gap("statement")
        new, old = _cells(row, name) if listed is None else _listed(row, listed, name)
        yield row, {**asked, "targets": new, "old_targets": old}


def years(path: Path, rows: list[Row]) -> Iterator[Draft]:
    """TempLAMA: ``updated`` where a name of the last earlier year in the file no longer holds.

    ``kind`` is the year, so that each is reported apart: the query itself names none. A query
    that begins with its answer is turned round (``_X_ is the chair of A.`` -> ``The chair of A
    is``). ``entity`` is the subject's Wikidata id.
    """
    facts: list[tuple[Row, str, str, tuple[str, ...]]] = []
    history: dict[str, dict[str, tuple[str, ...]]] = {}
    for row in rows:
        year, answers = row.text("date"), row.value("answer")
        answers = answers if isinstance(answers, list) else [answers]
        if year and not re.fullmatch(r"[12]\d{3}", year):
            row.complain(f"date: expected a year, found {year!r}")
        if not all(isinstance(answer, dict) for answer in answers):
            row.complain("answer: expected objects with a 'name'")
            continue
        names = _distinct([row.part("answer", answer).text("name") for answer in answers])
        fact = row.text("id").removesuffix(f"_{year}")
        held = history.setdefault(fact, {})
        held[year] = held.get(year, ()) + names
        facts.append((row, fact, year, names))
    for row, fact, year, names in facts:
        held = history[fact]
        old = outdated(held[max((y for y in held if y < year), default=year)], held[year])
        turned = _ANSWER_FIRST.fullmatch(str(row.value("query")).strip())
        cloze = {"prompt": f"The {turned[1]} is", "suffix": turned[2]} if turned else None
        fields = {"targets": names, "old_targets": old, "entity": fact.partition("_")[0]}
        fields["group"] = "updated" if old else "invariant"
        yield row, fields | (cloze or row.around_gap("query", gap=_GAP))


def passages(path: Path, rows: list[Row]) -> Iterator[Draft]:
    """Probes of three depths; ``case`` is the 0-based number of the passage, as in the paper."""
    for passage, row in enumerate(rows):
        for prefix, depth in _DEPTHS.items():
            inputs, targets = row.texts(f"{prefix}_input"), row.texts(f"{prefix}_target")
            if inputs and targets and len(inputs) != len(targets):
                found = f"{len(inputs)} inputs and {len(targets)} targets"
                row.complain(f"{prefix}_target: expected one for each input, found {found}")
            case = {"depth": depth, "entity": f"passage {passage}", "case": str(passage)}
            for number, (prompt, target) in enumerate(zip(inputs, targets, strict=False)):
                own_id = f"{prefix}-{passage}-{number}"
                yield row, {"id": own_id, "prompt": prompt, "targets": target, **case}


def edits(path: Path, rows: list[Row]) -> Iterator[Draft]:
    """KnowEdit: the edit, and each item of ``portability`` and ``locality`` that has an answer.

    ``kind`` is the section (``Reasoning``). All answers of an item are targets, the first is the
    one scored. Items without an answer are left out, as in the authors' code; a prompt in several
    wordings is asked in the first.
    """
    for row in rows:
        subject, target = row.text("subject", "concept"), row.texts("target_new", "labels")
        case = {"entity": subject, "case": f"{stem(path)}:{row.number}"}
        asked = {"prompt": row.text("prompt", "text"), "targets": target}
        old = {"old_targets": _distinct(row.value("ground_truth"))}
        yield row, {"id": f"{row.number}-edit", "task": "knowedit_edit", **case, **asked, **old}
        for section, (group, depth) in _SECTIONS.items():
            about = {**case, "group": group, "depth": depth, "task": f"knowedit_{section}"}
            for kind, number, item in _items(row, section):
                answers = _distinct(item.value("ground_truth"))
                if answers and (prompts := item.texts("prompt")):
                    own_id = f"{row.number}-{section}-{kind}-{number}"
                    asked = {"prompt": prompts[0], "targets": answers}
                    yield row, {"id": own_id, "kind": kind, **about, **asked}


def choices(path: Path, rows: list[Row]) -> Iterator[Draft]:
    """``choices`` and the index ``gold``; or ``choices.text``, ``choices.label``, ``answerKey``."""
    for row in rows:
        if row.has("answerKey"):
            inner, key = row.inner("choices"), row.text("answerKey")
            texts, labels = inner.texts("text"), inner.texts("label")
            if len(texts) != len(labels):
                inner.complain(f"label: {len(labels)} labels for {len(texts)} texts")
            elif labels and key not in labels:
                row.complain(f"answerKey: {key!r} is none of the labels {', '.join(labels)}")
        else:
            texts, key = row.texts("choices"), row.text("gold")
            labels = tuple(map(str, range(len(texts))))
            if len(texts) == 1:
                row.complain(f"choices: expected a list of two texts or more, found {texts[0]!r}")
            if key and labels and key not in labels:
                row.complain(f"gold: expected an index from 0 to {labels[-1]}, found {key!r}")
        right = labels.index(key) if key in labels else 0
        yield row, {"candidates": texts, "targets": texts[right : right + 1]}


def pairs(path: Path, rows: list[Row]) -> Iterator[Draft]:
    """The good and the bad sentence are the candidates; the id is the paradigm's and the pair's."""
    for row in rows:
        sentences = row.text("good", "sentence_good"), row.text("bad", "sentence_bad")
        pair = row.value("pairID", "pair_id")
        own_id = {} if pair is None else {"id": f"{row.value('UID') or 'pair'}-{pair}"}
        yield row, {"candidates": sentences, "targets": sentences[0], **own_id}


def _page(row: Row) -> tuple[str, str]:
    """Title and page id from ``{title}_{page id}_{paragraph}_{sentence}``; empty if not so."""
    parts = str(row.value("ex_id") or "").rsplit("_", 3)
    return (parts[0], parts[1]) if len(parts) == 4 and parts[1].isdigit() else ("", "")


def _family(row: Row, path: Path) -> str:
    """``NP`` or ``random``, from the span's type or else from the file's name."""
    if row.has("span_type"):
        kind = str(row.value("span_type")).partition("-")[0]
        return _FAMILIES.get(kind.upper(), kind)
    words = re.split(r"[^A-Z]+", stem(path).upper())
    found = [family for name, family in _FAMILIES.items() if name in words]
    return found[0] if len(found) == 1 else ""


def _cells(row: Row, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """New and old answers from a row's cells, where they stand between semicolons, each once."""
    if "new_answer" in row.values and not row.has("old_answer"):
        row.complain(f"old_answer: is missing; or put {name} beside the table")
    new = row.text("new_answer" if "new_answer" in row.values else "answer")
    cells = (new, str(row.value("old_answer") or ""))
    new, old = (_distinct([text.strip() for text in cell.split(";")]) for cell in cells)
    return new, old


def _listed(
    row: Row, listed: Mapping[str, Any], name: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """New and old answers that the release's file lists for a row."""
    entry = listed.get(row.text("unique_id"))
    if not isinstance(entry, list) or not entry:
        row.complain(f"unique_id: {name} lists no answers for {row.value('unique_id')!r}")
        return (), ()
    if "new_answer" not in row.values:
        return tuple(entry), ()
    lists = row.part(name, {"0": entry[0]}).inner("0")
    return lists.texts("new"), lists.texts("old")


def _items(row: Row, section: str) -> Iterator[tuple[str, int, Row]]:
    """Kind, number and item of a section: lists of objects, or objects of parallel lists."""
    kinds = row.inner(section) if row.has(section) else row.part(section, {})
    for name, items in kinds.values.items():
        if isinstance(items, Mapping):
            asked, held = items.get("prompt") or [], items.get("ground_truth") or []
            if not isinstance(asked, list) or not isinstance(held, list):
                asked, held = [asked], [held]
            if len(asked) != len(held):
                kinds.complain(f"{name}: {len(asked)} prompts and {len(held)} answers")
                continue
            both = zip(asked, held, strict=True)
            items = [{"prompt": prompt, "ground_truth": truth} for prompt, truth in both]
        if not isinstance(items or [], list) or any(not isinstance(i, dict) for i in items or []):
            kinds.complain(f"{name}: expected objects with 'prompt' and 'ground_truth'")
            continue
        kind = "_".join(part.capitalize() for part in name.split("_"))
        for number, item in enumerate(items or []):
            yield kind, number, kinds.part(f"{name}.{number}", item)


def _distinct(value: Any) -> tuple[str, ...]:
    """All texts in lists within lists, each once."""
    return tuple(dict.fromkeys(t for t in flatten(value) if isinstance(t, str) and t.strip()))
