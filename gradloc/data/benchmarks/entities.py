"""Cloze sentences about entities: ECBD and Entity Inferences."""

import re
from collections.abc import Iterator
from pathlib import Path

from gradloc.data.benchmarks.benchmark_files import stem
from gradloc.data.benchmarks.benchmark_row import MASK, Row
from gradloc.data.benchmarks.probe_building import Fields, FieldsOf

_SENTINEL = re.compile(r"<extra_id_\d+>")
_FAMILIES = {"NP": "NP", "RANDOM": "random"}


def ecbd_fields(path: Path, rows: list[Row]) -> FieldsOf:
    """Cloze sentences about entities by the year in which they appeared, and popular ones.

    The prompt is the sentence before the gap, the suffix what follows it. ``kind`` is the family
    of the span (``NP``, ``random``), ``entity`` the title of the Wikipedia page. Entities of a
    year are ``new`` facts under the task ``ecbd``; popular ones, of a file or folder so called,
    are ``invariant`` under ``ecbd_popular``. ``date`` is the first day of the year.

    Args:
        path: ``np_spans_*.json`` or ``random_spans_*.json`` of the release, or a file in the
            form of Entity Knowledge Propagation (``probe_sentences.template_0``).

    References:
        Onoe et al. 2022, arXiv:2205.02832; Onoe et al. 2023, arXiv:2305.01651 (second form).
    """
    pages: dict[str, set[str]] = {}
    for row in rows:
        title, page = _page(row)
        pages.setdefault(title, set()).add(page)
    by_name = _names_popular(Path(path))

    def fields_of(row: Row) -> Iterator[Fields]:
        title, page = _page(row)
        if row.has("ex_id") and not title:
            form = "title_pageid_paragraph_sentence"
            row.complain(f"ex_id: expected {form}, found {row.value('ex_id')!r}")
        popular = by_name or row.value("year") == "popular"
        year = str(row.value("year") or "")
        for own_id, cloze in _sentences(row):
            is_release = cloze is row
            prompt, suffix = cloze.around_gap("masked_sentence" if is_release else "probe_sentence")
            yield {
                "id": own_id,
                "group": "invariant" if popular else "new",
                "prompt": prompt,
                "targets": _gold(cloze) if is_release else _labels(cloze, "label"),
                "suffix": suffix,
                # Two pages of one title (from dumps of different years) stay two entities.
                "entity": f"{title} ({page})" if len(pages[title]) > 1 else title,
                "date": f"{year}-01-01" if re.fullmatch(r"\d{4}", year) else "",
                "task": "ecbd_popular" if popular else "ecbd",
                "kind": _family(row, path),
            }

    return fields_of


def entity_inferences_fields(path: Path, rows: list[Row]) -> FieldsOf:
    """Sentences about new entities with a gap and about a dozen words to fill it.

    The candidates are all labels, the target is the right one; ``kind`` is the category of the
    entity (``disaster``, ``tv_show``, ``fake_person``), where the file has it.

    Args:
        path: A JSONL file of Entity Knowledge Propagation (``tv_show_explicit_*.json``), or
            ``entity_inferences_augmented.json`` of the distillation paper.

    References:
        Onoe et al. 2023, arXiv:2305.01651; Padmanabhan et al. 2023, arXiv:2306.09306.
    """

    def fields_of(row: Row) -> Iterator[Fields]:
        entity = row.text("ent_str")
        for own_id, cloze in _sentences(row, release=False):
            candidates = _labels(cloze, "labels")
            gold = _labels(cloze if cloze.has("label") else row, "label")
            if unknown := [text for text in gold if candidates and text not in candidates]:
                row.complain(f"label: {unknown[0]!r} is none of the {len(candidates)} labels")
            prompt, suffix = cloze.around_gap("probe_sentence")
            yield {
                "id": own_id,
                "group": "new",
                "prompt": prompt,
                "targets": gold,
                "suffix": suffix,
                "candidates": candidates,
                "entity": entity,
                "task": "entity_inferences",
                "kind": row.value("category"),
            }

    return fields_of


def _sentences(row: Row, release: bool = True) -> Iterator[tuple[str, Row]]:
    """Own id and cloze sentence of each probe in a row."""
    own_id = row.text("ex_id")
    if release and not row.has("probe_sentences"):
        yield own_id, row
        return
    templates = row.inner("probe_sentences")
    for name in templates.values:
        yield own_id if len(templates.values) == 1 else f"{own_id}-{name}", templates.inner(name)


def _page(row: Row) -> tuple[str, str]:
    """Title and page id from ``{title}_{page id}_{paragraph}_{sentence}``; empty if not so."""
    parts = str(row.value("ex_id") or "").rsplit("_", 3)
    return (parts[0], parts[1]) if len(parts) == 4 and parts[1].isdigit() else ("", "")


def _gold(row: Row) -> tuple[str, ...]:
    """The answer of ECBD's own release: ``answer_d`` by its mask, or ``answer_str`` around it."""
    if row.has("answer_d"):
        return _labels(row.inner("answer_d"), MASK)
    return _labels(row, "answer_str")


def _labels(row: Row, column: str) -> tuple[str, ...]:
    """The texts of a column without T5's sentinels."""
    return tuple(_SENTINEL.sub("", text).strip() for text in row.texts(column))


def _family(row: Row, path: str | Path) -> str:
    """``NP`` or ``random``, from the span's type or else from the file's name."""
    if row.has("span_type"):
        kind = str(row.value("span_type")).partition("-")[0]
        return _FAMILIES.get(kind.upper(), kind)
    words = {word.upper() for word in re.split(r"[^a-z]+", stem(path).lower())}
    found = [family for name, family in _FAMILIES.items() if name in words]
    return found[0] if len(found) == 1 else ""


def _names_popular(path: Path) -> bool:
    return path.absolute().parent.name == "popular" or "popular" in stem(path).split("_")
