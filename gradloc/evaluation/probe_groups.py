"""Which probes a suite reports together."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from gradloc.data.probes import DEPTHS, Probe
from gradloc.evaluation.metrics import PROBE_METRICS

LEARNED_GROUPS = ("new", "updated")


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
        members, metrics = _where(probes, range(len(probes)), task=task), tuple(metrics_of(task))
        if task:
            found += _with_kinds(ProbeGroup(task, members, metrics), probes)
            continue
        for group in LEARNED_GROUPS:
            found += _by_depth(group, _where(probes, members, group=group), metrics, probes)
        known = _where(probes, members, group="invariant")
        names = tuple(name for name in metrics if not PROBE_METRICS[name].compares)
        note = "facts that the baseline has right" if screened else ""
        found += _with_kinds(ProbeGroup("known_facts", known, names, note), probes)
    return [group for group in found if group.indices]


def _where(probes: Sequence[Probe], indices: Iterable[int], **field: str) -> tuple[int, ...]:
    """Those of the indices whose probes have such a field."""
    ((name, value),) = field.items()
    return tuple(index for index in indices if getattr(probes[index], name) == value)


def _by_depth(
    group: str, members: tuple[int, ...], metrics: tuple[str, ...], probes: Sequence[Probe]
) -> list[ProbeGroup]:
    """A group at each depth, and over all of them where there are several."""
    parts = {depth: _where(probes, members, depth=depth) for depth in DEPTHS}
    parts = {depth: own for depth, own in parts.items() if own}
    at_depth = tuple(name for name in metrics if PROBE_METRICS[name].by_depth)
    pooled = tuple(name for name in metrics if len(parts) > 1 or name not in at_depth)
    single = [ProbeGroup(f"{group}_{depth}", own, at_depth) for depth, own in parts.items()]
    return [*single, *_with_kinds(ProbeGroup(group, members, pooled), probes)]


def _with_kinds(group: ProbeGroup, probes: Sequence[Probe]) -> list[ProbeGroup]:
    """A group, and its kinds where there are several."""
    kinds = list(dict.fromkeys(probes[index].kind for index in group.indices))
    if len(kinds) < 2:
        return [group]
    names = {kind: f"{group.name}_{_slug(kind) or 'other'}" for kind in kinds}
    return [group] + [
        group._replace(name=name, indices=_where(probes, group.indices, kind=kind))
        for kind, name in names.items()
    ]


def _slug(kind: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", kind.casefold()).strip("_")
