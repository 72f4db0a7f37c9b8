"""The texts on which a penalty holds a model to what it was.

Comes in: a setting and where texts are to come from. Goes out: token rows, and plain values that
say which. It records no predictions.
"""

import random
from typing import Any

from gradloc.errors import MethodError
from gradloc.methods.base import Setting
from gradloc.methods.generation import generate_texts

SOURCES = ("reference", "generated")


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


def describe_texts(setting: Setting, source: str, n_texts: int) -> dict[str, Any]:
    """Everything that ``kept_rows`` depends on but the model, as plain values."""
    return {
        "source": source,
        "texts": _reference_texts(setting, n_texts) if source == "reference" else [],
        "n_texts": n_texts,
        "max_length": setting.max_length,
        "seed": setting.arguments.seed,
    }


def kept_rows(setting: Setting, source: str, n_texts: int) -> list[tuple[int, ...]]:
    """Token rows of reference texts, or of texts that the model writes now.

    Args:
        setting: Model, tokenizer, reference texts, ``max_length`` and seed.
        source: ``reference`` or ``generated``.
        n_texts: How many texts at most; reference texts are drawn by the seed.

    Returns:
        Rows of 2 to ``max_length`` tokens; shorter texts are left out.

    Raises:
        MethodError: There is no such text.
    """
    if source == "generated":
        texts = generate_texts(
            setting.model,
            setting.tokenizer,
            n=n_texts,
            n_tokens=setting.max_length,
            seed=setting.arguments.seed,
        )
    else:
        texts = _reference_texts(setting, n_texts)
    encoded = (
        tuple(setting.tokenizer(text, verbose=False)["input_ids"][: setting.max_length])
        for text in texts
    )
    rows = [row for row in encoded if len(row) >= 2]
    if not rows:
        raise MethodError(f"none of the {len(texts)} reference texts has two tokens or more.")
    return rows


def _reference_texts(setting: Setting, n: int) -> list[str]:
    texts = list(setting.reference)
    if not texts:
        raise MethodError(
            "there are no reference texts to stay near. Give the recipe reference text, or "
            "source: generated."
        )
    return random.Random(setting.arguments.seed).sample(texts, min(n, len(texts)))
