"""Probes and texts as token rows, and the one way to pad rows to a batch."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from gradloc.data.probes import Probe
from gradloc.data.spans import encode_probe
from gradloc.errors import GradlocError

# Labels of this value have no loss.
IGNORED = -100
# ``input_ids`` and ``labels`` of one sequence, without padding.
Row = dict[str, list[int]]
PADDING_SIDES = ("right", "left")
LOSSES = ("all", "random_span")


def probe_rows(tokenizer, probes: Iterable[Probe], *, max_length: int = 256) -> list[Row]:
    """Token rows in which the answer's tokens alone have labels.

    Args:
        tokenizer: A fast tokenizer.
        probes: The probes, in order; the first target of each is the answer.
        max_length: Tokens a row at most; longer ones lose their left context.

    Raises:
        SpanError: An answer cannot be aligned with tokens; the probe is named.
    """
    rows = []
    for probe in probes:
        encoded = encode_probe(tokenizer, probe, max_length=max_length)
        labels = [
            token if salient else IGNORED
            for token, salient in zip(encoded.input_ids, encoded.salient, strict=True)
        ]
        rows.append({"input_ids": encoded.input_ids, "labels": labels})
    return rows


def text_rows(
    tokenizer,
    texts: Iterable[str],
    *,
    max_length: int = 256,
    loss: str = "all",
    span_lengths: Sequence[int] | None = None,
    seed: int = 0,
) -> list[Row]:
    """Token rows of ordinary text.

    Args:
        tokenizer: A tokenizer.
        texts: The texts, in order; those of fewer than two tokens are left out, since nothing
            in them can be predicted.
        max_length: Tokens a row at most; the rest of a longer text is left out.
        loss: ``all``: every token has a label; ``random_span``: one run of tokens has.
        span_lengths: Lengths to draw from for ``random_span``, in tokens.
        seed: Seed of lengths and places of random spans.

    Raises:
        GradlocError: ``loss`` is unknown, or ``random_span`` has no lengths.
    """
    if loss not in LOSSES:
        raise GradlocError(f"loss {loss!r} is unknown; choose one of {', '.join(LOSSES)}.")
    if loss == "random_span" and not span_lengths:
        raise GradlocError("loss 'random_span' needs span_lengths, the lengths to draw from.")
    generator, span_lengths = random.Random(seed), list(span_lengths or ())
    rows = []
    for text in texts:
        ids = tokenizer(text, verbose=False)["input_ids"][:max_length]
        if len(ids) < 2:
            continue
        labels = list(ids)
        if loss == "random_span":
            # The first token has no prediction, so a span begins at the second at the earliest.
            length = max(1, min(generator.choice(span_lengths), len(ids) - 1))
            start = generator.randint(1, len(ids) - length)
            inside = range(start, start + length)
            labels = [token if place in inside else IGNORED for place, token in enumerate(ids)]
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def collate(
    rows: Sequence[Row],
    pad_token_id: int,
    padding_side: str = "right",
    pad_to_multiple_of: int = 1,
) -> dict[str, Tensor]:
    """Pad rows to the longest and stack them.

    Args:
        rows: ``input_ids`` and ``labels`` of each sequence, and ``weights`` where a loss weighs
            its tokens.
        pad_token_id: Id that fills; the attention mask is 0, the label -100, the weight 0 there.
        padding_side: ``right`` or ``left``.
        pad_to_multiple_of: The width of the batch is rounded up to a multiple of this.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels``, each (batch, seq), int64; ``weights``,
        float32, where the rows have them.
    """
    ids = [row["input_ids"] for row in rows]
    shape = {"side": padding_side, "multiple_of": pad_to_multiple_of}
    batch = {
        "input_ids": pad_rows(ids, pad_token_id, **shape),
        "attention_mask": pad_rows([[1] * len(row) for row in ids], **shape),
        "labels": pad_rows([row["labels"] for row in rows], IGNORED, **shape),
    }
    if "weights" in rows[0]:
        weights = [row["weights"] for row in rows]
        batch["weights"] = pad_rows(weights, dtype=torch.float32, **shape)
    return batch


def pad_rows(
    rows: Sequence[Sequence],
    fill: int = 0,
    *,
    side: str = "right",
    multiple_of: int = 1,
    dtype: torch.dtype = torch.long,
) -> Tensor:
    """Rows of numbers as one tensor, (n_rows, width of the longest).

    Args:
        rows: The rows.
        fill: What fills the shorter ones.
        side: Where they are filled: ``right`` or ``left``.
        multiple_of: The width is rounded up to a multiple of this.
        dtype: Type of the tensor.
    """
    if side not in PADDING_SIDES:
        raise GradlocError(
            f"padding_side {side!r} is unknown; choose one of {', '.join(PADDING_SIDES)}."
        )
    width = max(len(row) for row in rows)
    width = -(-width // multiple_of) * multiple_of
    padded = torch.full((len(rows), width), fill, dtype=dtype)
    for index, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        padded[index, place] = torch.as_tensor(row, dtype=dtype)
    return padded


def pad_token_id(tokenizer) -> int:
    """Id to pad with: the padding token's, else the end token's, else 0.

    Which one is harmless: the attention mask and the labels leave padding out.
    """
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return token_id
    return 0


def training_rows(
    tokenizer,
    texts: Iterable[str],
    *,
    max_length: int,
    packing: bool,
) -> Iterator[dict[str, list[int]]]:
    """Token rows to train a causal language model on, one text at a time, each with its end token.

    Without ``packing``, a document longer than ``max_length`` is cut into several rows. With it,
    documents follow each other in rows that are all full but the last; attention and position
    ids run on across their borders, as in ordinary pretraining.

    Args:
        tokenizer: The tokenizer.
        texts: Documents; they may be a stream.
        max_length: Tokens a row at most.
        packing: Fill rows with several documents.

    Yields:
        ``input_ids`` and ``labels`` (equal) of at least two tokens; shorter rests are dropped,
        since nothing in them can be predicted.

    Raises:
        GradlocError: ``max_length`` is less than two.
    """
    if max_length < 2:
        raise GradlocError(f"max_length {max_length} is too short: a next-token loss needs 2.")
    eos = tokenizer.eos_token_id
    end = [] if eos is None else [eos]
    held: list[int] = []
    for text in texts:
        ids = tokenizer(text, verbose=False)["input_ids"]
        # Some tokenizers put the end token themselves.
        held += ids if not end or ids[-1:] == end else ids + end
        n_ready = len(held) // max_length * max_length if packing else len(held)
        yield from _rows(held[:n_ready], max_length)
        held = held[n_ready:]
    yield from _rows(held, max_length)


def dataset_rows(dataset, n: int, max_length: int, seed: int = 0) -> list[list[int]]:
    """Token rows of what a Trainer trains on, read ahead of it.

    Args:
        dataset: A dataset with a length, of which rows are drawn, or a stream of ``datasets``,
            of which the first are taken. Any other stream is left alone: what is read of it
            might be gone.
        n: Rows at most.
        max_length: Tokens a row at most.
        seed: Which rows are drawn.

    Returns:
        ``input_ids`` without padding, of two tokens or more; none where the rows have no
        ``input_ids`` (a collator may be the one to tokenise).
    """
    from datasets import IterableDataset  # slow to import, and measuring needs none

    if isinstance(dataset, IterableDataset):
        rows: Iterable = dataset.take(n)
    elif isinstance(dataset, torch.utils.data.IterableDataset) or not hasattr(dataset, "__len__"):
        return []  # some streams have a length all the same
    else:
        indices = random.Random(seed).sample(range(len(dataset)), min(n, len(dataset)))
        rows = (dataset[index] for index in indices)
    found = []
    for row in rows:
        if not isinstance(row, Mapping) or "input_ids" not in row:
            return []
        ids = torch.as_tensor(row["input_ids"])
        mask = torch.as_tensor(row.get("attention_mask", torch.ones_like(ids)))
        ids = ids[mask.bool()][:max_length].tolist()
        if len(ids) >= 2:
            found.append(ids)
    return found


def _rows(ids: list[int], max_length: int) -> Iterator[dict[str, list[int]]]:
    for start in range(0, len(ids), max_length):
        piece = ids[start : start + max_length]
        if len(piece) >= 2:
            yield {"input_ids": piece, "labels": list(piece)}
