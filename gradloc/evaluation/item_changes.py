"""What each single probe and text gained or lost against the base model."""

from collections.abc import Sequence

from gradloc.data.probes import Probe
from gradloc.evaluation.aggregate import BASELINE, item_values, probe_entity, text_values
from gradloc.evaluation.bootstrap import cluster_numbers
from gradloc.evaluation.metrics import PROBE_METRICS
from gradloc.evaluation.probe_groups import ProbeGroup
from gradloc.evaluation.score_record import CheckpointScores, ItemScores

# What is kept of every item: likelihood and greedy match. Other metrics can be had from the scores.
KEPT_METRICS = ("nll", "exact")


def probe_changes(
    groups: Sequence[ProbeGroup],
    probes: Sequence[Probe],
    base: CheckpointScores,
    arm: CheckpointScores,
) -> dict[str, ItemScores]:
    """The change of every probe, for each group and metric that is kept.

    Args:
        groups: The groups, of indices into ``probes``.
        probes: The probes, all of them scored.
        base: Scores of the base model.
        arm: Scores of the arm.

    Returns:
        ``<group>_nll`` and ``<group>_exact``, called ``<group>`` alone for known facts.
    """
    wanted = [probe.id for probe in probes]
    systems = {BASELINE: base.only(wanted), "arm": arm.only(wanted)}
    numbers = cluster_numbers([probe_entity(probe) for probe in probes])
    found = {}
    for group in groups:
        members = [probes[index] for index in group.indices]
        kind = "forgetting" if all(p.group == "invariant" for p in members) else "uptake"
        clusters = tuple(numbers[index] for index in group.indices)
        for name in KEPT_METRICS:
            if name not in group.metrics:
                continue
            metric = PROBE_METRICS[name]
            before, after = item_values(metric, group, probes, systems)
            rising = (kind == "uptake") == metric.higher_is_better
            change = after - before if rising else before - after
            key = f"{group.name}_{name}".removesuffix("_exact" if kind == "forgetting" else "")
            found[key] = ItemScores(kind, metric.unit, tuple(change.tolist()), clusters)
    return found


def text_changes(
    base: CheckpointScores, arm: CheckpointScores, by_domain: bool = True
) -> dict[str, ItemScores]:
    """Nats per token lost on each text: ``general_text``, and its domains where there are several.

    Args:
        base: Scores of the base model.
        arm: Scores of the arm.
        by_domain: Give each domain too.
    """
    found = {}
    for own in text_values({BASELINE: base, "arm": arm}):
        if own.name == "general_text" or by_domain:
            before, after = own.nats
            values, tokens = (after - before) / own.tokens, tuple(own.tokens.tolist())
            found[own.name] = ItemScores(
                "forgetting", "nats/token", tuple(values.tolist()), weights=tokens
            )
    return found
