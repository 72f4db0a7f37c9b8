"""The order of an evaluation's measures, and which of them a table or picture has room for."""

from collections.abc import Mapping

from gradloc.evaluation.results import EvalResult
from gradloc.report.metric_names import (
    DEPTHS,
    FACTS,
    HARNESS,
    TEXT,
    fact_set,
    metric_rank,
    split_key,
)


def measures(results: EvalResult, kind: str) -> list[str]:
    """Keys of one kind in reading order, without those of the kinds of a set (BLiMP has 67).

    Args:
        results: The evaluation.
        kind: ``uptake``, ``forgetting`` or ``scores``.
    """
    sets, tasks = sets_of(results), tasks_of(results)
    keys = list(dict.fromkeys(key for arm in results.arms.values() for key in getattr(arm, kind)))
    whole = [key for key in keys if parent_set(split_key(key).items, sets, tasks) is None]
    seen = [split_key(key).items for key in keys]
    return sorted(whole, key=lambda key: _place(key, seen))


def first_measures(keys: list[str]) -> list[str]:
    """Of every set of items the measure that speaks for it."""
    first = {split_key(key).items: key for key in reversed(keys)}
    return [key for key in keys if key in first.values()]


def main_losses(results: EvalResult) -> list[str]:
    """The measures of forgetting that a table or picture has room for: two at most."""
    keys = measures(results, "forgetting")
    if usual := [key for key in ("known_facts", TEXT) if key in keys]:
        return usual
    return first_measures(keys)[:2]


def grouped_measures(results: EvalResult) -> dict[str, list[str]]:
    """Set of items -> every metric about it, the kinds of the set last."""
    sets, tasks = sets_of(results), tasks_of(results)
    arms = results.arms.values()
    groups_of = ((*arm.uptake, *arm.forgetting, *arm.scores) for arm in arms)
    keys = list(dict.fromkeys(key for group in groups_of for key in group))
    seen = [split_key(key).items for key in keys]
    heads = {items: _top_set(items, sets, tasks) for items in seen}

    def place(key: str) -> tuple:
        items = split_key(key).items
        top = heads[items]
        is_kind = parent_set(items, sets, tasks) is not None
        first = seen.index(top) if top in seen else 0
        return (*_set_order(top), first, is_kind, *_place(key, seen))

    groups: dict[str, list[str]] = {}
    for key in sorted(keys, key=place):
        groups.setdefault(heads[split_key(key).items], []).append(key)
    return groups


def parent_set(items: str, sets: Mapping[str, set[str]], tasks: set[str]) -> str | None:
    """The set that a set is a kind of, if it is one.

    Args:
        items: The set.
        sets: Every set and its metrics.
        tasks: Names that are known to be sets of their own.
    """
    if fact_set(items) or items in tasks:
        return None
    over = [other for other in sets if items.startswith(f"{other}_") and sets[other] & sets[items]]
    return max(over, key=len, default=None)


def sets_of(results: EvalResult) -> dict[str, set[str]]:
    """Every set of items in the results, and its metrics."""
    sets: dict[str, set[str]] = {}
    for arm in results.arms.values():
        for key in (*arm.uptake, *arm.forgetting, *arm.scores):
            name = split_key(key)
            # The share of right answers bears the name of the set alone, its kinds do not.
            metric = "exact" if key == "known_facts" else name.metric
            sets.setdefault(name.items, set()).add(metric)
    return sets


def tasks_of(results: EvalResult) -> set[str]:
    """Sets that the evaluation counted by their own name."""
    probes = results.items.get("probes")
    tasks = probes.get("task", ()) if isinstance(probes, dict) else ()
    return {*results.counts, *tasks} - {""}


def _place(key: str, seen: list[str]) -> tuple:
    name = split_key(key)
    return (*_set_order(name.items), seen.index(name.items), metric_rank(name))


def _set_order(items: str) -> tuple[int, int]:
    """Facts first, then what the base model knew, text, benchmarks, and tasks of the harness."""
    group, _, depth = items.rpartition("_")
    if group in FACTS and depth in DEPTHS:
        return list(FACTS).index(group), list(DEPTHS).index(depth)
    for rank, prefix in enumerate(("new", "updated", "known_facts", TEXT, "fuar")):
        if items == prefix or items.startswith(f"{prefix}_"):
            return rank, len(DEPTHS)
    return (6 if items.startswith(f"{HARNESS}_") else 5), 0


def _top_set(items: str, sets: Mapping[str, set[str]], tasks: set[str]) -> str:
    """The set whose heading a set stands under: its group, or what it is a kind of."""
    while (over := parent_set(items, sets, tasks)) is not None:
        items = over
    group = items.partition("_")[0]
    return group if fact_set(items) and group in FACTS else items
