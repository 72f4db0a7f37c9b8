"""Dated documents: readers, the split at a cut-off, and the shipped corpus.

Comes in: a ``CorpusConfig``. Goes out: a ``Corpus``. It knows nothing of tokens or models.

To add a reader, write a function ``(config, *, seed) -> Corpus`` and enter it in ``READERS``.
"""

from collections.abc import Callable

from gradloc.config.recipe import CorpusConfig
from gradloc.data.corpora.collection import (
    Corpus,
    Stream,
    check_date,
    end_before,
    require_documents,
    split_at_cutoff,
)
from gradloc.data.corpora.documents import Document, EntityMention
from gradloc.data.corpora.edits import read_edits
from gradloc.data.corpora.general import (
    fact_passages,
    general_passages,
    held_out_texts,
    python_docs_passages,
)
from gradloc.data.corpora.readers import read_datasets, read_jsonl, read_parquet
from gradloc.data.corpora.texts import read_texts
from gradloc.data.corpora.world import read_world
from gradloc.errors import CorpusError
from gradloc.utils.names import lookup

__all__ = [
    "READERS",
    "Corpus",
    "Document",
    "EntityMention",
    "Stream",
    "fact_passages",
    "general_passages",
    "held_out_texts",
    "python_docs_passages",
    "read_corpus",
    "read_texts",
    "require_documents",
    "split_at_cutoff",
]

READERS: dict[str, Callable[..., Corpus]] = {
    "world": read_world,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "datasets": read_datasets,
    "knowedit": read_edits,
}


def read_corpus(config: CorpusConfig, *, seed: int) -> Corpus:
    """Read the corpus that a recipe names.

    Documents are read when they are iterated, every time anew. Reading stops here at the first
    document after the cut-off, so a mistake further down a file shows when that line is reached.

    Args:
        config: The recipe's ``corpus`` section.
        seed: Seed of generated corpora; readers of files ignore it.

    Returns:
        Background and update documents and, where the reader makes them, probes.

    Raises:
        CorpusError: Unknown reader, missing file, no cut-off date, an unreadable record, no
            document at all, or none from the cut-off on (and before ``until``); an ``until`` that
            is not later than the cut-off.
    """
    reader = lookup(READERS, config.source, "corpus.source: reader", CorpusError)
    check_date(config.cutoff, "corpus.cutoff")
    corpus = reader(config, seed=seed)
    if config.until:
        corpus = end_before(corpus, config.until)
    require_documents(corpus)
    return corpus
