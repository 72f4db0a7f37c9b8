"""Dated documents, and general text; ``readers`` holds the table of corpus readers."""

from gradloc.data.corpora.corpus import Corpus, Reiterable, require_documents, split_at_cutoff
from gradloc.data.corpora.documents import Document, EntityMention
from gradloc.data.corpora.general import (
    fact_passages,
    general_passages,
    held_out_texts,
    python_docs_passages,
)
from gradloc.data.corpora.texts import read_texts

__all__ = [
    "Corpus",
    "Document",
    "EntityMention",
    "Reiterable",
    "fact_passages",
    "general_passages",
    "held_out_texts",
    "python_docs_passages",
    "read_texts",
    "require_documents",
    "split_at_cutoff",
]
