"""Which tokens carry a span of characters."""

import re
import unicodedata
from dataclasses import dataclass
from itertools import groupby

from gradloc.data.probes import Probe
from gradloc.errors import SpanError

# A token that stands for one byte of a character that the vocabulary lacks.
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
# How byte-level and SentencePiece vocabularies spell a space.
_SPACE_MARKS = frozenset("Ġ▁")


@dataclass(frozen=True)
class EncodedSpan:
    """A tokenised text in which the tokens of a span are marked.

    Args:
        input_ids: Token ids, the tokenizer's own special tokens included.
        salient: For each token, whether it carries a character of the span. The first is never
            salient, since nothing predicts it.
    """

    input_ids: list[int]
    salient: list[bool]


def encode_span(
    tokenizer,
    text: str,
    start: int,
    end: int,
    *,
    max_length: int | None = None,
    start_token: int | None = None,
    with_blank: bool = False,
) -> EncodedSpan:
    """Tokenise a text and mark the tokens that carry ``text[start:end]``.

    A token is salient when at least one character of the span is in it, wholly or in part, so a
    token that reaches over the border of the span counts. The tokenizer adds the special tokens
    that it adds in training (a leading BOS, a trailing EOS); they are never salient.

    The offsets of tokenizers are repaired where they mislead: blanks that a byte-level
    post-processor trims to nothing, the blank that a tokenizer puts before a text, and byte
    tokens that all claim the whole run of unknown characters they come from.

    Args:
        tokenizer: A fast Transformers tokenizer.
        text: The text.
        start: First character of the span.
        end: Character after the span.
        max_length: Tokens at most. What follows the span is cut first, since it does not change
            the span's likelihood, then the far left context; leading special tokens stay.
        start_token: Token to put before a text whose first token is salient, so that something
            predicts it.
        with_blank: Mark tokens of nothing but blanks right before the span as well. In most
            vocabularies a word's token holds its blank; where the blank is a token of its own
            (before a digit, in many), the likelihood of an answer begins with it.

    Returns:
        The ids and the marks.

    Raises:
        SpanError: The span is empty or outside its text; no token carries some part of it; it
            begins at the first token; it is longer than ``max_length`` allows; or the tokenizer
            is slow.
    """
    if not 0 <= start < end <= len(text):
        raise SpanError(
            f"span {start}:{end} is empty or lies outside its text of {len(text)} characters."
        )
    if not getattr(tokenizer, "is_fast", False):
        raise SpanError(
            f"{type(tokenizer).__name__} is a slow tokenizer, which does not say which "
            "characters a token stands for. Use one with a tokenizer.json."
        )
    encoding = tokenizer(
        text, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
    )
    ids = list(encoding["input_ids"])
    special = [bool(flag) for flag in encoding["special_tokens_mask"]]
    tokens = tokenizer.convert_ids_to_tokens(ids)
    ranges = _character_ranges(tokens, encoding["offset_mapping"], special, text)
    _refuse_cut_runs(tokens, ranges, text, start, end)
    salient = [first < end and start < last and first < last for first, last in ranges]
    _check_coverage(ranges, text, start, end)
    if with_blank:
        before = salient.index(True) - 1
        while before > 0 and text[slice(*ranges[before])].isspace():
            salient[before] = True
            before -= 1
    if salient[0] and start_token is not None:
        ids, salient, special = [start_token, *ids], [False, *salient], [True, *special]
    if salient[0]:
        raise SpanError(
            f"the span {text[start:end]!r} begins at the first token, which nothing predicts. "
            "Put some text before it."
        )
    if max_length is None or len(ids) <= max_length:
        return EncodedSpan(ids, salient)
    kept = _kept(salient, special, max_length, text[start:end])
    return EncodedSpan([ids[i] for i in kept], [salient[i] for i in kept])


def encode_probe(
    tokenizer,
    probe: Probe,
    answer: str | None = None,
    max_length: int | None = None,
    start_token: int | None = None,
    with_blank: bool = False,
) -> EncodedSpan:
    """Tokenise a probe with an answer and mark the answer's tokens.

    Args:
        tokenizer: A fast Transformers tokenizer.
        probe: The probe.
        answer: The answer; default: the probe's first target.
        max_length: Tokens at most; see ``encode_span``.
        start_token: Token to put before a probe without prompt; see ``encode_span``.
        with_blank: Mark a blank before the answer as well; see ``encode_span``.

    Returns:
        The ids and the marks.

    Raises:
        SpanError: The answer cannot be aligned with tokens; the probe is named.
    """
    text, start, end = probe.text(probe.targets[0] if answer is None else answer)
    try:
        return encode_span(
            tokenizer,
            text,
            start,
            end,
            max_length=max_length,
            start_token=start_token,
            with_blank=with_blank,
        )
    except SpanError as error:
        raise SpanError(f"probe {probe.id!r}: {error}") from error


def _character_ranges(
    tokens: list[str], offsets: list[tuple[int, int]], special: list[bool], text: str
) -> list[tuple[int, int]]:
    """The characters that each token carries; (0, 0) for special tokens."""
    ranges: list[tuple[int, int]] = []
    reached = 0
    for token, (first, last), is_special in zip(tokens, offsets, special, strict=True):
        if is_special:
            ranges.append((0, 0))
            continue
        if first == last:
            # Trimming moves the start of an all-blank token up to its end.
            first = min(reached, first)
        elif set(token) <= _SPACE_MARKS and not _has_blank(text[first:last]):
            # The blank before a text is in no text; it is said to be its first character.
            last = first
        ranges.append((first, last))
        reached = max(reached, last)
    return _byte_ranges(tokens, ranges, text)


def _has_blank(piece: str) -> bool:
    return any(c.isspace() or c in _SPACE_MARKS for c in piece)


def _byte_ranges(
    tokens: list[str], ranges: list[tuple[int, int]], text: str
) -> list[tuple[int, int]]:
    """Give each byte token its own character where a run of them claims several."""
    repaired: list[tuple[int, int]] = []
    for is_run, indices in _runs(tokens, ranges):
        first, last = ranges[indices[0]]
        characters = _decoded(tokens, indices) if is_run else None
        if characters is None or not _same_text(characters, text[first:last]):
            repaired += [ranges[i] for i in indices]
            continue
        for place, character in enumerate(characters, start=first):
            repaired += [(place, place + 1)] * len(character.encode("utf-8"))
    return repaired


def _runs(tokens: list[str], ranges: list[tuple[int, int]]):
    """Neighbouring byte tokens that claim the same several characters, and all other tokens."""

    def key(index: int):
        first, last = ranges[index]
        fused = last - first > 1 and _BYTE_TOKEN.fullmatch(tokens[index]) is not None
        return (True, first, last) if fused else (False, index, index)

    for (is_run, *_), indices in groupby(range(len(tokens)), key):
        yield is_run, list(indices)


def _decoded(tokens: list[str], indices: list[int]) -> str | None:
    raw = bytes(int(code, 16) for i in indices for code in _BYTE_TOKEN.findall(tokens[i]))
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _same_text(tokenised: str, original: str) -> bool:
    """Whether the characters correspond one to one, up to what the tokenizer normalises."""
    return len(tokenised) == len(original) and all(
        a == b or unicodedata.normalize("NFKC", a) == unicodedata.normalize("NFKC", b)
        for a, b in zip(tokenised, original, strict=True)
    )


def _refuse_cut_runs(
    tokens: list[str], ranges: list[tuple[int, int]], text: str, start: int, end: int
) -> None:
    for is_run, indices in _runs(tokens, ranges):
        first, last = ranges[indices[0]]
        if is_run and (first < start < last or first < end < last):
            raise SpanError(
                f"the span {text[start:end]!r} begins or ends within {text[first:last]!r}, whose "
                "byte tokens the tokenizer does not tell apart. Widen the span to all of it."
            )


def _check_coverage(ranges: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    """Refuse a span of which some character reaches no token."""
    covered = set()
    for first, last in ranges:
        covered.update(range(max(first, start), min(last, end)))
    missing = [i for i in range(start, end) if i not in covered]
    # Some tokenizers drop blanks between words, and accents or control characters anywhere.
    inside = range(start + 1, end - 1)
    lost = [
        i
        for i in missing
        if not (text[i].isspace() and i in inside) and unicodedata.category(text[i])[0] not in "MC"
    ]
    if not covered or lost:
        what = "".join(text[i] for i in lost) or text[start:end]
        raise SpanError(
            f"no token carries {what!r} of the span {text[start:end]!r}: the tokenizer drops it. "
            "Shorten the span, or use a tokenizer that knows these characters."
        )


def _kept(salient: list[bool], special: list[bool], max_length: int, span: str) -> list[int]:
    """Indices of the tokens that stay when only ``max_length`` may."""
    n_leading = special.index(False)
    first = salient.index(True)
    last = len(salient) - salient[::-1].index(True)
    stop = max(last, min(max_length, len(salient)))
    resume = n_leading + stop - max_length
    # At least one token must stay before the span, or nothing predicts its first token.
    if resume > first or (n_leading == 0 and resume == first):
        raise SpanError(
            f"the span {span!r} takes {last - first} tokens, too many for max_length "
            f"{max_length} with a token before it. Raise max_length."
        )
    return [*range(n_leading), *range(max(resume, n_leading), stop)]
