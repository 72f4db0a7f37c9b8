"""Write the invented world as files: ``documents.jsonl`` and ``probes.jsonl``.

The recipe ``quickstart`` ships the files of the defaults; make them again from the folder above:

    python evaluation/studies/write_world.py recipes/data/quickstart
"""

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from invented_world import read_world

from gradloc.config.recipe import CorpusConfig
from gradloc.data.corpora import Document
from gradloc.data.probes import ProbeSet
from gradloc.utils.io import write_text


def write_world(folder: Path, config: CorpusConfig, seed: int) -> None:
    """Write the documents of both sides of the cut-off, and the probes, in the reader's order."""
    corpus = read_world(config, seed=seed)
    rows = map(_row, itertools.chain(corpus.background, corpus.update))
    write_text(folder / "documents.jsonl", "".join(f"{row}\n" for row in rows))
    ProbeSet(corpus.probes).save(folder / "probes.jsonl")


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
    write_world(given.folder, CorpusConfig(cutoff=given.cutoff, options=options), given.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
