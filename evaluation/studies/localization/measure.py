"""Draws the probes of each group and measures their gradient norms."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from gradloc.data.batches import IGNORED, Row, probe_rows, text_rows
from gradloc.data.probes import Probe, ProbeSet
from gradloc.errors import MeasurementError
from gradloc.evaluation.scoring import score_probes
from gradloc.localization.gradients.measure import measure_gradients
from gradloc.models.unit_info import UnitInfo
from localization.figures import MIN_ENTITIES, GroupNorms

TESTED = ("new", "updated")


@dataclass(frozen=True)
class GroupFacts:
    """What a group consists of, to judge whether groups compare.

    Args:
        n: Probes measured.
        n_entities: Entities that they are about.
        answer_tokens: Mean length of the answers in tokens.
        sequence_tokens: Mean length of prompt, answer and what follows, in tokens.
        nll: Mean nats per token of the answers; a higher loss alone gives larger gradients.
        right: Share of probes that the model has right.
        probe_ids: Which probes.
    """

    n: int
    n_entities: int
    answer_tokens: float
    sequence_tokens: float
    nll: float
    right: float
    probe_ids: tuple[str, ...]


@dataclass(frozen=True)
class MeasuredGroups:
    """Norms over the units of the block stack.

    Args:
        units: The units, (n_units,).
        groups: Group -> norms.
        reference: Norms of reference texts under the loss of all tokens, (n_reference, n_units).
        facts: Group -> what it consists of.
    """

    units: tuple[UnitInfo, ...]
    groups: dict[str, GroupNorms]
    reference: np.ndarray
    facts: dict[str, GroupFacts]


def measure_groups(
    model: nn.Module,
    tokenizer: Any,
    probes: ProbeSet,
    reference: Sequence[str],
    *,
    n: int = 24,
    max_length: int = 128,
    seed: int = 0,
    progress: bool | None = None,
) -> MeasuredGroups:
    """Measure new, updated and known facts under every loss.

    Args:
        model: Causal language model; left as found.
        tokenizer: Its fast tokenizer.
        probes: Probes of all groups. Whether they choose layers or judge does not matter here:
            nothing is chosen.
        reference: Ordinary texts.
        n: Probes a group, and reference texts, at most.
        max_length: Tokens a sequence at most.
        seed: Which are drawn, and the random spans.
        progress: Show a progress bar; ``None``: when on a terminal.

    Returns:
        Norms of the groups that have probes about at least four entities: ``new``, ``updated``,
        ``invariant`` (old facts that the model has right) and ``missed`` (old facts that it has
        wrong, so as unknown as the new ones, without being new).

    Raises:
        MeasurementError: No reference text, no group to test, or no known fact to compare with.
    """
    texts = [text for text in reference if len(tokenizer(text, verbose=False)["input_ids"]) > 1]
    if len(texts) < MIN_ENTITIES:
        raise MeasurementError(
            f"{len(texts)} reference texts of two tokens or more; at least {MIN_ENTITIES} are "
            "needed. Give more with --reference."
        )
    texts = random.Random(seed).sample(texts, min(n, len(texts)))
    chosen, scores = _choose(model, tokenizer, probes, n, seed, progress)
    rows: list[Row] = []
    places: dict[tuple[str, str], slice] = {}

    def add(name: str, side: str, more: list[Row]) -> None:
        places[name, side] = slice(len(rows), len(rows) + len(more))
        rows.extend(more)

    lengths: dict[str, tuple[list[int], list[int]]] = {}
    for name, group in chosen.items():
        spans = probe_rows(tokenizer, group, max_length=max_length)
        answers = [sum(label != IGNORED for label in row["labels"]) for row in spans]
        wholes = [len(row["labels"]) for row in spans]
        lengths[name] = answers, wholes
        add(name, "span", spans)
        add(name, "whole", [{**row, "labels": row["input_ids"]} for row in spans])
        options = {"max_length": max_length, "loss": "random_span", "seed": seed}
        add(name, "matched", text_rows(tokenizer, texts, span_lengths=answers, **options))
    add("reference", "all", text_rows(tokenizer, texts, max_length=max_length))
    profile = measure_gradients(model, rows, progress=progress)
    kept = [place for place, unit in enumerate(profile.units) if unit.in_stack]
    norms = {key: profile.probe_norms[place][:, kept] for key, place in places.items()}
    return MeasuredGroups(
        units=tuple(profile.units[place] for place in kept),
        groups={
            name: GroupNorms(
                norms[name, "span"],
                norms[name, "whole"],
                norms[name, "matched"],
                [probe.entity or probe.id for probe in group],
            )
            for name, group in chosen.items()
        },
        reference=norms["reference", "all"],
        facts={
            name: GroupFacts(
                n=len(group),
                n_entities=len({probe.entity or probe.id for probe in group}),
                answer_tokens=float(np.mean(lengths[name][0])),
                sequence_tokens=float(np.mean(lengths[name][1])),
                nll=float(np.mean([scores[probe.id][0] for probe in group])),
                right=float(np.mean([scores[probe.id][1] for probe in group])),
                probe_ids=tuple(probe.id for probe in group),
            )
            for name, group in chosen.items()
        },
    )


def _choose(
    model: nn.Module, tokenizer: Any, probes: ProbeSet, n: int, seed: int, progress: bool | None
) -> tuple[dict[str, list[Probe]], dict[str, tuple[float, bool]]]:
    """The probes of each group, and the loss and mark of each."""
    scores: dict[str, tuple[float, bool]] = {}

    def score(group: list[Probe]) -> None:
        if not group:  # no probe, no columns
            return
        found = score_probes(model, tokenizer, group, progress=progress)
        marks = zip(found["nll"], found["exact"], strict=True)
        scores.update(zip([probe.id for probe in group], marks, strict=True))

    chosen = {name: by_turns(probes.select(group=name), seed)[:n] for name in TESTED}
    for name in TESTED:
        score(chosen[name])
    old = by_turns(probes.select(group="invariant"), seed)
    known: list[Probe] = []
    for start in range(0, len(old), n):  # no more is scored than it takes
        score(old[start : start + n])
        known = [probe for probe in old[: start + n] if scores[probe.id][1]]
        if len(known) >= n:
            break
    chosen["invariant"] = known[:n]
    chosen["missed"] = [p for p in old if p.id in scores and not scores[p.id][1]][:n]
    kept = {
        name: group
        for name, group in chosen.items()
        if len({probe.entity or probe.id for probe in group}) >= MIN_ENTITIES
    }
    if not set(TESTED) & set(kept):
        raise MeasurementError(
            f"no group of new or updated facts has probes about {MIN_ENTITIES} entities: found "
            + ", ".join(f"{len(chosen[name])} {name}" for name in TESTED)
            + ". Give more probes."
        )
    if "invariant" not in kept:
        raise MeasurementError(
            f"the model has {len(known)} of {len(old)} invariant facts right; the comparison needs "
            f"known facts about {MIN_ENTITIES} entities. Give more invariant probes, or other ones."
        )
    return kept, scores


def by_turns(probes: ProbeSet, seed: int) -> list[Probe]:
    """Probes in random order, one of every entity before a second of any."""
    generator = random.Random(seed)
    shuffled = generator.sample(list(probes), len(probes))
    turns: dict[str, int] = {}
    order = []
    for probe in shuffled:
        key = probe.entity or probe.id
        turns[key] = turns.get(key, 0) + 1
        order.append(turns[key])
    # The sort is stable, so each turn keeps the random order.
    return [
        probe for _, probe in sorted(zip(order, shuffled, strict=True), key=lambda pair: pair[0])
    ]
