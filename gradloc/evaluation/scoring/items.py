"""Probes and general texts to scores."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from gradloc.data.probes import Probe
from gradloc.data.spans import encode_probe
from gradloc.errors import ModelError
from gradloc.evaluation.scoring.engine import score_spans
from gradloc.evaluation.scoring.tokens import Span, SpanScore, context_length

# Tokens of a general text that are scored at most.
TEXT_LENGTH = 512


class TextScores(NamedTuple):
    """Scores of general texts, one a text.

    Args:
        nats: Sum of the negative log-likelihoods of the scored tokens, (n_texts,).
        tokens: Number of scored tokens, (n_texts,).
        n_bytes: Bytes of UTF-8 that the scored tokens stand for, (n_texts,).
    """

    nats: np.ndarray
    tokens: np.ndarray
    n_bytes: np.ndarray


def score_probes(
    model: nn.Module, tokenizer: Any, probes: Sequence[Probe], *, progress: bool | None = None
) -> dict[str, list]:
    """Score every answer of every probe under teacher forcing.

    The prompt of a probe runs through the model once for all its answers.

    Args:
        model: Causal language model; left in the mode and with the random state it had.
        tokenizer: Its fast tokenizer.
        probes: The probes.
        progress: Show a progress bar; ``None``: when on a terminal.

    Returns:
        Columns, aligned with ``probes``. Of the first target: ``nll`` (mean nats per token; lower
        is better), ``nll_sum`` (its sum), ``n_tokens``, ``token_accuracy`` (share of its tokens
        that are the likeliest) and ``predicted`` (the likeliest token in place of each). Of all
        targets: ``exact`` (greedy decoding writes one of them). Of the old answers ``old_nll``,
        ``old_nll_sum`` (of the first) and ``old_exact``, ``None`` where a probe has none. Of the
        candidates ``candidate_nats`` (sum of each), ``candidate_lengths`` (characters) and
        ``candidate_right`` (whether it is a target), ``None`` where a probe has none.
        ``truncated``: whether the prompt lost its beginning to the model's context.

    Raises:
        SpanError: An answer that no token covers, or with nothing before it; the probe is named.
        ModelError: As ``score_spans``.
    """
    # An answer in several roles, such as a target among the candidates, is scored once.
    place: dict[tuple[int, str], int] = {}
    for index, probe in enumerate(probes):
        for answer in _answers(probe):
            place.setdefault((index, answer), len(place))
    spans = [probe_span(tokenizer, probes[index], answer) for index, answer in place]
    scores = score_spans(
        model, spans, owners=[index for index, _ in place], progress=progress, label="score probes"
    )
    limit = context_length(model)
    rows = []
    for index, probe in enumerate(probes):
        own = {answer: place[index, answer] for answer in _answers(probe)}
        cut = any(_is_cut(spans[number], limit) for number in own.values())
        rows.append(_columns_of(probe, {a: scores[n] for a, n in own.items()}, cut))
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def score_whole_probes(
    model: nn.Module, tokenizer: Any, probes: Sequence[Probe], *, progress: bool | None = None
) -> dict[str, list]:
    """Score all tokens of prompt and first target but the first token.

    Returns:
        Column ``whole_nll``: mean nats per token of the whole text; lower is better.
    """
    spans = []
    for probe in probes:
        ids = probe_span(tokenizer, probe, probe.targets[0]).input_ids
        spans.append(Span(ids, tuple(range(1, len(ids)))))
    scores = score_spans(model, spans, progress=progress, label="score whole texts")
    return {"whole_nll": [score.nll for score in scores]}


def score_texts(
    model: nn.Module,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    max_length: int = TEXT_LENGTH,
    progress: bool | None = None,
) -> TextScores:
    """Negative log-likelihood of all tokens of each text but the first, which has no context.

    Args:
        model: Causal language model; left as found.
        tokenizer: Its fast tokenizer; a start token that it adds by itself is context.
        texts: The texts.
        max_length: Tokens of each text that are read at most; the rest is left out.
        progress: Show a progress bar; ``None``: when on a terminal.

    Returns:
        Nats, tokens and bytes of each text; zeros for a text of fewer than two tokens.
    """
    max_length = min(max_length, context_length(model) or max_length)
    found = TextScores(*(np.zeros(len(texts), kind) for kind in (float, int, int)))
    spans, scored = [], []
    # verbose=False: the tokenizer warns of long texts, which are cut in the next lines.
    options = {"return_offsets_mapping": True, "verbose": False}
    encoded = tokenizer(list(texts), **options) if len(texts) else {"input_ids": []}
    for index, ids in enumerate(encoded["input_ids"]):
        ids = ids[:max_length]
        if len(ids) > 1:
            scored.append(index)
            spans.append(Span(tuple(ids), tuple(range(1, len(ids)))))
            offsets = encoded["offset_mapping"][index]
            covered = texts[index][offsets[1][0] : offsets[len(ids) - 1][1]]
            found.n_bytes[index] = len(covered.encode("utf-8"))
    scores = score_spans(model, spans, progress=progress, label="score texts")
    for index, score in zip(scored, scores, strict=True):
        found.nats[index], found.tokens[index] = score.nats, score.n_tokens
    return found


def probe_span(tokenizer: Any, probe: Probe, answer: str) -> Span:
    """A probe's tokens up to the end of an answer, with the answer's to score.

    The blank before an answer belongs to it, also where it is a token of its own, as in ECBD and
    in lm-evaluation-harness.

    Raises:
        SpanError: The answer cannot be aligned with tokens.
        ModelError: A probe without prompt, and a tokenizer without a token to begin a text with.
    """
    encoded = encode_probe(
        tokenizer, probe, answer, start_token=_start_token(tokenizer, probe), with_blank=True
    )
    positions = tuple(index for index, marked in enumerate(encoded.salient) if marked)
    # What follows the answer cannot change its score.
    return Span(tuple(encoded.input_ids[: positions[-1] + 1]), positions)


def _answers(probe: Probe) -> tuple[str, ...]:
    return (*probe.targets, *probe.old_targets, *probe.candidates)


def _columns_of(probe: Probe, score_of: dict[str, SpanScore], truncated: bool) -> dict[str, object]:
    targets, old, candidates = (
        [score_of[answer] for answer in answers]
        for answers in (probe.targets, probe.old_targets, probe.candidates)
    )
    first = targets[0]
    return {
        "nll": first.nll,
        "nll_sum": first.nats,
        "n_tokens": first.n_tokens,
        "token_accuracy": first.accuracy,
        "predicted": list(first.predicted),
        "exact": any(score.greedy for score in targets),
        "old_nll": old[0].nll if old else None,
        "old_nll_sum": old[0].nats if old else None,
        "old_exact": any(score.greedy for score in old) if old else None,
        "candidate_nats": [score.nats for score in candidates] or None,
        "candidate_lengths": [len(text) for text in probe.candidates] or None,
        "candidate_right": [text in probe.targets for text in probe.candidates] or None,
        "truncated": truncated,
    }


def _is_cut(span: Span, limit: int | None) -> bool:
    return limit is not None and len(span.input_ids) > limit + 1


def _start_token(tokenizer: Any, probe: Probe) -> int | None:
    """The token to put before a text that has no prompt (as lm-evaluation-harness does)."""
    if probe.prompt:
        return None
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return token
    raise ModelError(
        f"probe {probe.id!r} has no prompt, and the tokenizer has neither a start nor an end "
        "token to put before its sentences. Set tokenizer.bos_token."
    )
