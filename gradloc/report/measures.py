"""The order of an evaluation's measures, and which of them a table or picture has room for."""

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


def keys_of(results: EvalResult, *kinds: str) -> list[str]:
    """Keys of all arms, in the order in which they first occur."""
    arms = results.arms.values()
    return list(dict.fromkeys(key for arm in arms for kind in kinds for key in getattr(arm, kind)))


def measures(results: EvalResult, kind: str) -> list[str]:
    """Keys of one kind in reading order, without those of the kinds of a set (BLiMP has 67).

    Args:
        results: The evaluation.
        kind: ``uptake``, ``forgetting`` or ``scores``.
    """
    keys, parents = keys_of(results, kind), _parents(results)
    seen = [split_key(key).items for key in keys]
    whole = [key for key, items in zip(keys, seen, strict=True) if items not in parents]
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
    keys, parents = keys_of(results, "uptake", "forgetting", "scores"), _parents(results)
    seen = [split_key(key).items for key in keys]
    heads = {items: _head(items, parents) for items in seen}

    def place(key: str) -> tuple:
        items = split_key(key).items
        head = heads[items]
        first = seen.index(head) if head in seen else 0
        return (*_set_order(head), first, items in parents, *_place(key, seen))

    groups: dict[str, list[str]] = {}
    for key in sorted(keys, key=place):
        groups.setdefault(heads[split_key(key).items], []).append(key)
    return groups


def _parents(results: EvalResult) -> dict[str, str]:
    """The set that a set is a kind of, for those that are one."""
    sets: dict[str, set[str]] = {}
    for key in keys_of(results, "uptake", "forgetting", "scores"):
        name = split_key(key)
        # The share of right answers bears the name of the set alone, its kinds do not.
        metric = "exact" if key == "known_facts" else name.metric
        sets.setdefault(name.items, set()).add(metric)
    # Sets that the evaluation counted by their own name are no kinds of another.
    tasks = {*results.counts, *results.columns("probes").get("task", ())}
    found = {}
    for items, metrics in sets.items():
        over = [other for other in sets if items.startswith(f"{other}_") and sets[other] & metrics]
        if over and not fact_set(items) and items not in tasks:
            found[items] = max(over, key=len)
    return found


def _head(items: str, parents: dict[str, str]) -> str:
    """The set whose heading a set stands under: its group, or what it is a kind of."""
    while items in parents:
        items = parents[items]
    group = items.partition("_")[0]
    return group if fact_set(items) and group in FACTS else items


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
