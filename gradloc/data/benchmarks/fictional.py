"""Fictional Knowledge: invented passages with probes of three depths.

Comes in: the file of the acquisition paper. Goes out: its probes. The passages themselves are
training text (see ``gradloc.data.corpora``).
"""

from collections.abc import Iterator
from pathlib import Path

from gradloc.data.benchmarks.building import Fields, make_probes
from gradloc.data.benchmarks.files import read_rows
from gradloc.data.benchmarks.rows import Row
from gradloc.data.probes import Probe

_DEPTHS = {"mem": "verbatim", "gen": "paraphrase", "hard_gen": "composition"}


def read_fictional_knowledge(path: str | Path) -> list[Probe]:
    """Invented facts at three depths: as in the passage, paraphrased, and put together from two.

    ``mem`` probes are ``verbatim``, ``gen`` probes ``paraphrase`` and ``hard_gen`` probes
    ``composition``. ``case`` is the 0-based number of the passage, by which the paper assigns it
    to paraphrased, duplicated or single injection. All are ``new`` facts.

    Args:
        path: ``fictional_knowledge.json`` or a part of it, one passage a line.

    References:
        Chang et al. 2024, arXiv:2406.11813.
    """
    rows = read_rows(path)
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

    return make_probes(path, rows, fields_of)
