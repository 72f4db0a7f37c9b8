"""Sequences without padding, read from batches or token rows, and their loss."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gradloc.data.batches import IGNORED
from gradloc.errors import MeasurementError
from gradloc.models.logits import logits_at
from gradloc.models.units import Unit


class Sequence(NamedTuple):
    """One row of a batch without its padding: two tensors of shape (1, seq)."""

    input_ids: Tensor
    labels: Tensor


class Workload(NamedTuple):
    """What passes go over.

    Args:
        model: The model, its parameters frozen.
        units: Its units.
        sequences: The sequences.
        advance: Told how many sequences are done, in fractions where there are several passes.
        one_at_a_time: A pass for each sequence, through ``.grad``; for layers of unknown kind.
    """

    model: nn.Module
    units: tuple[Unit, ...]
    sequences: list[Sequence]
    advance: Callable[[float], object]
    one_at_a_time: bool = False


def sequence_loss(model: nn.Module, sequence: Sequence) -> Tensor:
    """Mean negative log-likelihood in nats over the labelled tokens of one sequence, a scalar."""
    positions = predicting_positions(sequence)
    logits = logits_at(model, sequence.input_ids, positions)
    targets = sequence.labels[0, positions + 1]
    return nn.functional.cross_entropy(logits[0].float(), targets)


def predicting_positions(sequence: Sequence) -> Tensor:
    """Positions whose next token is labelled, in order, (n_labelled,)."""
    return (sequence.labels[0, 1:] != IGNORED).nonzero().squeeze(1)


def read_sequences(batches: Iterable[Mapping], side: str, device: torch.device) -> list[Sequence]:
    """Rows of all batches without padding, on the model's device; a row alone is a batch of one.

    Raises:
        MeasurementError: No sequence, a batch without ids or labels, a sequence without a loss.
    """
    rows = []
    for batch in batches:
        missing = [key for key in ("input_ids", "labels") if key not in batch]
        if missing:
            raise MeasurementError(
                f"a {side} batch has no {' and no '.join(missing)}; give dictionaries of "
                "input_ids, attention_mask and labels, each of shape (batch, seq) or (seq,)."
            )
        ids, labels = torch.as_tensor(batch["input_ids"]), torch.as_tensor(batch["labels"])
        mask = batch.get("attention_mask")
        keep = torch.ones_like(ids) if mask is None else torch.as_tensor(mask)
        if ids.dim() == 1:
            ids, labels, keep = ids[None], labels[None], keep[None]
        for row in range(len(ids)):
            real = keep[row].bool()
            sequence = Sequence(ids[row][real][None].to(device), labels[row][real][None].to(device))
            if not (sequence.labels[0, 1:] != IGNORED).any():
                raise MeasurementError(
                    f"{side} sequence {len(rows)} has no labelled token after its first, so it "
                    "has no loss. Label at least one token (-100 means ignored)."
                )
            rows.append(sequence)
    if not rows:
        raise MeasurementError(f"no {side} sequences were given; at least one is needed.")
    return rows
