"""Scores of single probes and texts under one model.

Comes in: a causal language model with its tokenizer, probes or texts. Goes out: columns with one
value an item, and the model as it was. It averages nothing (``gradloc.metrics`` does).

Sequences of like length share a batch; logits are computed at scored positions only, and no
score depends on what else is in the batch: padding stands on the right, where causal attention
cannot see it.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from gradloc.errors import SpanError
from gradloc.layers import evaluation_mode, unwrap
from gradloc.logits import logits_at
from gradloc.probes import Probe
from gradloc.spans import encode_probe

logger = logging.getLogger(__name__)

# Tokens in a batch, padding included. measured: SmolLM2-135M on 2 cores takes 24 CPU seconds for
# 620 spans with 256, 27 with 2048: larger batches pad more and share fewer scored positions.
TOKEN_BUDGET = 512
# Logits held at once, in numbers: 128 MiB in float32. One long text may need more.
LOGITS_AT_ONCE = 2**25
# Tokens of a general text that are scored at most.
TEXT_LENGTH = 512


class Span(NamedTuple):
    """Token ids, and the positions of those to score; position 0 has nothing before it."""

    input_ids: tuple[int, ...]
    positions: tuple[int, ...]


class SpanScore(NamedTuple):
    """Scores of the marked tokens of one sequence.

    Args:
        nats: Sum of their negative log-likelihoods.
        n_tokens: How many they are.
        greedy: Whether each is the likeliest token after those before it, which is to say that
            greedy decoding would write exactly them.
    """

    nats: float
    n_tokens: int
    greedy: bool

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood, nats per token."""
        return self.nats / self.n_tokens


def score_probes(
    model: nn.Module,
    tokenizer: Any,
    probes: Sequence[Probe],
    *,
    token_budget: int = TOKEN_BUDGET,
    progress: bool | None = None,
) -> dict[str, list]:
    """Score every answer of every probe under teacher forcing.

    Args:
        model: Causal language model; left in the mode and with the random state it had.
        tokenizer: Its fast tokenizer.
        probes: The probes.
        token_budget: Tokens in a batch; speed and memory only, never the scores.
        progress: Show a progress bar; ``None``: when on a terminal.

    Returns:
        Columns, aligned with ``probes``: ``nll`` (mean nats per token of the first target;
        lower is better), ``nll_sum`` (its sum), ``n_tokens``, ``exact`` (greedy decoding writes
        one of the targets), and of the old answers ``old_nll`` and ``old_exact``, ``None``
        where a probe has none.

    Raises:
        SpanError: An answer that no token covers, or with nothing before it; the probe is named.
    """
    spans: list[Span] = []
    owners: list[tuple[int, str]] = []
    for index, probe in enumerate(probes):
        for kind, answers in (("new", probe.targets), ("old", probe.old_targets)):
            for answer in answers:
                spans.append(_probe_span(tokenizer, probe, answer))
                owners.append((index, kind))
    scores = score_spans(
        model, spans, token_budget=token_budget, progress=progress, label="score probes"
    )
    found: list[dict[str, list[SpanScore]]] = [{"new": [], "old": []} for _ in probes]
    for (index, kind), score in zip(owners, scores, strict=True):
        found[index][kind].append(score)
    first = [item["new"][0] for item in found]
    return {
        "nll": [score.nll for score in first],
        "nll_sum": [score.nats for score in first],
        "n_tokens": [score.n_tokens for score in first],
        "exact": [any(score.greedy for score in item["new"]) for item in found],
        "old_nll": [item["old"][0].nll if item["old"] else None for item in found],
        "old_exact": [
            any(score.greedy for score in item["old"]) if item["old"] else None for item in found
        ],
    }


def score_texts(
    model: nn.Module,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    max_length: int = TEXT_LENGTH,
    token_budget: int = TOKEN_BUDGET,
    progress: bool | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Negative log-likelihood of all tokens of each text but the first, which has no context.

    Args:
        model: Causal language model; left as found.
        tokenizer: Its tokenizer; a start token that it adds by itself is context, not scored.
        texts: The texts.
        max_length: Tokens of each text that are read at most; the rest is left out.
        token_budget: Tokens in a batch.
        progress: Show a progress bar; ``None``: when on a terminal.

    Returns:
        Nats of each text and its number of scored tokens, both (n_texts,); zeros for a text of
        fewer than two tokens.
    """
    max_length = min(max_length, context_length(model) or max_length)
    nats, tokens = np.zeros(len(texts)), np.zeros(len(texts), int)
    # verbose=False: the tokenizer warns of long texts, which are cut in the next line.
    encoded = tokenizer(list(texts), verbose=False)["input_ids"] if len(texts) else []
    spans = [
        Span(tuple(ids[:max_length]), tuple(range(1, len(ids[:max_length])))) for ids in encoded
    ]
    scored = [index for index, span in enumerate(spans) if span.positions]
    scores = score_spans(
        model,
        [spans[index] for index in scored],
        token_budget=token_budget,
        progress=progress,
        label="score texts",
    )
    for index, score in zip(scored, scores, strict=True):
        nats[index], tokens[index] = score.nats, score.n_tokens
    return nats, tokens


def score_spans(
    model: nn.Module,
    spans: Sequence[Span],
    *,
    token_budget: int = TOKEN_BUDGET,
    progress: bool | None = None,
    label: str = "score",
) -> list[SpanScore]:
    """Score the marked tokens of every sequence; what the two functions above are made of.

    Args:
        model: Causal language model; left as found.
        spans: Sequences with their marked positions. One longer than the model's context loses
            tokens on the left, and the log says how many sequences did.
        token_budget: Tokens in a batch.
        progress: Show a progress bar; ``None``: when on a terminal.
        label: What the bar says.

    Returns:
        One score a sequence, in order.

    Raises:
        SpanError: The marked tokens do not fit into the model's context.
    """
    model = unwrap(model)
    spans = _within_context(spans, context_length(model))
    scores: list[SpanScore | None] = [None] * len(spans)
    n_tokens = sum(len(span.input_ids) for span in spans)
    with (
        evaluation_mode(model),
        # Not inference_mode: a buffer that a forward pass renews (rotary frequencies) would
        # stay an inference tensor, and training after it would fail.
        torch.no_grad(),
        tqdm(total=n_tokens, desc=label, unit="tok", disable=_disable(progress)) as bar,
    ):
        for batch in _batches(spans, token_budget, _vocabulary(model)):
            rows = [spans[index] for index in batch]
            for index, score in zip(batch, _score_batch(model, rows), strict=True):
                scores[index] = score
            bar.update(sum(len(row.input_ids) for row in rows))
    return scores


def _score_batch(model: nn.Module, rows: list[Span]) -> Iterator[SpanScore]:
    device = next(model.parameters()).device
    # The last token is never an input: nothing is asked after it.
    width = max(len(row.input_ids) for row in rows) - 1
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for number, row in enumerate(rows):
        length = len(row.input_ids) - 1
        input_ids[number, :length] = torch.tensor(row.input_ids[:-1])
        attention_mask[number, :length] = 1
    before = sorted({position - 1 for row in rows for position in row.positions})
    column = {position: number for number, position in enumerate(before)}
    logits = logits_at(
        model,
        input_ids.to(device),
        torch.tensor(before, device=device),
        attention_mask.to(device),
    )
    for row, row_logits in zip(rows, logits, strict=True):
        own = row_logits[[column[position - 1] for position in row.positions]].float()
        targets = torch.tensor([row.input_ids[position] for position in row.positions]).to(device)
        yield _score(own, targets)


def _score(logits: Tensor, targets: Tensor) -> SpanScore:
    """Score tokens from the logits before them, (n_tokens, vocab) in float32."""
    nats = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    greedy = bool((logits.argmax(dim=-1) == targets).all())
    return SpanScore(float(nats.double().sum()), len(targets), greedy)


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


def _probe_span(tokenizer: Any, probe: Probe, answer: str) -> Span:
    encoded = encode_probe(tokenizer, probe, answer)
    positions = tuple(index for index, marked in enumerate(encoded.salient) if marked)
    # What follows the answer cannot change its score.
    return Span(tuple(encoded.input_ids[: positions[-1] + 1]), positions)


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


def context_length(model: nn.Module) -> int | None:
    """Tokens that the model can see, ``None`` where its configuration sets no limit."""
    return getattr(_text_config(model), "max_position_embeddings", None)


def _vocabulary(model: nn.Module) -> int:
    return getattr(_text_config(model), "vocab_size", None) or 2**16


def _text_config(model: nn.Module) -> Any:
    return unwrap(model).config.get_text_config()


def _disable(progress: bool | None) -> bool | None:
    return None if progress is None else not progress
