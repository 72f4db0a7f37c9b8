"""The table of corpus readers, and the reading of the corpus that a recipe names.

To add a reader, write a function ``(config, *, seed) -> Corpus`` and enter it in ``READERS``, or
name it in the recipe by its import path (``my_module:read_mine``).
"""

from collections.abc import Callable

from gradloc.config.recipe import CorpusConfig
from gradloc.data.corpora.corpus import Corpus, check_date, end_before, require_documents
from gradloc.data.corpora.file_readers import read_datasets, read_jsonl, read_parquet
from gradloc.errors import CorpusError
from gradloc.utils.names import lookup

READERS: dict[str, Callable[..., Corpus]] = {
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "datasets": read_datasets,
}


def read_corpus(config: CorpusConfig, *, seed: int) -> Corpus:
    """Read the corpus that a recipe names.

    Documents are read when they are iterated, again each time. Reading stops here at the first
    document after the cut-off, so a mistake further down a file shows when that line is reached.

    Args:
        config: The recipe's ``corpus`` section.
        seed: Seed for readers that draw or make documents; readers of files ignore it.

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
