"""Which measures stand under "What was learned, what was lost", and in which order.

Comes in: an ``EvalResult``. Goes out: ``Panel``: rows of figures, a measure each. Places on an
axis are given by ``gradloc.report.forest``. Sets of items come first, their kinds apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gradloc.evaluation.results import EvalResult, MetricValue
from gradloc.report.metric_names import (
    DEPTHS,
    FACTS,
    HARNESS,
    TEXT,
    fact_set,
    metric_label,
    metric_rank,
    metric_word,
    set_label,
    split_key,
)

# More than a reader takes in at a glance, and about a screen of rows.
MAX_ROWS = 14
# More kinds than that (BLiMP has 67) are for the tables.
MAX_KINDS = 12
# Of each kind, so that a picture of twelve kinds keeps to two screens.
_KIND_METRICS = 2
_LATER = 2  # tiers by which a pool stands behind the depths that it is made of


@dataclass(frozen=True)
class Row:
    """One measure of all arms.

    Args:
        key: Key of the metric.
        label: Its words.
        unit: Unit of its figures.
        higher_is_better: Direction of its figures.
        figures: Arm -> figure, for those that have one.
    """

    key: str
    label: str
    unit: str
    higher_is_better: bool
    figures: Mapping[str, MetricValue]


@dataclass(frozen=True)
class Kinds:
    """The kinds of one set of items; no rows where they are too many to be drawn."""

    items: str
    label: str
    n_kinds: int
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Panel:
    """What one picture shows.

    Args:
        key: ``learned`` or ``lost``; ``higher`` or ``lower`` for plain scores.
        higher_is_better: Direction of all of its rows.
        is_change: Whether its figures are differences from the baseline.
        rows: The measures that are seen at once.
        more: Those behind a click.
        kinds: Kinds of the sets above.
    """

    key: str
    higher_is_better: bool
    is_change: bool
    rows: tuple[Row, ...]
    more: tuple[Row, ...]
    kinds: tuple[Kinds, ...]

    @property
    def every_row(self) -> tuple[Row, ...]:
        """All rows that are drawn."""
        return (*self.rows, *self.more, *(row for kinds in self.kinds for row in kinds.rows))


def change_panels(results: EvalResult) -> list[Panel]:
    """What was learned and what was lost; without a baseline plain scores, by their direction."""
    arms = results.arms.items()
    if any(arm.uptake or arm.forgetting for _, arm in arms):
        halves = {
            "learned": (True, {name: arm.uptake for name, arm in arms}),
            "lost": (False, {name: arm.forgetting for name, arm in arms}),
        }
    else:
        halves = {
            key: (
                higher,
                {
                    name: {k: f for k, f in arm.scores.items() if f.higher_is_better == higher}
                    for name, arm in arms
                },
            )
            for key, higher in (("higher", True), ("lower", False))
        }
    return [
        _panel(key, higher, figures, results)
        for key, (higher, figures) in halves.items()
        if key in ("learned", "lost") or any(figures.values())
    ]


def main_losses(results: EvalResult) -> tuple[str, ...]:
    """The measures of forgetting that a table or picture has room for: two at most."""
    rows = losses(results)
    having = [row.key for row in rows]
    if usual := tuple(key for key in ("known_facts", TEXT) if key in having):
        return usual
    first = {split_key(key).items: key for key in reversed(having)}  # of each set the first
    return tuple(key for key in having if key in first.values())[:2]


def losses(results: EvalResult) -> tuple[Row, ...]:
    """Every measure of what the baseline had, without the kinds."""
    return next(
        ((*panel.rows, *panel.more) for panel in change_panels(results) if panel.key == "lost"), ()
    )


def set_order(items: str) -> tuple[int, int]:
    """Facts first, then what the base model knew, text, benchmarks, and tasks of the harness."""
    group, _, depth = items.rpartition("_")
    if group in FACTS and depth in DEPTHS:
        return list(FACTS).index(group), list(DEPTHS).index(depth)
    for rank, prefix in ((0, "new"), (1, "updated"), (2, "known_facts"), (3, TEXT), (4, "fuar")):
        if items == prefix or items.startswith(f"{prefix}_"):
            return rank, len(DEPTHS)
    return (6 if items.startswith(f"{HARNESS}_") else 5), 0


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
    return {*results.counts, *(results.items.get("probes") or {}).get("task", ())} - {""}


def _panel(key: str, higher: bool, figures: dict, results: EvalResult) -> Panel:
    sets, tasks = sets_of(results), tasks_of(results)
    keys = dict.fromkeys(key for metrics in figures.values() for key in metrics)
    names = {key: split_key(key) for key in keys}
    here = {name.items for name in names.values()}
    parents = {
        items: parent if parent in here else None
        for items in here
        for parent in [parent_set(items, sets, tasks)]
    }
    # Stable: sets of one rank stay in the order of the evaluation.
    seen = {items: n for n, items in enumerate(dict.fromkeys(n.items for n in names.values()))}

    def place(key: str) -> tuple:
        items = names[key].items
        return (*set_order(items), seen[items], metric_rank(names[key]))

    coarse = sorted((key for key in keys if parents[names[key].items] is None), key=place)
    visible = _visible(coarse)
    return Panel(
        key=key,
        higher_is_better=higher,
        is_change=key in ("learned", "lost"),
        rows=tuple(_row(k, metric_label(k), figures) for k in coarse if k in visible),
        more=tuple(_row(k, metric_label(k), figures) for k in coarse if k not in visible),
        kinds=tuple(
            _kinds(parent, [k for k in keys if parents[names[k].items] == parent], figures)
            for parent in sorted(here, key=lambda items: (*set_order(items), seen[items]))
            if parent in parents.values()
        ),
    )


def _visible(keys: list[str]) -> set[str]:
    """The measures seen at once: whole tiers while they fit, every set's first measure first."""
    if len(keys) <= MAX_ROWS:
        return set(keys)
    by_set: dict[str, list[str]] = {}
    for key in keys:
        by_set.setdefault(split_key(key).items, []).append(key)
    tiers: dict[int, list[str]] = {}
    for items, own in by_set.items():
        at_depths = any(f"{items}_{depth}" in by_set for depth in DEPTHS)
        for n, key in enumerate(own):
            is_preference = split_key(key).metric == "prefers_new"
            tier = 0 if is_preference else n + (_LATER if at_depths else 0)
            tiers.setdefault(tier, []).append(key)
    chosen: list[str] = []
    for _, tier in sorted(tiers.items()):
        if chosen and len(chosen) + len(tier) > MAX_ROWS:
            break
        chosen += tier
    return set(chosen[:MAX_ROWS])


def _kinds(parent: str, keys: list[str], figures: dict) -> Kinds:
    own = list(dict.fromkeys(split_key(key).items for key in keys))
    rows = []
    for items in own if len(own) <= MAX_KINDS else ():
        of_kind = sorted(
            (key for key in keys if split_key(key).items == items),
            key=lambda key: metric_rank(split_key(key)),
        )
        for key in of_kind[:_KIND_METRICS]:
            words = [
                items.removeprefix(f"{parent}_").replace("_", " "),
                metric_word(split_key(key)),
            ]
            rows.append(_row(key, ", ".join(word for word in words if word), figures))
    return Kinds(parent, set_label(parent), len(own), tuple(rows))


def _row(key: str, label: str, figures: dict[str, dict[str, MetricValue]]) -> Row:
    own = {arm: metrics[key] for arm, metrics in figures.items() if key in metrics}
    first = next(iter(own.values()))
    return Row(key, label, first.unit, first.higher_is_better, own)
