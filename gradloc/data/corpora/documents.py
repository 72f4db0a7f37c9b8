"""A dated document, the unit of every corpus."""

from dataclasses import dataclass
from typing import NamedTuple


class EntityMention(NamedTuple):
    """One mention of an entity: ``text[start:end]``, in characters."""

    start: int
    end: int
    name: str
    novel: bool


@dataclass(frozen=True)
class Document:
    """A text with its date.

    Args:
        id: Unique within its corpus.
        date: ISO date, ``YYYY-MM-DD``.
        text: The text itself.
        entities: Mentions in the text; ``novel`` marks names that the background corpus lacks.
    """

    id: str
    date: str
    text: str
    entities: tuple[EntityMention, ...] = ()
