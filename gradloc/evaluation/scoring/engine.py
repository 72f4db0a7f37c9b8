"""Scores of marked tokens in sequences: the one place where scoring runs the model.

Sequences of like length share a batch, sequences of one owner share the computation of what they
begin with (``gradloc.evaluation.scoring.shared``), logits are computed at scored positions only,
and no score depends on what else is in the batch: padding stands on the right, where causal
attention cannot see it.
"""

import contextlib
import logging
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from gradloc.errors import ModelError, SpanError
from gradloc.evaluation.scoring.shared import find_shared, score_shared
from gradloc.evaluation.scoring.tokens import (
    Span,
    SpanScore,
    context_length,
    logits_before,
    score_span,
    vocabulary_size,
)
from gradloc.models.wrappers import evaluation_mode, unwrap

logger = logging.getLogger(__name__)

# Tokens in a batch, padding included. measured: SmolLM2-135M on 2 cores takes 24 CPU seconds for
# 620 spans with 256, 27 with 2048: larger batches pad more and share fewer scored positions.
TOKEN_BUDGET = 512
# Logits held at once, in numbers: 128 MiB in float32. One long text may need more.
LOGITS_AT_ONCE = 2**25


def score_spans(
    model: nn.Module,
    spans: Sequence[Span],
    *,
    owners: Sequence[Hashable] | None = None,
    token_budget: int = TOKEN_BUDGET,
    progress: bool | None = None,
    label: str = "score",
) -> list[SpanScore]:
    """Score the marked tokens of every sequence.

    Args:
        model: Causal language model; left in the mode and with the random state it had.
        spans: Sequences with their marked positions. One longer than the model's context loses
            tokens on the left, and the log says how many sequences did.
        owners: What each sequence belongs to, (n_spans,). What all sequences of one owner begin
            with, such as the prompt before several answers, is computed once for them all.
        token_budget: Tokens in a batch; speed and memory only, never the scores.
        progress: Show a progress bar; ``None``: when on a terminal.
        label: What the bar says.

    Returns:
        One score a sequence, in order.

    Raises:
        SpanError: The marked tokens do not fit into the model's context.
        ModelError: A token that the model has no embedding of, or weights of mixed types that
            cannot be multiplied.
    """
    model = unwrap(model)
    spans = _within_context(spans, context_length(model))
    _check_vocabulary(model, spans)
    scores: dict[int, SpanScore] = {}
    groups = find_shared(spans, owners) if owners is not None else []
    in_groups = {index for group in groups for index in group.members}
    alone = [index for index in range(len(spans)) if index not in in_groups]
    with (
        evaluation_mode(model),
        # Not inference_mode: a buffer that a forward pass renews (rotary frequencies) would
        # stay an inference tensor, and training after it would fail.
        torch.no_grad(),
        _naming_mixed_types(model),
        tqdm(
            total=sum(len(span.input_ids) for span in spans),
            desc=label,
            unit="tok",
            disable=None if progress is None else not progress,
        ) as bar,
    ):
        for indices, found in score_shared(model, spans, groups, token_budget):
            for index, score in zip(indices, found, strict=True):
                if score is None:  # this kind of model cannot share
                    alone.append(index)
                    continue
                scores[index] = score
                bar.update(len(spans[index].input_ids))
        lone = [spans[index] for index in alone]
        for batch in _batches(lone, token_budget, vocabulary_size(model)):
            rows = [lone[place] for place in batch]
            for place, row, logits in zip(batch, rows, logits_before(model, rows), strict=True):
                scores[alone[place]] = score_span(row, logits)
                bar.update(len(row.input_ids))
    return [scores[index] for index in range(len(spans))]


def _batches(spans: Sequence[Span], token_budget: int, n_vocabulary: int) -> Iterator[list[int]]:
    """Indices of sequences that share a batch, the longest first.

    Longest first: what does not fit into memory fails at once, and the remaining time shown is
    an upper estimate.
    """

    def size(index: int) -> tuple[int, int]:
        return len(spans[index].input_ids), spans[index].positions[0]

    batch: list[int] = []
    positions: set[int] = set()
    for index in sorted(range(len(spans)), key=size, reverse=True):
        union = positions.union(spans[index].positions)
        n_rows, width = len(batch) + 1, len(spans[batch[0]].input_ids) if batch else 0
        too_long = n_rows * width > token_budget
        if batch and (too_long or n_rows * len(union) * n_vocabulary > LOGITS_AT_ONCE):
            yield batch
            batch, union = [], set(spans[index].positions)
        batch.append(index)
        positions = union
    if batch:
        yield batch


def _within_context(spans: Sequence[Span], limit: int | None) -> list[Span]:
    cut = []
    n_cut = 0
    for span in spans:
        # One token more than the context fits: the last is never an input.
        excess = len(span.input_ids) - (limit + 1) if limit else 0
        if excess > 0:
            n_cut += 1
            if span.positions[0] - excess < 1:
                raise SpanError(
                    f"{len(span.positions)} tokens to score do not fit into the model's context "
                    f"of {limit} tokens; shorten the answer or text."
                )
            positions = tuple(position - excess for position in span.positions)
            span = Span(span.input_ids[excess:], positions)
        cut.append(span)
    if n_cut:
        logger.warning(
            "%d of %d sequences are longer than the model's context of %d tokens and lost "
            "tokens on the left", n_cut, len(spans), limit,
        )  # fmt: skip
    return cut


def _check_vocabulary(model: Any, spans: Sequence[Span]) -> None:
    embeddings = model.get_input_embeddings()
    n_rows = getattr(embeddings, "num_embeddings", None)
    largest = max((max(span.input_ids) for span in spans), default=0)
    if n_rows is not None and largest >= n_rows:
        raise ModelError(
            f"the tokenizer makes token {largest}, but the model has embeddings of {n_rows} "
            "tokens only: special tokens were added to the tokenizer and not to the model. Use "
            "the tokenizer that the model was trained with, or model.resize_token_embeddings."
        )


@contextlib.contextmanager
def _naming_mixed_types(model: nn.Module) -> Iterator[None]:
    """Turn torch's complaint about weights of different types into one that names them."""
    try:
        yield
    except RuntimeError as error:
        types = [p.dtype for p in model.parameters() if p.is_floating_point()]
        if len(set(types)) < 2 or "type" not in str(error):
            raise
        counted = ", ".join(
            f"{types.count(kind)} tensors of {str(kind).removeprefix('torch.')}"
            for kind in sorted(set(types), key=str)
        )
        raise ModelError(
            f"the model's weights have mixed types that it cannot multiply ({counted}). "
            "Bring them to one: model.to(torch.float32)."
        ) from error
