"""Words for the keys of metrics, such as ``knowedit_portability_token_accuracy``."""

from typing import NamedTuple

from gradloc.evaluation.metrics.metric_table import HARNESS_METRICS, PROBE_METRICS

DEPTHS = {"verbatim": "as trained", "paraphrase": "paraphrased", "composition": "combined"}
FACTS = {"new": "new facts", "updated": "updated facts", "known_facts": "known facts"}

# Of facts the likelihood speaks first: answers of several words are rarely written in full.
_FACT_METRICS = ("", "nll", "prefers_new", "exact")

# Names of benchmarks as their authors write them; the longest prefix counts.
_BRANDS = {
    "arc_easy": "ARC easy",
    "arc_challenge": "ARC challenge",
    "arc": "ARC",
    "blimp": "BLiMP",
    "ckl": "CKL",
    "ecbd": "ECBD",
    "entity_inferences": "Entity Inferences",
    "evolvingqa": "EvolvingQA",
    "fictional_knowledge": "fictional knowledge",
    "fuar": "FUAR",
    "knowedit": "KnowEdit",
    "templama": "TempLAMA",
    "temporalwiki": "TemporalWiki",
}
HARNESS, TEXT = "lm_eval", "general_text"
_METRICS = {name: metric.label for name, metric in PROBE_METRICS.items()}
_METRICS["bits_per_byte"] = "bits per byte"
_WHOLE = {
    "fuar": "FUAR, forgotten per gained",
    "updated_prefers_new": "prefers the new answer",
    "known_facts_nll": "likelihood of known facts",
    "uptake_share": "uptake",
}


class MetricName(NamedTuple):
    """The parts of a key.

    Args:
        items: The set: a group, a group at a depth, a task, a task and a kind, general text.
        metric: Name of the metric; empty where the set has one that needs no word.
    """

    items: str
    metric: str


def split_key(key: str) -> MetricName:
    """Tell the set of items of a key from its metric.

    Example:
        >>> split_key("ecbd_person_recall_at_10"), split_key("known_facts")
        (MetricName(items='ecbd_person', metric='recall_at_10'), MetricName(items='known_facts', metric=''))
    """  # noqa: E501 - the output of a doctest cannot be broken
    metrics = HARNESS_METRICS if key.startswith(f"{HARNESS}_") else _METRICS
    if key == TEXT or key.startswith(f"{TEXT}_"):
        metrics = ("bits_per_byte",)
    for metric in sorted(metrics, key=len, reverse=True):
        if key.endswith(f"_{metric}"):
            return MetricName(key.removesuffix(f"_{metric}"), metric)
    return MetricName(key, "")


def metric_rank(name: MetricName) -> int:
    """Where a metric stands among those of its set: the lowest speaks for the set."""
    if fact_set(name.items) and name.metric in _FACT_METRICS:
        return _FACT_METRICS.index(name.metric)
    order = list(_METRICS)
    return 4 + order.index(name.metric) if name.metric in order else 0


def fact_set(items: str) -> bool:
    """Whether the items are facts by group and depth, not a task of their own."""
    group, _, depth = items.rpartition("_")
    return items in FACTS or (group in FACTS and depth in DEPTHS)


def set_label(items: str) -> str:
    """What a set of items is called.

    Example:
        >>> set_label("new_paraphrase"), set_label("knowedit_portability")
        ('new facts, paraphrased', 'KnowEdit portability')
    """
    if items in FACTS:
        return FACTS[items]
    group, _, depth = items.rpartition("_")
    if group in FACTS and depth in DEPTHS:
        return f"{FACTS[group]}, {DEPTHS[depth]}"
    if items.startswith(f"{HARNESS}_"):
        # Users know tasks of the harness by the names that they type.
        return f"{items.removeprefix(HARNESS)[1:]} (lm-eval)"
    for prefix in (*sorted(_BRANDS, key=len, reverse=True), *FACTS, TEXT):
        if items.startswith(f"{prefix}_"):
            name = _BRANDS.get(prefix) or FACTS.get(prefix) or _words(prefix)
            joint = ": " if prefix in FACTS or prefix == TEXT else " "
            return name + joint + _words(items.removeprefix(f"{prefix}_"))
    return _BRANDS.get(items) or _words(items)


def metric_label(key: str) -> str:
    """Spell out the key of a metric.

    Example:
        >>> metric_label("known_facts"), metric_label("new_verbatim_exact")
        ('known facts', 'new facts, as trained, exact match')
        >>> metric_label("arc_easy_choice"), metric_label("blimp_choice")
        ('ARC easy, choice', 'BLiMP, choice')
    """
    if key in _WHOLE:
        return _WHOLE[key]
    name = split_key(key)
    label = set_label(name.items)
    # A likelihood of facts needs no word: it is what their uptake means.
    if not name.metric or (name.metric == "nll" and fact_set(name.items)):
        return label
    is_harness = name.items.startswith(f"{HARNESS}_")
    return f"{label}, {HARNESS_METRICS[name.metric][0] if is_harness else _METRICS[name.metric]}"


def _words(key: str) -> str:
    return key.replace("_", " ")
