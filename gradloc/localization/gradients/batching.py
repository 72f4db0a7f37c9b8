"""Sequences to right-padded micro-batches, and the gradient where their backward pass starts."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from gradloc.errors import MeasurementError
from gradloc.localization.gradients.sequences import Sequence, predicting_positions
from gradloc.models.wrappers import output_head

# The activations of all layers are alive during a backward pass.
# measured: on a CPU 400, 600 and 760 tokens at once took equally long, and a model of 135M
# parameters holds about 2 MB a token. assumption: the same is a fair trade on a GPU.
MICRO_BATCH_TOKENS = 1024

# What a pass costs besides its tokens: weights are read, layers are called.
# measured: 20 tokens for a model of 135M parameters on a CPU. assumption: a GPU is idle in small
# passes, so there they are filled up.
PASS_TOKENS = 20


@dataclass(frozen=True)
class MicroBatch:
    """Sequences of like length, cut after their last labelled token and padded on the right.

    Args:
        rows: Index of each sequence among all, (batch,).
        input_ids: Token ids, (batch, seq).
        lengths: Real tokens of each row.
        positions: Predicting positions of all rows among ``batch * seq``, (n_labelled,).
        targets: The token that each of them predicts, (n_labelled,).
        counts: Labelled tokens of each row.
    """

    rows: list[int]
    input_ids: Tensor
    lengths: list[int]
    positions: Tensor
    targets: Tensor
    counts: list[int]

    @property
    def body(self) -> list[slice]:
        """Rows of each sequence in a tensor of shape (batch * seq, ...), padding left out."""
        width = self.input_ids.shape[1]
        return [slice(i * width, i * width + n) for i, n in enumerate(self.lengths)]

    @property
    def head(self) -> list[slice]:
        """Rows of each sequence in a tensor of shape (n_labelled, ...)."""
        ends = torch.tensor(self.counts).cumsum(0).tolist()
        return [slice(end - n, end) for end, n in zip(ends, self.counts, strict=True)]


def micro_batches(sequences: list[Sequence], tokens: int | None = None) -> list[MicroBatch]:
    """Group sequences by length under a budget of tokens, padding included.

    Args:
        sequences: The sequences.
        tokens: Tokens a micro-batch at most; a longer sequence is alone in its own. ``None``:
            ``MICRO_BATCH_TOKENS``.
    """
    tokens = MICRO_BATCH_TOKENS if tokens is None else tokens
    # The last labelled token is only predicted: what it would predict has no loss.
    lengths = [int(predicting_positions(sequence)[-1]) + 1 for sequence in sequences]
    order = sorted(range(len(sequences)), key=lambda i: -lengths[i])
    on_cpu = all(sequence.input_ids.device.type == "cpu" for sequence in sequences)
    sizes = cheapest_cuts([lengths[i] for i in order], tokens, PASS_TOKENS if on_cpu else tokens)
    rows = iter(order)
    return [_pad(list(islice(rows, size)), sequences, lengths) for size in sizes]


def cheapest_cuts(lengths: list[int], tokens: int, pass_tokens: int) -> list[int]:
    """Cut lengths into runs, so that padding and passes together cost least.

    Args:
        lengths: Lengths, the longest first.
        tokens: Tokens in a run at most, padding included; a longer one is alone.
        pass_tokens: What a run costs besides its tokens, in tokens.

    Returns:
        How many lengths each run has.
    """
    cost, begin = [0], [0]  # of the first n lengths, and where the last of their runs begins
    for end in range(1, len(lengths) + 1):
        most = max(1, tokens // lengths[end - 1])
        least, start = min(
            (cost[start] + lengths[start] * (end - start) + pass_tokens, start)
            for start in range(max(0, end - most), end)
            if start == end - 1 or lengths[start] * (end - start) <= tokens
        )
        cost.append(least)
        begin.append(start)
    sizes, end = [], len(lengths)
    while end:
        sizes.append(end - begin[end])
        end = begin[end]
    return sizes[::-1]


def _pad(rows: list[int], sequences: list[Sequence], lengths: list[int]) -> MicroBatch:
    width = max(lengths[i] for i in rows)
    ids = [sequences[i].input_ids[0, : lengths[i]] for i in rows]
    positions, targets = [], []
    for place, i in enumerate(rows):
        sequence = sequences[i]
        labelled = predicting_positions(sequence)
        positions.append(labelled + place * width)
        targets.append(sequence.labels[0, labelled + 1])
    return MicroBatch(
        rows=rows,
        input_ids=nn.utils.rnn.pad_sequence(ids, batch_first=True),
        lengths=[lengths[i] for i in rows],
        positions=torch.cat(positions),
        targets=torch.cat(targets),
        counts=[len(p) for p in positions],
    )


def logits_and_gradient(model: nn.Module, batch: MicroBatch) -> tuple[Tensor, Tensor]:
    """Logits at the predicting positions, and the gradient of the summed losses there.

    A row's loss is its mean negative log-likelihood. Summed over the rows, each row's activations
    have the gradient of that row's own loss. At the logits it is ``softmax - one-hot`` over the
    row's count, which takes fewer passes over the largest tensor than the loss does. The head
    sees hidden states at the predicting positions only.

    Returns:
        Both of shape (1, n_labelled, vocab); the backward pass is still to be done.

    Raises:
        MeasurementError: The model has no output head that is called on hidden states.
    """
    with _head_at(model, batch):
        logits = model(input_ids=batch.input_ids, use_cache=False).logits
    if logits.shape[:2] != (1, len(batch.positions)):
        raise MeasurementError(
            f"{type(model).__name__} gave logits of shape {tuple(logits.shape)} for "
            f"{len(batch.positions)} positions; its head is not a layer on hidden states."
        )
    gradient = torch.softmax(logits.detach()[0].float(), -1)
    gradient[torch.arange(len(gradient), device=gradient.device), batch.targets] -= 1
    counts = torch.tensor(batch.counts, device=gradient.device)
    gradient /= counts.repeat_interleave(counts)[:, None]
    return logits, gradient[None].to(logits.dtype)


@contextmanager
def _head_at(model: nn.Module, batch: MicroBatch) -> Iterator[None]:
    """Give the output head the hidden states at the predicting positions only."""
    head = output_head(model)
    if head is None:
        raise MeasurementError(f"{type(model).__name__} names no output head.")

    def gather(module, args):
        hidden = args[0].flatten(0, 1)
        return (hidden[batch.positions][None], *args[1:])

    handle = head.register_forward_pre_hook(gather)
    try:
        yield
    finally:
        handle.remove()
