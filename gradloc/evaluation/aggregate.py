"""The metrics of a suite: which items, read how, for every checkpoint at once."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gradloc.data.probes import DEPTHS, Probe
from gradloc.errors import GradlocError
from gradloc.evaluation.bootstrap import BootstrapEstimate, derive_seed, estimate, figure
from gradloc.evaluation.metrics import PROBE_METRICS, ProbeMetric
from gradloc.evaluation.metrics.editing import case_weights
from gradloc.evaluation.results import MetricValue
from gradloc.utils.records import Record

LEARNED_GROUPS = ("new", "updated")
BASELINE = "baseline"


@dataclass(frozen=True)
class CheckpointScores(Record):
    """Scores of one checkpoint on every item, before anything is averaged.

    Args:
        checkpoint: Where the weights are.
        probe_ids: Ids of the probes, in the order of the columns.
        columns: The columns of the readings (``gradloc.evaluation.requests``); ``None`` where a
        probe was
            not read in that way.
        texts: Domain -> ``nats``, ``tokens`` and ``bytes`` of each text.
        answers: Probe id -> what the model writes after the prompt, for the examples.
        tasks: Task of lm-evaluation-harness -> its scores
        (``gradloc.evaluation.lm_eval.TaskScores``).
    """

    KIND: ClassVar[str] = "scores"
    WHAT: ClassVar[str] = "score file"

    checkpoint: str
    probe_ids: tuple[str, ...]
    columns: dict[str, list]
    texts: dict[str, dict[str, list]]
    answers: dict[str, str]
    tasks: dict[str, dict] = field(default_factory=dict)

    def only(self, probe_ids: Sequence[str]) -> "CheckpointScores":
        """The same scores of some of the probes, in the order asked for.

        Raises:
            GradlocError: Not all of them were scored.
        """
        row = {identifier: number for number, identifier in enumerate(self.probe_ids)}
        if missing := [identifier for identifier in probe_ids if identifier not in row]:
            raise GradlocError(
                f"{self.checkpoint}: {len(missing)} probes were not scored, such as "
                f"{missing[0]!r}. Score it anew."
            )
        indices = [row[identifier] for identifier in probe_ids]
        columns = {name: [col[index] for index in indices] for name, col in self.columns.items()}
        return replace(self, probe_ids=tuple(probe_ids), columns=columns)

    def problems(self) -> list[str]:
        """Columns whose length is not that of the probes."""
        n = len(self.probe_ids)
        return [
            f"columns.{name}: has {len(column)} entries for {n} probes; score again"
            for name, column in self.columns.items()
            if len(column) != n
        ]


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


class ProbeGroup(NamedTuple):
    """Probes whose scores are averaged together.

    Args:
        name: First part of the keys of its metrics.
        indices: Which probes.
        metrics: Names of its metrics.
        note: What a reader must know of them.
    """

    name: str
    indices: tuple[int, ...]
    metrics: tuple[str, ...]
    note: str = ""


def probe_groups(
    probes: Sequence[Probe], metrics_of: Callable[[str], Sequence[str]], screened: bool
) -> list[ProbeGroup]:
    """The groups that a suite reports: of facts by depth and group, of benchmarks by task.

    Kinds, where there are several, are reported apart as well.

    Args:
        probes: All probes.
        metrics_of: Task -> names of its metrics; ``""`` for probes that are reported by group.
        screened: Whether the known facts are those that the baseline has right.
    """
    found: list[ProbeGroup] = []
    for task in dict.fromkeys(probe.task for probe in probes):
        members = [index for index, probe in enumerate(probes) if probe.task == task]
        metrics = tuple(metrics_of(task))
        if task:
            found += _with_kinds(ProbeGroup(task, tuple(members), metrics), probes)
            continue
        for group in LEARNED_GROUPS:
            own = tuple(index for index in members if probes[index].group == group)
            found += _by_depth(group, own, metrics, probes)
        known = tuple(index for index in members if probes[index].group == "invariant")
        names = tuple(name for name in metrics if not PROBE_METRICS[name].compares)
        note = "facts that the baseline has right" if screened else ""
        found += _with_kinds(ProbeGroup("known_facts", known, names, note), probes)
    return [group for group in found if group.indices]


def probe_measures(
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
            measure = _measure(metric, group, values, probes, list(systems), settings)
            if measure is not None:
                found[f"{group.name}_{name}"] = measure
    # The share of facts that are right is what "known facts" means; only the others need a word.
    return {
        key.removesuffix("_exact") if key == "known_facts_exact" else key: measure
        for key, measure in found.items()
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


def general_text_measures(
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


def _by_depth(
    group: str, members: tuple[int, ...], metrics: tuple[str, ...], probes: Sequence[Probe]
) -> list[ProbeGroup]:
    """A group at each depth, and over all of them where there are several."""
    depths = [d for d in DEPTHS if any(probes[index].depth == d for index in members)]
    at_depth = tuple(name for name in metrics if PROBE_METRICS[name].by_depth)
    pooled = tuple(name for name in metrics if len(depths) > 1 or name not in at_depth)
    return [
        *(
            ProbeGroup(
                f"{group}_{depth}",
                tuple(index for index in members if probes[index].depth == depth),
                at_depth,
            )
            for depth in depths
        ),
        *_with_kinds(ProbeGroup(group, members, pooled), probes),
    ]


def _with_kinds(group: ProbeGroup, probes: Sequence[Probe]) -> list[ProbeGroup]:
    """A group, and its kinds where there are several."""
    kinds = list(dict.fromkeys(probes[index].kind for index in group.indices))
    if len(kinds) < 2:
        return [group]
    return [
        group,
        *(
            group._replace(
                name=f"{group.name}_{_slug(kind) or 'other'}",
                indices=tuple(index for index in group.indices if probes[index].kind == kind),
            )
            for kind in kinds
        ),
    ]


def _measure(
    metric: ProbeMetric,
    group: ProbeGroup,
    values: np.ndarray,
    probes: Sequence[Probe],
    systems: list[str],
    settings: dict,
) -> Metric | None:
    # NaN in every system: the metric does not apply to the probe. NaN in one: it diverged.
    applies = ~np.isnan(values).all(axis=0)
    if not applies.any():
        return None
    chosen = [probes[i] for i, keep in zip(group.indices, applies, strict=True) if keep]
    estimates = estimate(
        values[:, applies],
        [probe_entity(probe) for probe in chosen],
        weights=_weights(metric, chosen),
        n_bootstrap=settings["n_bootstrap"],
        seed=derive_seed(settings["seed"], group.name),
    )
    if metric.perplexity:
        estimates = tuple(
            found._replace(value=float(np.exp(found.value)), replicates=np.exp(found.replicates))
            for found in estimates
        )
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
    return np.array([_values(metric, group.indices, own, before) for own in columns.values()])


def _values(
    metric: ProbeMetric, indices: Sequence[int], own: Mapping, before: Mapping | None
) -> ArrayLike:
    asked = [_rows(own, indices)] + ([_rows(before, indices)] if metric.compares else [])
    return metric.values(*asked)


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


def _slug(kind: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", kind.casefold()).strip("_")
