"""One computation of what several sequences begin with."""

import copy
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gradloc.evaluation.scoring.tokens import Span, SpanScore, logits_before, score_span
from gradloc.models.logits import forward_at

# Prompts in a batch, in multiples of its token budget. measured: 120 questions of ARC with their
# answers take SmolLM2-135M 18.6 CPU seconds with 2, 20.4 with 1, as larger batches of endings form.
_PROMPT_BUDGETS = 2
# Keys and values are copied for every ending: the tokens they cover, in multiples of the budget.
# assumption: four answers are usual, and a copy is cheaper than a computation.
_COPIES_PER_BUDGET = 4
# An ending shorter than this share of the chunk's longest begins a new chunk, once the chunk has
# this many rows. measured as above: 20.4 CPU seconds with 8 rows, 20.2 with 16, 24.0 with 32.
_LEAST_FILL, _LEAST_ROWS = 0.75, 16


class Shared(NamedTuple):
    """Sequences of one owner.

    Args:
        members: Their indices.
        prefix: Number of tokens that all begin with, at least 1.
    """

    members: tuple[int, ...]
    prefix: int


def find_shared(spans: Sequence[Span], owners: Sequence[Hashable]) -> list[Shared]:
    """Owners whose sequences have a beginning in common that is worth sharing.

    Args:
        spans: The sequences.
        owners: What each belongs to, (n_spans,).

    Returns:
        Groups of two sequences or more. An owner whose sequences share less than a quarter of
        their tokens is left out: two short passes cost more than one of full length.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, owner in enumerate(owners):
        members[owner].append(index)
    groups = []
    for indices in members.values():
        rows = [spans[index].input_ids for index in indices]
        # Every sequence keeps a token of its own; the last token of a sequence is no input.
        limit = min(len(row) for row in rows) - 1
        prefix = next((i for i in range(limit) if len({row[i] for row in rows}) > 1), limit)
        saved = (len(rows) - 1) * prefix
        if saved >= 0.25 * sum(len(row) for row in rows):
            groups.append(Shared(tuple(indices), prefix))
    return groups


def score_shared(
    model: nn.Module, spans: Sequence[Span], groups: Sequence[Shared], token_budget: int
) -> Iterator[tuple[list[int], list[SpanScore | None]]]:
    """Score groups, batch by batch.

    Beginnings of one length share a batch, so no row is padded in front of its endings and the
    distances that positions and sliding windows see are those of the sequence by itself.

    Args:
        model: Causal language model, in evaluation mode.
        spans: All sequences.
        groups: Those that share a beginning.
        token_budget: Tokens in a batch.

    Yields:
        Indices into ``spans`` and their scores; ``None`` for each where the model keeps no keys
        and values that can be shared out (recurrent states).
    """
    for batch in _batches(groups, token_budget):
        indices = [index for group in batch for index in group.members]
        yield indices, _score_batch(model, spans, batch, token_budget)


def _batches(groups: Sequence[Shared], token_budget: int) -> Iterator[list[Shared]]:
    by_length: dict[int, list[Shared]] = defaultdict(list)
    for group in groups:
        by_length[group.prefix].append(group)
    for prefix in sorted(by_length, reverse=True):
        size = max(1, _PROMPT_BUDGETS * token_budget // prefix)
        for start in range(0, len(by_length[prefix]), size):
            yield by_length[prefix][start : start + size]


def _score_batch(
    model: nn.Module, spans: Sequence[Span], batch: Sequence[Shared], token_budget: int
) -> list[SpanScore | None]:
    device, prefix = next(model.parameters()).device, batch[0].prefix
    rows = [spans[index] for group in batch for index in group.members]
    owner = [number for number, group in enumerate(batch) for _ in group.members]
    beginnings = [spans[group.members[0]].input_ids[:prefix] for group in batch]
    # Logits in the beginning: before every scored token up to the first of the endings.
    before = sorted({p - 1 for row in rows for p in row.positions if p <= prefix})
    endings = [place for place, row in enumerate(rows) if row.positions[-1] > prefix]
    logits, cache = forward_at(
        model,
        torch.tensor(beginnings, device=device),
        # An empty choice of positions would mean all of them to some models.
        torch.tensor(before or [prefix - 1], device=device),
        use_cache=bool(endings),
    )
    if endings and not _can_share(cache):
        return [None] * len(rows)
    column = {position: number for number, position in enumerate(before)}
    pieces: list[list[Tensor]] = [
        [logits[owner[place]][[column[p - 1] for p in row.positions if p <= prefix]]]
        for place, row in enumerate(rows)
    ]
    del logits
    for chunk in _chunks(endings, rows, prefix, token_budget):
        own = _selected(cache, torch.tensor([owner[place] for place in chunk], device=device))
        logits_of = logits_before(model, [rows[place] for place in chunk], prefix, own)
        for place, found in zip(chunk, logits_of, strict=True):
            pieces[place].append(found)
    return [score_span(row, torch.cat(found)) for row, found in zip(rows, pieces, strict=True)]


def _chunks(
    endings: list[int], rows: list[Span], prefix: int, token_budget: int
) -> Iterator[list[int]]:
    """Endings that go through the model together, the longest first.

    Endings are short, so padding weighs: a row much shorter than the first begins a new chunk.
    """
    order = sorted(endings, key=lambda place: len(rows[place].input_ids), reverse=True)
    chunk: list[int] = []
    for place in order:
        length, width = (len(rows[i].input_ids) for i in (place, chunk[0] if chunk else place))
        full = (len(chunk) + 1) * width > _COPIES_PER_BUDGET * token_budget
        shorter = length - 1 - prefix < _LEAST_FILL * (width - 1 - prefix)
        if chunk and (full or (shorter and len(chunk) >= _LEAST_ROWS)):
            yield chunk
            chunk = []
        chunk.append(place)
    if chunk:
        yield chunk


def _selected(cache: Any, rows: Tensor) -> Any:
    """A cache of some rows, each as often as it is named; the original stays as it is."""
    selected = copy.copy(cache)
    # Selecting puts new tensors in place of the layers' own, so copies of the layers suffice.
    selected.layers = [copy.copy(layer) for layer in cache.layers]
    selected.batch_select_indices(rows)
    return selected


def _can_share(cache: Any) -> bool:
    """Whether all that the model remembers of the beginning is keys and values, row by row."""
    layers = getattr(cache, "layers", None)
    return bool(layers) and all(
        hasattr(layer, "keys") and not hasattr(layer, "recurrent_states") for layer in layers
    )
