"""Which tokens carry a span of characters.

Comes in: a fast tokenizer, a text and a character span. Goes out: token ids with the salient
ones marked, or a refusal. It runs no model and makes no batches.
"""

from dataclasses import dataclass

from gradloc.errors import SpanError
from gradloc.probes import Probe


@dataclass(frozen=True)
class EncodedSpan:
    """A tokenised text in which the tokens of a span are marked.

    Args:
        input_ids: Token ids, special tokens included.
        salient: For each token, whether it carries a character of the span.
    """

    input_ids: list[int]
    salient: list[bool]


def encode_span(
    tokenizer, text: str, start: int, end: int, *, max_length: int | None = None
) -> EncodedSpan:
    """Tokenise a text and mark the tokens that carry ``text[start:end]``."""
    if not 0 <= start < end <= len(text):
        raise SpanError(
            f"span {start}:{end} is empty or lies outside its text of {len(text)} characters."
        )
    if not getattr(tokenizer, "is_fast", False):
        raise SpanError(f"{type(tokenizer).__name__} is a slow tokenizer without offsets.")
    encoding = tokenizer(text, return_offsets_mapping=True, verbose=False)
    ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
    salient = [first < end and last > start and last > first for first, last in offsets]
    if not any(salient):
        raise SpanError(f"no token covers the span {text[start:end]!r}.")
    if salient[0]:
        raise SpanError(
            f"the span {text[start:end]!r} begins at the first token, which nothing predicts. "
            "Put some text before it."
        )
    return EncodedSpan(list(ids), salient)


def encode_probe(
    tokenizer, probe: Probe, answer: str | None = None, max_length: int | None = None
) -> EncodedSpan:
    """Tokenise a probe with an answer and mark the answer's tokens."""
    text, start, end = probe.text(probe.targets[0] if answer is None else answer)
    try:
        return encode_span(tokenizer, text, start, end, max_length=max_length)
    except SpanError as error:
        raise SpanError(f"probe {probe.id!r}: {error}") from error
