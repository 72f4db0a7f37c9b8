"""Marked tokens and their scores: what the parts of scoring have in common."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gradloc.data.batches import pad_rows
from gradloc.models.logits import forward_at
from gradloc.models.wrappers import unwrap


class Span(NamedTuple):
    """Token ids, and the positions of those to score; position 0 has nothing before it."""

    input_ids: tuple[int, ...]
    positions: tuple[int, ...]


class SpanScore(NamedTuple):
    """Scores of the marked tokens of one sequence.

    Args:
        nats: Sum of their negative log-likelihoods.
        n_tokens: How many they are.
        predicted: For each, the likeliest token after those before it.
        n_right: How many of them are the likeliest.
    """

    nats: float
    n_tokens: int
    predicted: tuple[int, ...]
    n_right: int

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood, nats per token."""
        return self.nats / self.n_tokens

    @property
    def greedy(self) -> bool:
        """Whether greedy decoding would write exactly these tokens."""
        return self.n_right == self.n_tokens

    @property
    def accuracy(self) -> float:
        """Share of the tokens that are the likeliest, 0-1."""
        return self.n_right / self.n_tokens


def logits_before(
    model: nn.Module, rows: Sequence[Span], prefix: int = 0, cache: Any = None
) -> Iterator[Tensor]:
    """Logits before the scored tokens of each row that lie behind the prefix, (n_tokens, vocab).

    Rows are padded on the right. The last token is never an input: nothing is asked after it.

    Args:
        model: Causal language model, in evaluation mode.
        rows: The sequences, each with a scored token behind the prefix.
        prefix: Tokens at the beginning whose keys and values are given.
        cache: These keys and values, row by row.
    """
    device = next(model.parameters()).device
    inputs = [row.input_ids[prefix:-1] for row in rows]
    mask = pad_rows([[1] * (prefix + len(ids)) for ids in inputs])
    before = sorted({p - 1 - prefix for row in rows for p in row.positions if p > prefix})
    column = {position: number for number, position in enumerate(before)}
    options = {"past_key_values": cache} if prefix else {}
    logits, _ = forward_at(
        model,
        pad_rows(inputs).to(device),
        torch.tensor(before, device=device),
        attention_mask=mask.to(device),
        use_cache=bool(prefix),
        **options,
    )
    for row, own in zip(rows, logits, strict=True):
        yield own[[column[p - 1 - prefix] for p in row.positions if p > prefix]]


def score_span(span: Span, logits: Tensor) -> SpanScore:
    """Score the marked tokens from the logits before them, (n_tokens, vocab)."""
    logits = logits.float()
    gold = torch.tensor([span.input_ids[p] for p in span.positions], device=logits.device)
    nats = torch.nn.functional.cross_entropy(logits, gold, reduction="none")
    predicted = logits.argmax(dim=-1)
    n_right = int((predicted == gold).sum())
    return SpanScore(float(nats.double().sum()), len(gold), tuple(predicted.tolist()), n_right)


def context_length(model: nn.Module) -> int | None:
    """Tokens that the model can see, ``None`` where its configuration sets no limit."""
    return getattr(_text_config(model), "max_position_embeddings", None)


def vocabulary_size(model: nn.Module) -> int:
    """Width of the model's logits."""
    return getattr(_text_config(model), "vocab_size", None) or 2**16


def _text_config(model: nn.Module) -> Any:
    config: Any = unwrap(model).config
    return config.get_text_config()
