"""Fictional Knowledge: invented passages with probes of three depths."""

from collections.abc import Iterator
from pathlib import Path

from gradloc.data.benchmarks.benchmark_row import Row
from gradloc.data.benchmarks.probe_building import Fields, FieldsOf

_DEPTHS = {"mem": "verbatim", "gen": "paraphrase", "hard_gen": "composition"}


def fictional_knowledge_fields(path: Path, rows: list[Row]) -> FieldsOf:
    """Invented facts at three depths: as in the passage, paraphrased, and put together from two.

    ``mem`` probes are ``verbatim``, ``gen`` probes ``paraphrase`` and ``hard_gen`` probes
    ``composition``. ``case`` is the 0-based number of the passage, by which the paper assigns it
    to paraphrased, duplicated or single injection. All are ``new`` facts.

    Args:
        path: ``fictional_knowledge.json`` or a part of it, one passage a line.

    References:
        Chang et al. 2024, arXiv:2406.11813.
    """
    passages = {row.number: index for index, row in enumerate(rows)}

    def fields_of(row: Row) -> Iterator[Fields]:
        passage = passages[row.number]
        for prefix, depth in _DEPTHS.items():
            inputs, targets = row.texts(f"{prefix}_input"), row.texts(f"{prefix}_target")
            if inputs and targets and len(inputs) != len(targets):
                found = f"{len(inputs)} inputs and {len(targets)} targets"
                row.complain(f"{prefix}_target: expected one for each input, found {found}")
            for number, (prompt, target) in enumerate(zip(inputs, targets, strict=False)):
                yield {
                    "id": f"{prefix}-{passage}-{number}",
                    "group": "new",
                    "prompt": prompt,
                    "targets": target,
                    "depth": depth,
                    "entity": f"passage {passage}",
                    "case": str(passage),
                }

    return fields_of
