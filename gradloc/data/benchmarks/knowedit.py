"""KnowEdit: edits, with what should follow from them and what should not change."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gradloc.data.benchmarks.benchmark_files import stem
from gradloc.data.benchmarks.benchmark_row import Row, flatten, outdated
from gradloc.data.benchmarks.probe_building import Fields, FieldsOf


def knowedit_fields(path: Path, rows: list[Row]) -> FieldsOf:
    """Edits with their portability (what follows) and locality (what stays) probes.

    Each row is a case and makes one probe of the task ``knowedit_edit`` and one for each item of
    its ``portability`` (``updated``, needs two facts) and ``locality`` (``invariant``); ``kind``
    is the section (``Reasoning``, ``Relation_Specificity``). All answers of an item are targets,
    the first is the one scored. Items without an answer are left out, as in the authors' code.

    Args:
        path: A JSON file of the release (``ZsRE-test-all.json``, ``wikibio-test-all.json``), or
            JSONL whose sections hold parallel lists of prompts and answers.

    References:
        Zhang et al. 2024, arXiv:2401.01286.
    """
    name = stem(path)

    def fields_of(row: Row) -> Iterator[Fields]:
        subject, target = row.text("subject", "concept"), row.texts("target_new", "labels")
        case = {"entity": subject, "case": f"{name}:{row.number}"}
        yield {
            **case,
            "id": f"{row.number}-edit",
            "group": "updated",
            "prompt": row.text("prompt", "text"),
            "targets": target,
            "old_targets": outdated(_texts(row.value("ground_truth")), target),
            "task": "knowedit_edit",
        }
        for section, group in (("portability", "updated"), ("locality", "invariant")):
            for kind, number, prompt, answers in _items(row, section):
                yield {
                    **case,
                    "id": f"{row.number}-{section}-{kind}-{number}",
                    "group": group,
                    "prompt": prompt,
                    "targets": answers,
                    "depth": "composition" if section == "portability" else "paraphrase",
                    "task": f"knowedit_{section}",
                    "kind": kind,
                }

    return fields_of


def _items(row: Row, section: str) -> Iterator[tuple[str, int, str, tuple[str, ...]]]:
    """Kind, number, prompt and answers of each item in a section that has an answer."""
    if not row.has(section):
        return
    kinds = row.inner(section)
    for name, value in kinds.values.items():
        kind = "_".join(part.capitalize() for part in name.split("_"))
        for number, item in enumerate(_as_items(kinds, name, value)):
            answers = _texts(item.value("ground_truth"))
            # A prompt in several wordings is asked in the first.
            if answers and (prompts := item.texts("prompt")):
                yield kind, number, prompts[0], answers


def _as_items(kinds: Row, name: str, value: Any) -> list[Row]:
    """The items of a kind: a list of objects, or one object with parallel lists."""
    if isinstance(value, Mapping):
        prompts, truths = value.get("prompt") or [], value.get("ground_truth") or []
        if not isinstance(prompts, list) or not isinstance(truths, list):
            prompts, truths = [prompts], [truths]
        if len(prompts) != len(truths):
            kinds.complain(f"{name}: {len(prompts)} prompts and {len(truths)} answers")
            return []
        pairs = zip(prompts, truths, strict=True)
        value = [{"prompt": prompt, "ground_truth": truth} for prompt, truth in pairs]
    if not isinstance(value or [], list) or any(not isinstance(item, dict) for item in value or []):
        kinds.complain(f"{name}: expected objects with 'prompt' and 'ground_truth'")
        return []
    return [kinds.part(f"{name}.{number}", item) for number, item in enumerate(value or [])]


def _texts(value: Any) -> tuple[str, ...]:
    """All texts in lists within lists, each once."""
    return tuple(dict.fromkeys(t for t in flatten(value) if isinstance(t, str) and t.strip()))
