"""What is read off a scored probe."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gradloc.evaluation.metrics import choice, editing, matching

Columns = Mapping[str, Sequence[Any]]


class ProbeMetric(NamedTuple):
    """A value for each probe: all that is said of a metric is said here.

    Args:
        values: Columns of scored probes -> one value a probe, NaN where it does not apply. The
            columns hold what the requests found and the probes' own ``targets`` and
            ``old_targets``; a metric that compares takes the baseline's columns as well.
        label: What tables and pictures call it.
        source: Where it is defined.
        unit: ``nats``, ``fraction``, ``perplexity`` or ``bits``.
        higher_is_better: Direction; gains and losses get their sign from it.
        request: Key of ``gradloc.evaluation.requests.REQUESTS``: what the model is asked for it.
        by_depth: Whether it is also given for each depth, not only for a whole group.
        usual: Whether a suite that names no metrics has it.
        compares: Whether it needs the baseline's columns.
        perplexity: Whether the mean over probes is exponentiated.
        by_entity: Whether every entity counts the same, however many probes it has (macro).
        retention: Whether it measures what must not be lost, whatever the probe is about.
    """

    values: Callable[..., np.ndarray]
    label: str
    source: str = ""
    unit: str = "fraction"
    higher_is_better: bool = True
    request: str = "answers"
    by_depth: bool = True
    usual: bool = False
    compares: bool = False
    perplexity: bool = False
    by_entity: bool = False
    retention: bool = False


def span_nll(columns: Columns) -> np.ndarray:
    """Mean negative log-likelihood of an answer's tokens."""
    return _floats(columns["nll"])


def greedy_match(columns: Columns) -> np.ndarray:
    """1 where greedy decoding writes one of the answers token for token, else 0."""
    return _floats(columns["exact"])


def prefers_new(columns: Columns) -> np.ndarray:
    """1 where the new answer is likelier per token than the old one, NaN without an old answer.

    Per token, because the two answers may have different lengths; a tie counts for the old one.

    Example:
        >>> prefers_new({"nll": [1.0, 2.0, 1.0], "old_nll": [1.5, 1.5, None]})
        array([ 1.,  0., nan])
    """
    new, old = _floats(columns["nll"]), _floats(columns["old_nll"])
    return np.where(np.isnan(old), np.nan, (new < old).astype(float))


def prefers_new_released(columns: Columns) -> np.ndarray:
    """1 where the model's own greedy steps give the new answer more than the old one.

    The rule of EvolvingQA's released code: the tokens of each answer are looked up in the
    log-probabilities of what the model writes by itself, and summed without regard to length.
    A tie counts for the old one.
    """
    new, old = _floats(columns["greedy_new"]), _floats(columns["greedy_old"])
    return np.where(np.isnan(old), np.nan, (new > old).astype(float))


def chosen(columns: Columns) -> np.ndarray:
    """1 where a right candidate is the likeliest, by the sum over its tokens."""
    return _chosen(columns, by_length=False)


def chosen_by_length(columns: Columns) -> np.ndarray:
    """1 where a right candidate is the likeliest per character."""
    return _chosen(columns, by_length=True)


def token_accuracy(columns: Columns) -> np.ndarray:
    """Share of the answer's tokens that are the likeliest, the right ones before them given."""
    return _floats(columns["token_accuracy"])


def agreement(columns: Columns, baseline: Columns) -> np.ndarray:
    """Share of the answer's positions where the likeliest token is still the baseline's."""
    pairs = zip(columns["predicted"], baseline["predicted"], strict=True)
    return _each(
        np.nan if own is None or before is None else editing.agreement(own, before)
        for own, before in pairs
    )


def exact_match(columns: Columns) -> np.ndarray:
    """1 where what the model writes is one of the answers, after normalisation."""
    return _best(columns, "targets", matching.exact_match)


def token_f1(columns: Columns) -> np.ndarray:
    """Overlap of words between what the model writes and the nearest answer, as F1."""
    return _best(columns, "targets", matching.token_f1)


def old_exact_match(columns: Columns) -> np.ndarray:
    """1 where the model writes an answer that is out of date."""
    return _best(columns, "old_targets", matching.exact_match)


def old_token_f1(columns: Columns) -> np.ndarray:
    """Overlap of words between what the model writes and the nearest outdated answer."""
    return _best(columns, "old_targets", matching.token_f1)


def whole_nll(columns: Columns) -> np.ndarray:
    """Mean negative log-likelihood of prompt and answer together."""
    return _floats(columns["whole_nll"])


def recall_at_10(columns: Columns) -> np.ndarray:
    """1 where an answer is among the ten likeliest continuations of its length."""
    pairs = zip(columns["beams"], columns["targets"], strict=True)
    return _each(matching.recall_at_k(beams, [a.strip() for a in own]) for beams, own in pairs)


def fluency(columns: Columns) -> np.ndarray:
    """Entropy of the two- and three-word sequences in a long continuation."""
    return _each(editing.fluency([text]) for text in columns["prose"])


_ECBD = "Onoe et al. 2022, arXiv:2205.02832"
_CKL = "Jang et al. 2022 (CKL), arXiv:2110.03215"
_EVOLVING_QA = "Kim et al. 2024 (EvolvingQA), arXiv:2311.08106"
_KNOWEDIT = "Zhang et al. 2024 (KnowEdit), arXiv:2401.01286"

_CHOICE = "Onoe et al. 2023, arXiv:2305.01651; ARC, BLiMP"
_TEMPORAL_WIKI = "Jang et al. 2022 (TemporalWiki), arXiv:2204.14211"
_PERPLEXITY: dict[str, Any] = {
    "unit": "perplexity", "higher_is_better": False, "perplexity": True,
}  # fmt: skip
_OLD: dict[str, Any] = {"higher_is_better": False, "request": "written", "by_depth": False}

# Of one set of probes the first that it has speaks for it.
PROBE_METRICS = {
    "agreement": ProbeMetric(
        agreement, "agreement with the base model", _KNOWEDIT, compares=True, retention=True
    ),
    "choice": ProbeMetric(chosen, "choice", _CHOICE, usual=True),
    "token_accuracy": ProbeMetric(token_accuracy, "token accuracy", _KNOWEDIT),
    "exact_match": ProbeMetric(exact_match, "exact match, normalised", _CKL, request="written"),
    "perplexity": ProbeMetric(span_nll, "perplexity", _ECBD, **_PERPLEXITY),
    "prefers_new": ProbeMetric(
        prefers_new, "prefers the new answer", _EVOLVING_QA, by_depth=False, usual=True
    ),
    "recall_at_10": ProbeMetric(recall_at_10, "recall at 10", _ECBD, request="beams"),
    "nll": ProbeMetric(span_nll, "likelihood", _ECBD, "nats", False, usual=True),
    "exact": ProbeMetric(greedy_match, "exact match", usual=True),
    "f1": ProbeMetric(token_f1, "F1", _CKL, request="written"),
    "choice_norm": ProbeMetric(
        chosen_by_length, "choice by length", "ARC, as lm-evaluation-harness", usual=True
    ),
    "perplexity_macro": ProbeMetric(
        span_nll, "perplexity by entity", _ECBD, by_entity=True, **_PERPLEXITY
    ),
    "perplexity_whole": ProbeMetric(
        whole_nll, "perplexity of prompt and answer", _TEMPORAL_WIKI, request="whole", **_PERPLEXITY
    ),
    "prefers_new_released": ProbeMetric(
        prefers_new_released, "prefers the new answer, released rule",
        f"{_EVOLVING_QA}, released code", request="greedy_steps", by_depth=False,
    ),
    "old_exact_match": ProbeMetric(
        old_exact_match, "old answer, normalised", _EVOLVING_QA, **_OLD
    ),
    "old_f1": ProbeMetric(old_token_f1, "old answer, F1", _EVOLVING_QA, **_OLD),
    "fluency": ProbeMetric(fluency, "fluency", _KNOWEDIT, "bits", request="prose", retention=True),
}  # fmt: skip

# What lm-evaluation-harness writes after the name of a task, with filter: what it is called, and
# its unit.
HARNESS_METRICS = {
    "acc": ("accuracy", "fraction"),
    "acc_bytes": ("accuracy by bytes", "fraction"),
    "acc_norm": ("accuracy by length", "fraction"),
    "acc_mutual_info": ("accuracy by mutual information", "fraction"),
    "bits_per_byte": ("bits per byte", "bits/byte"),
    "byte_perplexity": ("perplexity a byte", "perplexity"),
    "em": ("exact match, em", "fraction"),
    "exact_match": ("exact match", "fraction"),
    "exact_match_flexible_extract": ("exact match, flexible", "fraction"),
    "exact_match_strict_match": ("exact match, strict", "fraction"),
    "f1": ("F1", "fraction"),
    "likelihood": ("likelihood", "nats"),
    "nll": ("likelihood", "nats"),
    "nll_sum": ("likelihood, summed", "nats"),
    "perplexity": ("perplexity", "perplexity"),
    "word_perplexity": ("perplexity a word", "perplexity"),
}


def usual_metrics(n_choices: int, n_probes: int) -> tuple[str, ...]:
    """Names of the metrics of a suite that names none.

    Args:
        n_choices: Probes that are a choice among candidates; where all are, only the choice
            counts.
        n_probes: All probes.
    """
    return tuple(
        name
        for name, metric in PROBE_METRICS.items()
        if metric.usual and (n_choices if name.startswith("choice") else n_choices < n_probes)
    )


def _chosen(columns: Columns, by_length: bool) -> np.ndarray:
    names = ("candidate_nats", "candidate_right", "candidate_lengths")
    rows = zip(*(columns[name] for name in names), strict=True)
    return _each(
        np.nan
        if nats is None
        else choice.choice_correct(
            -_floats(nats), np.flatnonzero(right), lengths if by_length else None
        )
        for nats, right, lengths in rows
    )


def _best(columns: Columns, answers: str, compare: Callable[[str, Any], float]) -> np.ndarray:
    return _each(
        compare(written, right) if right else np.nan
        for written, right in zip(columns["written"], columns[answers], strict=True)
    )


def _each(values: Any) -> np.ndarray:
    return np.array(list(values), float)


def _floats(column: Sequence[Any]) -> np.ndarray:
    return np.array(column, float)  # None (not scored, not applicable) becomes NaN
