"""The metrics of a suite: which items, read how, for every checkpoint at once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gradloc.data.probes import Probe
from gradloc.evaluation.bootstrap import BootstrapEstimate, derive_seed, estimate, figure
from gradloc.evaluation.metrics import PROBE_METRICS, ProbeMetric
from gradloc.evaluation.metrics.editing import case_weights
from gradloc.evaluation.probe_groups import ProbeGroup
from gradloc.evaluation.results import MetricValue
from gradloc.evaluation.score_record import CheckpointScores

BASELINE = "baseline"


@dataclass(frozen=True)
class Metric:
    """One metric of all systems.

    Args:
        kind: ``uptake`` or ``forgetting``.
        unit: Unit of the value and of its change.
        higher_is_better: Direction of the value itself.
        estimates: System -> estimate, all from the same resamples.
        note: What a reader must know of the items.
    """

    kind: str
    unit: str
    higher_is_better: bool
    estimates: dict[str, BootstrapEstimate]
    note: str = ""

    def score(self, system: str) -> MetricValue:
        """The system's own value."""
        return figure(self.estimates[system], self.unit, self.higher_is_better, self.note)

    def change(self, arm: str) -> BootstrapEstimate:
        """Gain over the baseline for uptake, loss for forgetting."""
        before, after = self.estimates[BASELINE], self.estimates[arm]
        rising = after.minus(before)
        falling = before.minus(after)
        return rising if (self.kind == "uptake") == self.higher_is_better else falling

    def change_figure(self, arm: str) -> MetricValue:
        """The change as a figure."""
        return figure(self.change(arm), self.unit, self.kind == "uptake", self.note)


def probe_metrics(
    groups: Sequence[ProbeGroup],
    probes: Sequence[Probe],
    systems: Mapping[str, CheckpointScores],
    settings: dict,
) -> dict[str, Metric]:
    """Every metric of every group; those that apply to none of its probes are left out."""
    found: dict[str, Metric] = {}
    for group in groups:
        for name in group.metrics:
            metric = PROBE_METRICS[name]
            if metric.compares and BASELINE not in systems:
                continue
            values = item_values(metric, group, probes, systems)
            # NaN in every system: the metric does not apply to the probe. In one: it diverged.
            applies = np.flatnonzero(~np.isnan(values).all(axis=0))
            if not applies.size:
                continue
            chosen = [probes[group.indices[place]] for place in applies]
            estimates = estimate(
                values[:, applies],
                [probe_entity(probe) for probe in chosen],
                weights=_weights(metric, chosen),
                n_bootstrap=settings["n_bootstrap"],
                seed=derive_seed(settings["seed"], group.name),
            )
            if metric.perplexity:
                estimates = tuple(own.exp() for own in estimates)
            is_loss = metric.retention or all(probe.group == "invariant" for probe in chosen)
            key = f"{group.name}_{name}"
            # The share of facts that are right is what "known facts" means.
            found["known_facts" if key == "known_facts_exact" else key] = Metric(
                "forgetting" if is_loss else "uptake",
                metric.unit,
                metric.higher_is_better,
                dict(zip(systems, estimates, strict=True)),
                group.note,
            )
    return found


def item_values(
    metric: ProbeMetric,
    group: ProbeGroup,
    probes: Sequence[Probe],
    systems: Mapping[str, CheckpointScores],
) -> np.ndarray:
    """A metric of every probe of a group before anything is averaged, (n_systems, n_probes)."""
    chosen = [probes[index] for index in group.indices]
    answers = {
        "targets": [probe.targets for probe in chosen],
        "old_targets": [probe.old_targets for probe in chosen],
    }
    rows = {
        system: {
            **{name: [col[i] for i in group.indices] for name, col in scores.columns.items()},
            **answers,
        }
        for system, scores in systems.items()
    }
    compared = [rows[BASELINE]] if metric.compares else []
    return np.array([metric.values(own, *compared) for own in rows.values()])


def probe_entity(probe: Probe) -> tuple[str, str]:
    """What a probe is resampled with: its entity, or itself."""
    return (probe.entity, "") if probe.entity else ("", probe.id)


def _weights(metric: ProbeMetric, probes: Sequence[Probe]) -> np.ndarray | None:
    """What each probe counts: the same, or so that entities or cases count the same."""
    if metric.by_entity:
        return case_weights([p.entity or p.id for p in probes], [""] * len(probes))
    if any(probe.case for probe in probes):
        return case_weights([p.case or p.id for p in probes], [p.kind for p in probes])
    return None


class TextValues(NamedTuple):
    """General texts that are averaged together; those of one token have nothing to score.

    Args:
        name: What they are called: all, or one domain where there are several.
        nats: Their nats, (n_systems, n_texts); NaN where they are not finite.
        tokens: Scored tokens, (n_texts,).
        n_bytes: What these stand for, (n_texts,), where it was counted.
    """

    name: str
    nats: np.ndarray
    tokens: np.ndarray
    n_bytes: np.ndarray | None


def text_values(systems: Mapping[str, CheckpointScores]) -> Iterator[TextValues]:
    """General text, and each of its domains where there are several."""
    first = next(iter(systems.values()))
    sets = {"general_text": list(first.texts)}
    if len(first.texts) > 1:
        sets |= {f"general_text_{domain}": [domain] for domain in first.texts}

    def joined(scores: CheckpointScores, domains: list[str], column: str) -> np.ndarray:
        values = [value for domain in domains for value in scores.texts[domain][column]]
        return np.array(values, float)  # None (not finite) becomes NaN

    for name, domains in sets.items():
        tokens = joined(first, domains, "tokens")
        scored = tokens > 0
        if scored.any():
            nats = [joined(scores, domains, "nats")[scored] for scores in systems.values()]
            has_bytes = all("bytes" in first.texts[domain] for domain in domains)
            n_bytes = joined(first, domains, "bytes")[scored] if has_bytes else None
            yield TextValues(name, np.array(nats), tokens[scored], n_bytes)


def general_text_metrics(
    systems: Mapping[str, CheckpointScores], settings: dict
) -> dict[str, Metric]:
    """Nats per token and bits per byte of general text, over all domains and in each."""
    found = {}
    for own in text_values(systems):
        kinds = {own.name: ("nats/token", own.tokens, 1.0)}
        if own.n_bytes is not None:
            kinds[f"{own.name}_bits_per_byte"] = ("bits/byte", own.n_bytes, np.log(2))
        for key, (unit, sizes, scale) in kinds.items():
            estimates = estimate(
                own.nats / sizes / scale,
                range(len(sizes)),
                weights=sizes,
                n_bootstrap=settings["n_bootstrap"],
                seed=derive_seed(settings["seed"], own.name),
            )
            pairs = dict(zip(systems, estimates, strict=True))
            found[key] = Metric("forgetting", unit, False, pairs)
    return found
