"""Marked tokens and their scores: what the parts of scoring have in common."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gradloc.data.batches import pad_rows
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


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of token ids padded on the right.

    Returns:
        Ids and attention mask (1 for real tokens), both (n_rows, longest row).
    """
    attention_mask = pad_rows([[1] * len(row) for row in rows])
    return pad_rows(rows).to(device), attention_mask.to(device)


def score_tokens(logits: Tensor, targets: Sequence[int]) -> SpanScore:
    """Score tokens from the logits before them, (n_tokens, vocab)."""
    logits = logits.float()
    gold = torch.tensor(targets, device=logits.device)
    nats = torch.nn.functional.cross_entropy(logits, gold, reduction="none")
    predicted = logits.argmax(dim=-1)
    n_right = int((predicted == gold).sum())
    return SpanScore(float(nats.double().sum()), len(targets), tuple(predicted.tolist()), n_right)


def context_length(model: nn.Module) -> int | None:
    """Tokens that the model can see, ``None`` where its configuration sets no limit."""
    return getattr(_text_config(model), "max_position_embeddings", None)


def vocabulary_size(model: nn.Module) -> int:
    """Width of the model's logits."""
    return getattr(_text_config(model), "vocab_size", None) or 2**16


def _text_config(model: nn.Module) -> Any:
    config: Any = unwrap(model).config
    return config.get_text_config()
