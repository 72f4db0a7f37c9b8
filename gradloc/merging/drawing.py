"""Which probes and texts choose the scales, and which others measure what was chosen.

Comes in: probes and reference texts. Goes out: two sides of each, tokenised. It runs no model.
"""

import random

import torch

from gradloc.batches import probe_batches, text_batches
from gradloc.errors import MeasurementError
from gradloc.measuring import draw_probes
from gradloc.probes import Probe, ProbeSet
from gradloc.sequences import Sequence, read_sequences

Sides = tuple[list[Sequence], list[Sequence]]


def probe_sides(
    tokenizer, probes: ProbeSet, n: int, max_length: int, seed: int, device: torch.device
) -> Sides:
    """Sequences of the probes to solve on and of those to measure on; see ``split_probes``."""
    solve_on, measure_on = (
        read_sequences(probe_batches(tokenizer, side, max_length=max_length), "probe", device)
        for side in split_probes(probes, n, seed)
    )
    return solve_on, measure_on


def text_sides(
    tokenizer, texts: list[str], n: int, max_length: int, seed: int, device: torch.device
) -> Sides:
    """Reference sequences to solve on and others to measure on, each at most n.

    A single one is on both sides.

    Raises:
        MeasurementError: There is no text.
    """
    texts = [text for text in texts if text.strip()]
    drawn = random.Random(seed).sample(texts, min(2 * n, len(texts)))
    rows = read_sequences(
        text_batches(tokenizer, drawn, max_length=max_length), "reference", device
    )
    middle = (len(rows) + 1) // 2
    return rows[:middle], rows[middle:] or rows


def split_probes(probes: ProbeSet, n: int, seed: int) -> tuple[list[Probe], list[Probe]]:
    """Localisation probes to solve on and others to measure on, without a common entity.

    A single entity is on both sides.

    Args:
        probes: The probes; invariant ones and those that evaluate are left out.
        n: Probes of each side at most.
        seed: Which are drawn.

    Raises:
        MeasurementError: None is left.
    """
    drawn = draw_probes(probes, len(probes), seed)
    if not drawn:
        raise MeasurementError(
            f"none of the {len(probes)} probes can choose scales: all are invariant or kept for "
            "evaluation. Give probes of group new or updated, without split 'evaluation'."
        )
    # Every second entity, in the order in which they are drawn.
    side = {key: i % 2 for i, key in enumerate(dict.fromkeys(p.entity or p.id for p in drawn))}
    halves = [[p for p in drawn if side[p.entity or p.id] == half][:n] for half in (0, 1)]
    return halves[0], halves[1] or halves[0]
