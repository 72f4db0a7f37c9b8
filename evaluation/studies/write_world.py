"""Write the invented world as files: ``documents.jsonl`` and ``probes.jsonl``.

The recipe ``quickstart`` ships the files of the defaults; make them again from the folder above:

    python evaluation/studies/write_world.py recipes/data/quickstart
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from invented_world import read_world

from gradloc.config.recipe import CorpusConfig
from gradloc.data.corpora import Document
from gradloc.data.probes import Probe, ProbeSet
from gradloc.utils.io import write_text


def write_corpus(folder: Path, documents: Iterable[Document], probes: Iterable[Probe]) -> None:
    """Write documents and probes in their order."""
    write_text(folder / "documents.jsonl", "".join(f"{_row(one)}\n" for one in documents))
    ProbeSet(probes).save(folder / "probes.jsonl")


def _row(document: Document) -> str:
    row = {"id": document.id, "date": document.date, "text": document.text}
    if document.entities:
        row["entities"] = document.entities
    return json.dumps(row, ensure_ascii=False)


def main(arguments: Sequence[str]) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--cutoff", default="2010-12-31")
    parser.add_argument("--n-entities", type=int, default=40)
    parser.add_argument("--n-phrasings", type=int, default=4)
    given = parser.parse_args(arguments)
    options = {"n_entities": given.n_entities, "n_phrasings": given.n_phrasings}
    corpus = read_world(CorpusConfig(cutoff=given.cutoff, options=options), seed=given.seed)
    documents = itertools.chain(corpus.background, corpus.update)
    write_corpus(given.folder, documents, corpus.probes)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
