"""The metrics of a suite: which items, read how, for every checkpoint at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    columns = {name: _with_answers(scores, probes) for name, scores in systems.items()}
    found: dict[str, Metric] = {}
    for group in groups:
        for name in group.metrics:
            metric = PROBE_METRICS[name]
            if metric.compares and BASELINE not in systems:
                continue
            values = _group_values(metric, group, columns)
            summary = _summarised(metric, group, values, probes, list(systems), settings)
            if summary is not None:
                found[f"{group.name}_{name}"] = summary
    # The share of facts that are right is what "known facts" means; only the others need a word.
    return {
        key.removesuffix("_exact") if key == "known_facts_exact" else key: summary
        for key, summary in found.items()
    }


def item_values(
    metric: ProbeMetric,
    group: ProbeGroup,
    probes: Sequence[Probe],
    systems: Mapping[str, CheckpointScores],
) -> np.ndarray:
    """A metric of every probe of a group before anything is averaged, (n_systems, n_probes)."""
    columns = {name: _with_answers(scores, probes) for name, scores in systems.items()}
    return _group_values(metric, group, columns)


def general_text_metrics(
    systems: Mapping[str, CheckpointScores], settings: dict
) -> dict[str, Metric]:
    """Nats per token and bits per byte of general text, over all domains and in each."""
    first = next(iter(systems.values()))
    found = {}
    for set_name, domains in text_sets(first).items():
        tokens = joined_texts(first, domains, "tokens")
        scored = tokens > 0
        if not scored.any():
            continue
        nats = np.array(
            [joined_texts(scores, domains, "nats")[scored] for scores in systems.values()]
        )
        weights = {"": ("nats/token", tokens[scored], 1.0)}
        if all("bytes" in first.texts[domain] for domain in domains):
            n_bytes = joined_texts(first, domains, "bytes")[scored]
            weights["_bits_per_byte"] = ("bits/byte", n_bytes, np.log(2))
        for suffix, (unit, sizes, scale) in weights.items():
            estimates = estimate(
                nats / sizes / scale,
                range(len(sizes)),
                weights=sizes,
                n_bootstrap=settings["n_bootstrap"],
                seed=derive_seed(settings["seed"], set_name),
            )
            pairs = dict(zip(systems, estimates, strict=True))
            found[set_name + suffix] = Metric("forgetting", unit, False, pairs)
    return found


def _summarised(
    metric: ProbeMetric,
    group: ProbeGroup,
    values: np.ndarray,
    probes: Sequence[Probe],
    systems: list[str],
    settings: dict,
) -> Metric | None:
    # NaN in every system: the metric does not apply to the probe. NaN in one: it diverged.
    applies = np.flatnonzero(~np.isnan(values).all(axis=0))
    if not applies.size:
        return None
    chosen = [probes[group.indices[place]] for place in applies]
    estimates = estimate(
        values[:, applies],
        [probe_entity(probe) for probe in chosen],
        weights=_weights(metric, chosen),
        n_bootstrap=settings["n_bootstrap"],
        seed=derive_seed(settings["seed"], group.name),
    )
    if metric.perplexity:
        estimates = tuple(found.exp() for found in estimates)
    is_loss = metric.retention or all(probe.group == "invariant" for probe in chosen)
    return Metric(
        "forgetting" if is_loss else "uptake",
        metric.unit,
        metric.higher_is_better,
        dict(zip(systems, estimates, strict=True)),
        group.note,
    )


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


def _group_values(
    metric: ProbeMetric, group: ProbeGroup, columns: Mapping[str, Mapping]
) -> np.ndarray:
    before = columns.get(BASELINE)
    compared = [_rows(before, group.indices)] if metric.compares and before is not None else []
    rows = [_rows(own, group.indices) for own in columns.values()]
    return np.array([metric.values(own, *compared) for own in rows])


def _with_answers(scores: CheckpointScores, probes: Sequence[Probe]) -> dict[str, list]:
    answers = {
        "targets": [probe.targets for probe in probes],
        "old_targets": [probe.old_targets for probe in probes],
    }
    return {**scores.columns, **answers}


def text_sets(scores: CheckpointScores) -> dict[str, list[str]]:
    """Name of each set of general texts -> its domains: all, and each where there are several."""
    domains = list(scores.texts)
    single = {f"general_text_{domain}": [domain] for domain in domains} if len(domains) > 1 else {}
    return {"general_text": domains, **single}


def joined_texts(scores: CheckpointScores, domains: Sequence[str], column: str) -> np.ndarray:
    """A column of the texts of some domains, one after another; NaN where it is not finite."""
    values = [value for domain in domains for value in scores.texts[domain][column]]
    return np.array([np.nan if value is None else value for value in values], float)


def _rows(columns: Mapping[str, list], indices: Sequence[int]) -> dict[str, list]:
    return {name: [column[index] for index in indices] for name, column in columns.items()}
