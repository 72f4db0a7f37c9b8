"""The metrics of a suite: which items, read how, for every checkpoint at once.

Comes in: ``CheckpointScores`` of all systems (the baseline and the arms) on the same items. Goes
out: ``Measure``, one for each named metric. It compares no arms (``gradloc.comparison`` does).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gradloc.artifacts import read_json, write_json
from gradloc.errors import GradlocError
from gradloc.metrics import PROBE_METRICS, Columns, Estimate, estimate, figure, stream
from gradloc.probes import DEPTHS, Probe
from gradloc.results import Figure

LEARNED_GROUPS = ("new", "updated")
BASELINE = "baseline"


@dataclass(frozen=True)
class CheckpointScores:
    """Scores of one checkpoint on every item, before anything is averaged.

    Args:
        checkpoint: Where the weights are.
        probe_ids: Ids of the probes, in the order of the columns.
        columns: The columns of ``score_probes``.
        texts: Domain -> ``nats`` and ``tokens`` of each text.
        answers: Probe id -> what the model writes after the prompt, for the examples.
    """

    checkpoint: str
    probe_ids: tuple[str, ...]
    columns: dict[str, list]
    texts: dict[str, dict[str, list]]
    answers: dict[str, str]

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

    def save(self, path: str | Path) -> Path:
        """Write the scores as JSON."""
        return write_json(path, vars(self))

    @classmethod
    def load(cls, path: str | Path) -> "CheckpointScores":
        """Read the scores back.

        Raises:
            GradlocError: The file is missing or holds something else.
        """
        data = read_json(path, "scores of a checkpoint")
        try:
            return cls(**{**data, "probe_ids": tuple(data["probe_ids"])})
        except (KeyError, TypeError) as error:
            raise GradlocError(
                f"{path}: not the scores of a checkpoint. Remove it to score anew."
            ) from error


@dataclass(frozen=True)
class Measure:
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
    estimates: dict[str, Estimate]
    note: str = ""

    def score(self, system: str) -> Figure:
        """The system's own value."""
        return figure(self.estimates[system], self.unit, self.higher_is_better, self.note)

    def change(self, arm: str) -> Estimate:
        """Gain over the baseline for uptake, loss for forgetting."""
        before, after = self.estimates[BASELINE], self.estimates[arm]
        rising = after.minus(before)
        falling = before.minus(after)
        return rising if (self.kind == "uptake") == self.higher_is_better else falling

    def change_figure(self, arm: str) -> Figure:
        """The change as a figure."""
        return figure(self.change(arm), self.unit, self.kind == "uptake", self.note)


def learning_measures(
    probes: Sequence[Probe], systems: Mapping, settings: dict
) -> dict[str, Measure]:
    """Uptake: every metric of new and updated facts, by depth and over all depths."""
    found: dict[str, Measure] = {}
    for group in LEARNED_GROUPS:
        members = [index for index, probe in enumerate(probes) if probe.group == group]
        depths = [d for d in DEPTHS if any(probes[index].depth == d for index in members)]
        sets = {f"{group}_{d}": [i for i in members if probes[i].depth == d] for d in depths}
        for set_name, indices in sets.items():
            names = [name for name, metric in PROBE_METRICS.items() if metric.by_depth]
            found |= _probe_measures("uptake", set_name, indices, names, probes, systems, settings)
        pooled = [
            name for name, metric in PROBE_METRICS.items() if len(depths) > 1 or not metric.by_depth
        ]
        found |= _probe_measures("uptake", group, members, pooled, probes, systems, settings)
    return found


def known_facts_measures(
    probes: Sequence[Probe], systems: Mapping, screened: bool, settings: dict
) -> dict[str, Measure]:
    """Forgetting of facts: the share that is right, and their likelihood."""
    names = ("exact", "nll")
    note = "facts that the baseline has right" if screened else ""
    known = [index for index, probe in enumerate(probes) if probe.group == "invariant"]
    found = _probe_measures(
        "forgetting", "known_facts", known, names, probes, systems, settings, note
    )
    # The share of facts that are right is what "known facts" means; only the other needs a word.
    return {key.removesuffix("_exact"): measure for key, measure in found.items()}


def _probe_measures(
    kind: str,
    set_name: str,
    indices: list[int],
    metrics: Sequence[str],
    probes: Sequence[Probe],
    systems: Mapping[str, CheckpointScores],
    settings: dict,
    note: str = "",
) -> dict[str, Measure]:
    """Metrics of one set of probes; those that apply to none of its probes are left out."""
    found = {}
    for name in metrics:
        metric = PROBE_METRICS[name]
        values = np.array([metric.values(_rows(s.columns, indices)) for s in systems.values()])
        # NaN in every system: the metric does not apply to the probe. NaN in one: it diverged.
        applies = ~np.isnan(values).all(axis=0) if len(indices) else np.array([], bool)
        if not applies.any():
            continue
        chosen = [probes[index] for index, keep in zip(indices, applies, strict=True) if keep]
        clusters = [(p.entity, "") if p.entity else ("", p.id) for p in chosen]
        estimates = estimate(
            values[:, applies],
            clusters,
            n_bootstrap=settings["n_bootstrap"],
            seed=stream(settings["seed"], set_name),
        )
        found[f"{set_name}_{name}"] = Measure(
            kind,
            metric.unit,
            metric.higher_is_better,
            dict(zip(systems, estimates, strict=True)),
            note,
        )
    return found


def general_text_measures(
    systems: Mapping[str, CheckpointScores], settings: dict
) -> dict[str, Measure]:
    """Nats per token: sum of nats / sum of tokens, over all domains and in each."""
    first = next(iter(systems.values()))
    domains = {domain: [domain] for domain in first.texts}
    sets = {"general_text": list(domains)}
    if len(domains) > 1:
        sets |= {f"general_text_{domain}": names for domain, names in domains.items()}
    found = {}
    for set_name, names in sets.items():
        tokens = np.array([n for domain in names for n in first.texts[domain]["tokens"]], float)
        nats = np.array(
            [
                [np.nan if x is None else x for domain in names for x in s.texts[domain]["nats"]]
                for s in systems.values()
            ],
            float,
        )
        scored = tokens > 0
        if not scored.any():
            continue
        estimates = estimate(
            nats[:, scored] / tokens[scored],
            range(int(scored.sum())),
            weights=tokens[scored],
            n_bootstrap=settings["n_bootstrap"],
            seed=stream(settings["seed"], set_name),
        )
        found[set_name] = Measure(
            "forgetting", "nats/token", False, dict(zip(systems, estimates, strict=True))
        )
    return found


def _rows(columns: Columns, indices: list[int]) -> dict[str, list]:
    return {name: [column[index] for index in indices] for name, column in columns.items()}
