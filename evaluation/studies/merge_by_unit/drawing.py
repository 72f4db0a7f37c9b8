"""Probes and texts that choose the scales, and others that measure what was chosen."""

import random

import torch

from gradloc.data.batches import probe_rows, text_rows
from gradloc.data.probes import Probe, ProbeSet
from gradloc.localization.gradients.sequences import Sequence, read_sequences
from gradloc.localization.probe_profile import draw_probes


def probe_sequences(
    tokenizer, probes: list[Probe], max_length: int, device: torch.device
) -> list[Sequence]:
    """The probes, in order, with labels on their answers alone."""
    rows = probe_rows(tokenizer, probes, max_length=max_length)
    return read_sequences(rows, "probe", device)


def text_sides(
    tokenizer, texts: list[str], n: int, max_length: int, seed: int, device: torch.device
) -> tuple[list[Sequence], list[Sequence]]:
    """Reference sequences to solve on and others to measure on, each at most n.

    A single one is on both sides.

    Raises:
        MeasurementError: There is no text.
    """
    texts = [text for text in texts if text.strip()]
    drawn = random.Random(seed).sample(texts, min(2 * n, len(texts)))
    rows = read_sequences(text_rows(tokenizer, drawn, max_length=max_length), "reference", device)
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
    # Every second entity, in the order in which they are drawn.
    side = {key: i % 2 for i, key in enumerate(dict.fromkeys(map(entity_of, drawn)))}
    halves = [[p for p in drawn if side[entity_of(p)] == half][:n] for half in (0, 1)]
    return halves[0], halves[1] or halves[0]


def entity_of(probe: Probe) -> str:
    """What a probe is about; a probe that does not say stands for itself."""
    return probe.entity or probe.id
