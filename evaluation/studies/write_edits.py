"""Write the edits of KnowEdit as files: ``documents.jsonl`` and ``probes.jsonl``.

The recipe ``edited-facts`` reads the files of the defaults; make them from the folder above:

    python evaluation/studies/write_edits.py data/knowedit/counterfact.jsonl data/edited_facts
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from write_world import write_corpus

from gradloc.data.benchmarks import read_benchmark
from gradloc.data.corpora import Document, EntityMention
from gradloc.data.probes import Probe
from gradloc.errors import GradlocError

_EDIT = "knowedit_edit"
# The same question about the subject by another of its names.
_ALIAS = "Subject_Aliasing"
_CHOOSES_EVERY = 3


def edit_probes(path: Path, n_edits: int | None = None) -> list[Probe]:
    """What a file of edits asks.

    Probes are ``updated``: the edit itself (``verbatim``), the subject by another name
    (``paraphrase``), what follows from the edit (``composition``); and ``invariant``, where it
    should change nothing (still to be screened to what the base model has right). Every third
    subject chooses layers and is not asked what should stay, the others judge.

    Args:
        path: A file of KnowEdit, as released.
        n_edits: The first so many; ``None``: all.

    Raises:
        GradlocError: The file has problems or no edits.
    """
    asked = list(read_benchmark("knowedit", path))
    cases = {probe.case for probe in [p for p in asked if p.task == _EDIT][:n_edits]}
    if not cases:
        raise GradlocError(f"{path}: no edits found.")
    probes = [_ordinary(probe) for probe in asked if probe.case in cases]
    choosing = set(list(dict.fromkeys(probe.entity for probe in probes))[::_CHOOSES_EVERY])
    return [
        replace(probe, split="localization" if probe.entity in choosing else "evaluation")
        for probe in probes
        if probe.entity not in choosing or probe.group != "invariant"
    ]


def edit_documents(probes: Sequence[Probe], date: str) -> Iterator[Document]:
    """Each edit as one document, its prompt and its new answer as a sentence."""
    for probe in probes:
        if probe.depth == "verbatim":
            text = f"{probe.prompt} {probe.targets[0]}."
            start = text.find(probe.entity)
            mention = EntityMention(start, start + len(probe.entity), probe.entity, novel=False)
            named = bool(probe.entity) and start >= 0
            yield Document(probe.id, date, text, (mention,) if named else ())


def _ordinary(probe: Probe) -> Probe:
    """The probe at its depth and without the benchmark's own ways of counting it."""
    depth = "verbatim" if probe.task == _EDIT else probe.depth
    if probe.kind == _ALIAS:
        depth = "paraphrase"
    return replace(probe, depth=depth, task="", kind="", case="")


def main(arguments: Sequence[str]) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("edits", type=Path, help="a file of KnowEdit, as released")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n-edits", type=int, default=160, help="the first so many")
    parser.add_argument("--date", default="2024-01-01", help="the day on which all of them change")
    given = parser.parse_args(arguments)
    try:
        probes = edit_probes(given.edits, given.n_edits)
        write_corpus(given.folder, edit_documents(probes, given.date), probes)
    except GradlocError as error:
        sys.exit(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
