"""A corpus: documents on both sides of a cut-off, and their probes."""

import datetime
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from gradloc.data.corpora.documents import Document
from gradloc.data.probes import Probe
from gradloc.errors import CorpusError

T = TypeVar("T")


class Reiterable(Generic[T]):
    """An iterable that begins again with every ``for`` loop and holds nothing.

    A plain generator is empty the second time it is read; a list of a million documents does not
    fit in memory.

    Args:
        start: Makes a fresh iterator.
    """

    def __init__(self, start: Callable[[], Iterable[T]]):
        self._start = start

    def __iter__(self) -> Iterator[T]:
        return iter(self._start())


@dataclass(frozen=True)
class Corpus:
    """Dated documents, split at a cut-off, with the probes that their reader makes.

    Args:
        background: Documents dated before the cut-off.
        update: Documents dated at the cut-off or later (and before ``until``).
        probes: Probes about the documents; empty for readers of the user's own files.
        cutoff: ISO date of the split.
        until: ISO date from which on documents are left out; empty: none are.
        source: What was read, for messages: a file name or the key of the reader.
    """

    background: Iterable[Document]
    update: Iterable[Document]
    probes: Iterable[Probe] = field(default=())
    cutoff: str = ""
    source: str = ""
    until: str = ""


def split_at_cutoff(
    documents: Iterable[Document], cutoff: str
) -> tuple[Reiterable[Document], Reiterable[Document]]:
    """Split documents into those dated before ``cutoff`` and those dated from it on.

    Args:
        documents: Must be iterable more than once (a list or a ``Reiterable``).
        cutoff: ISO date. Both sides are lazy: each reads the documents again.

    Returns:
        Background and update.

    Raises:
        CorpusError: The cut-off is no ISO date.
    """
    check_date(cutoff, "cutoff")
    return (
        Reiterable(lambda: (document for document in documents if document.date < cutoff)),
        Reiterable(lambda: (document for document in documents if document.date >= cutoff)),
    )


def end_before(corpus: Corpus, until: str) -> Corpus:
    """The same corpus without the update documents dated ``until`` or later.

    Background documents and the reader's own probes stay.

    Raises:
        CorpusError: ``until`` is no ISO date, or not later than the cut-off.
    """
    check_date(until, "corpus.until")
    if until <= corpus.cutoff:
        raise CorpusError(
            f"corpus.until: {until} is not later than the cut-off {corpus.cutoff}, so no document "
            "would be left to learn. Give a later date, or leave it out."
        )
    update = Reiterable(lambda: (document for document in corpus.update if document.date < until))
    return replace(corpus, update=update, until=until)


def check_date(value: object, what: str) -> datetime.date:
    """Read an ISO date, ``YYYY-MM-DD``.

    Raises:
        CorpusError: It is not one.
    """
    try:
        if isinstance(value, str) and len(value) == 10:
            return datetime.date.fromisoformat(value)
    except ValueError:
        pass
    raise CorpusError(f"{what}: {value!r} is no date; write YYYY-MM-DD, such as '2023-01-01'.")


def require_documents(corpus: Corpus, *, background: bool = False) -> None:
    """Make sure that there is something to learn from, and on request something to keep.

    Reads no further than the first document of each side that is asked for.

    Args:
        corpus: Any corpus.
        background: Ask for documents before the cut-off as well. Only stages that need them
            (reference text for the measurement, replay) should.

    Raises:
        CorpusError: The corpus is empty, or has nothing on a side that is asked for.
    """
    has_update = any(True for _ in corpus.update)
    if has_update and not background:
        return
    has_background = any(True for _ in corpus.background)
    if not has_update and not has_background:
        raise CorpusError(
            f"{corpus.source}: no documents at all. A corpus needs at least one document; check "
            "that the file is the one you meant and is not empty."
        )
    if not has_update:
        raise CorpusError(
            f"{corpus.source}: no document is dated {corpus.cutoff} (the cut-off) or later"
            + (f" and before {corpus.until} (corpus.until)" if corpus.until else "")
            + ", so there is nothing to learn. Move corpus.cutoff to an earlier date or add newer "
            "text."
        )
    if not has_background:
        raise CorpusError(
            f"{corpus.source}: no document is dated before {corpus.cutoff} (the cut-off), so "
            "there is no reference text. Move corpus.cutoff to a later date, add older text, or "
            "name a file of reference text in measure.reference."
        )
