"""Anchor texts: the text on which a method keeps a model near its base, and where it comes from."""

import random
from collections.abc import Sequence
from typing import Literal

from gradloc.data.batches import dataset_rows
from gradloc.data.corpora import fact_passages
from gradloc.errors import MethodError
from gradloc.training.methods.base import TrainContext

# ``reference``: the context's reference texts. ``facts``: passages on people, places, companies and
# works that ship with gradloc. ``generated``: texts that the base model writes by itself.
# ``continued``: its continuations of a few words of the new documents, so in their style but of
# what it already knows. The last three need no old data.
Source = Literal["reference", "facts", "generated", "continued"]

# Tokens of a beginning, and how many the model adds: enough for a relation ("the currency of") and
# for one statement. Longer ones would give away the new facts, or drift from them. assumption
_BEGINNING_TOKENS = 4
_ADDED_TOKENS = 24


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
    if source in ("generated", "continued"):
        return written_texts(context, source, n_texts)
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


def written_texts(context: TrainContext, source: str, n_texts: int) -> list[str]:
    """Texts that the model writes now, ``generated`` or ``continued``.

    Raises:
        MethodError: There are no new documents to take beginnings from.
    """
    from gradloc.training.methods.generation import generate_texts

    continued = source == "continued"
    return generate_texts(
        context.model,
        context.tokenizer,
        n=n_texts,
        n_tokens=_ADDED_TOKENS if continued else context.max_length,
        seed=context.draw_seed,
        beginnings=_beginnings(context, n_texts) if continued else (),
    )


def _beginnings(context: TrainContext, n: int) -> list[list[int]]:
    """A few tokens from the new documents, half of them from their first words."""
    encoded = (
        context.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        for text in context.new_texts
    )
    rows = [ids[: context.max_length] for ids in encoded]
    rows = [ids for ids in rows if len(ids) >= _BEGINNING_TOKENS]
    if not rows:
        raise MethodError(
            f"source: continued takes beginnings of {_BEGINNING_TOKENS} tokens from the new "
            "documents, and none of them is as long. Choose another source."
        )
    generator = random.Random(context.draw_seed)
    found = []
    for number in range(n):
        ids = generator.choice(rows)
        first = 0 if number % 2 else generator.randrange(len(ids) - _BEGINNING_TOKENS + 1)
        found.append(ids[first : first + _BEGINNING_TOKENS])
    return found
