"""General prose that a model must keep: reference text, and text held out to judge forgetting.

The passages were written for this project; more prose ships with Python. None of it states a fact
that the shipped update documents change.
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

MAX_PYTHON_DOCS = 48

# Plain prose: sentences of words. A paragraph of the manual with more than a few signs of code
# (quoted names, brackets) is read like code.
_MIN_WORDS, _MAX_WORDS = 40, 130
_MAX_CODE_SIGNS_PER_WORD = 0.08
# Notes on versions differ from one Python to the next.
_NOTES = ("Changed in", "New in", "Added in", "Deprecated", "Removed in", "See also", "Note:")


@dataclass(frozen=True)
class Passage:
    """A paragraph of general text: where it comes from and what it is about."""

    id: str
    domain: str
    text: str


def general_passages(half: Literal["reference", "held_out"]) -> tuple[Passage, ...]:
    """One half of the shipped passages.

    Passages of each domain go to the halves by turns, so the halves are disjoint and cover the
    same domains.

    Args:
        half: ``reference`` may be used by a method, ``held_out`` only judges.
    """
    counts: dict[str, int] = {}
    chosen = []
    for passage in _all_passages():
        turn = counts.get(passage.domain, 0)
        counts[passage.domain] = turn + 1
        if turn % 2 == ("reference", "held_out").index(half):
            chosen.append(passage)
    return tuple(chosen)


@cache
def fact_passages() -> tuple[Passage, ...]:
    """Shipped passages on people, places, companies and works, about one fact a sentence.

    They are there to be protected and judge nothing: the general passages name hardly anybody,
    and most of what a model knows is about names.
    """
    return _shipped("fact_text.jsonl")


@cache
def python_docs_passages(limit: int = MAX_PYTHON_DOCS) -> tuple[Passage, ...]:
    """Paragraphs of plain prose from the language reference that ships with Python.

    They were written by many people for another purpose, so they are a domain that no method
    here is tuned to. The wording differs a little from one Python version to the next; compare
    figures made with the same one.

    Args:
        limit: At most so many, taken evenly from all that qualify.
    """
    from pydoc_data.topics import topics

    found, seen = [], set()
    for name in sorted(topics):
        for number, block in enumerate(re.split(r"\n\s*\n", topics[name])):
            text = _unmarked(block)
            if _is_prose(block, text) and text not in seen:
                seen.add(text)
                found.append(Passage(f"python-{name}-{number}", "python_docs", text))
    step = max(1.0, len(found) / limit)
    return tuple(found[int(turn * step)] for turn in range(min(limit, len(found))))


def held_out_texts() -> dict[str, tuple[str, ...]]:
    """Texts for nats per token, by domain; no method sees any of them."""
    return {
        "general": tuple(passage.text for passage in general_passages("held_out")),
        "python_docs": tuple(passage.text for passage in python_docs_passages()),
    }


@cache
def _all_passages() -> tuple[Passage, ...]:
    return _shipped("general_text.jsonl")


def _shipped(name: str) -> tuple[Passage, ...]:
    text = files("gradloc.data.corpora").joinpath(name).read_text(encoding="utf-8")
    return tuple(Passage(**json.loads(line)) for line in text.splitlines())


def _unmarked(block: str) -> str:
    """A block of the manual on one line, without the stars of emphasis."""
    plain = re.sub(r"\*(\w[^*]*)\*", r"\1", block)
    # Lines are broken at hyphens, too.
    return " ".join(re.sub(r"(?<=\w-)\n\s*", "", plain).split())


def _is_prose(block: str, text: str) -> bool:
    words = text.split()
    if not _MIN_WORDS <= len(words) <= _MAX_WORDS:
        return False
    if not text[0].isupper() or not text.endswith(".") or text.startswith(_NOTES):
        return False
    # Indented blocks are code, grammar or parts of lists.
    if any(line.startswith((" ", "\t", "+", "|")) for line in block.strip("\n").splitlines()):
        return False
    signs = len(re.findall(r"[\"“”‘’`=<>\[\]{}()_|*]|::|->", text))
    return signs <= _MAX_CODE_SIGNS_PER_WORD * len(words)
