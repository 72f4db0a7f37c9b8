"""The texts on which a penalty holds a model to what it was.

Comes in: a context and where texts are to come from. Goes out: texts or token rows, and plain
values that say which. It records no predictions.
"""

import random
from collections.abc import Sequence
from typing import Any, Literal, get_args

from gradloc.data.corpora import fact_passages
from gradloc.errors import MethodError
from gradloc.training.methods.base import TrainContext
from gradloc.training.methods.generation import generate_texts

# ``reference``: the context's reference texts. ``facts``: passages on people, places, companies and
# works that ship with gradloc. ``generated``: texts that the base model writes by itself.
# ``continued``: what it writes when a few words of the new documents are put before it: in their
# manner, but of what it knows already. The last three need no old data.
Source = Literal["reference", "facts", "generated", "continued"]
SOURCES: tuple[str, ...] = get_args(Source)

# Words put before the model, and how much it adds: enough for a relation ("the currency of") and
# for one statement. Longer, it would be told the new facts themselves, or drift from them.
_BEGINNING_TOKENS = 4
_ADDED_TOKENS = 24


def check_texts(method: str, source: str, n_texts: int) -> None:
    """Refuse a source or a count that cannot work.

    Raises:
        MethodError: The source is unknown, or the count is not above 0.
    """
    if source not in SOURCES:
        raise MethodError(
            f"{method}: source {source!r} is unknown; choose one of {', '.join(SOURCES)}."
        )
    if n_texts < 1:
        raise MethodError(f"{method}: n_texts must be 1 or more; found {n_texts!r}.")


def describe_texts(context: TrainContext, source: str, n_texts: int) -> dict[str, Any]:
    """Everything that ``anchor_rows`` depends on but the model, as plain values."""
    texts = {
        "reference": lambda: _reference_texts(context, n_texts),
        "facts": lambda: fact_texts(n_texts, context.arguments.seed),
        "generated": list,
        "continued": lambda: list(context.new_texts),
    }[source]()
    return {
        "source": source,
        "texts": texts,
        "n_texts": n_texts,
        "max_length": context.max_length,
        "seed": context.arguments.seed,
    }


def anchor_rows(context: TrainContext, source: str, n_texts: int) -> list[tuple[int, ...]]:
    """Token rows of reference texts, of shipped ones, or of texts that the model writes now.

    Args:
        context: Model, tokenizer, texts, ``max_length`` and seed.
        source: One of ``SOURCES``.
        n_texts: How many texts at most; given ones are drawn by the seed.

    Returns:
        Rows of 2 to ``max_length`` tokens; shorter texts are left out.

    Raises:
        MethodError: There is no such text.
    """
    if source == "reference":
        texts = _reference_texts(context, n_texts)
    elif source == "facts":
        texts = fact_texts(n_texts, context.arguments.seed)
    else:
        texts = written_texts(context, source, n_texts)
    return encoded_rows(context.tokenizer, texts, context.max_length)


def new_rows(context: TrainContext, n_texts: int) -> list[tuple[int, ...]]:
    """Token rows of the new documents, at most ``n_texts`` of them, drawn by the seed.

    Raises:
        MethodError: There are none.
    """
    texts = list(context.new_texts)
    drawn = random.Random(context.arguments.seed).sample(texts, min(n_texts, len(texts)))
    return encoded_rows(context.tokenizer, drawn, context.max_length)


def fact_texts(n_texts: int, seed: int) -> list[str]:
    """Shipped passages on people, places, companies and works, drawn by the seed."""
    texts = [passage.text for passage in fact_passages()]
    return random.Random(seed).sample(texts, min(n_texts, len(texts)))


def encoded_rows(tokenizer, texts: Sequence[str], max_length: int) -> list[tuple[int, ...]]:
    """Texts as rows of 2 to ``max_length`` tokens; shorter texts are left out.

    Raises:
        MethodError: None is left.
    """
    rows = (tuple(tokenizer(text, verbose=False)["input_ids"][:max_length]) for text in texts)
    found = [row for row in rows if len(row) >= 2]
    if not found:
        raise MethodError(f"none of {len(texts)} texts has two tokens or more.")
    return found


def written_texts(context: TrainContext, source: str, n_texts: int) -> list[str]:
    """Texts that the model writes now, ``generated`` or ``continued``.

    Raises:
        MethodError: There are no new documents to take beginnings from.
    """
    beginnings: list[list[int]] = []
    n_tokens = context.max_length
    if source == "continued":
        beginnings = _beginnings(context, n_texts)
        n_tokens = _ADDED_TOKENS
    return generate_texts(
        context.model,
        context.tokenizer,
        n=n_texts,
        n_tokens=n_tokens,
        seed=context.arguments.seed,
        beginnings=beginnings,
    )


def _beginnings(context: TrainContext, n: int) -> list[list[int]]:
    """A few tokens from the new documents, half of them from their first words."""
    rows = [
        ids
        for text in context.new_texts
        if len(ids := _plain_ids(context.tokenizer, text)[: context.max_length])
        >= _BEGINNING_TOKENS
    ]
    if not rows:
        raise MethodError(
            f"source: continued takes beginnings of {_BEGINNING_TOKENS} tokens from the new "
            "documents, and none of them is as long. Choose another source."
        )
    generator = random.Random(context.arguments.seed)
    found = []
    for number in range(n):
        ids = generator.choice(rows)
        first = 0 if number % 2 else generator.randrange(len(ids) - _BEGINNING_TOKENS + 1)
        found.append(ids[first : first + _BEGINNING_TOKENS])
    return found


def _plain_ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def _reference_texts(context: TrainContext, n: int) -> list[str]:
    texts = list(context.reference)
    if not texts:
        raise MethodError(
            "there are no reference texts to stay near. Give the recipe reference text, or "
            "source: generated."
        )
    return random.Random(context.arguments.seed).sample(texts, min(n, len(texts)))
