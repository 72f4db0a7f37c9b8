"""Anchor texts: the text on which a method keeps a model near its base, and where it comes from."""

import random
from collections.abc import Sequence
from typing import Literal

from gradloc.data.batches import dataset_rows
from gradloc.data.corpora import fact_passages
from gradloc.errors import MethodError
from gradloc.training.methods.base import TrainContext

# ``reference``: the context's reference texts. ``facts``: passages on people, places, companies and
# works that ship with gradloc; they need no old data.
Source = Literal["reference", "facts"]


def anchor_texts(context: TrainContext, source: str, n_texts: int) -> list[str]:
    """Texts of one source.

    Args:
        context: Model, tokenizer, texts, ``max_length`` and seed.
        source: One of ``Source``.
        n_texts: How many texts at most; given ones are drawn by the seed.

    Raises:
        MethodError: There is no such text.
    """
    seed = context.draw_seed
    if source == "facts":
        return fact_texts(n_texts, seed)
    if not context.reference:
        raise MethodError(
            "source: reference takes reference texts, and there are none. Give the recipe "
            "reference text (measure.reference), or take source: facts."
        )
    return drawn(context.reference, n_texts, seed)


def anchor_rows(context: TrainContext, source: str, n_texts: int) -> list[tuple[int, ...]]:
    """Token rows of ``anchor_texts``, each of 2 to ``max_length`` tokens."""
    texts = anchor_texts(context, source, n_texts)
    return encoded_rows(context.tokenizer, texts, context.max_length)


def new_rows(context: TrainContext, n_texts: int) -> list[tuple[int, ...]]:
    """At most ``n_texts`` of the rows that are trained on, drawn by the seed.

    An end token behind a document is left out: all documents share it. Empty where rows cannot
    be read ahead of the Trainer, or are tokenised by its collator.
    """
    found = dataset_rows(context.dataset, n_texts, context.max_length, context.draw_seed)
    eos = context.tokenizer.eos_token_id
    rows = [tuple(row[:-1] if row[-1] == eos else row) for row in found]
    return [row for row in rows if len(row) >= 2]


def drawn(texts: Sequence[str], n: int, seed: int) -> list[str]:
    """At most ``n`` of the texts, in an order that depends on the seed."""
    return random.Random(seed).sample(list(texts), min(n, len(texts)))


def fact_texts(n_texts: int, seed: int) -> list[str]:
    """Shipped passages on people, places, companies and works, drawn by the seed."""
    return drawn([passage.text for passage in fact_passages()], n_texts, seed)


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
