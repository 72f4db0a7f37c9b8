"""What each checkpoint learned and lost, from the scores of all of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradloc.data.probes import DEPTHS, Probe
from gradloc.errors import GradlocError
from gradloc.evaluation.aggregate import BASELINE, Metric, general_text_metrics, probe_metrics
from gradloc.evaluation.bootstrap import BootstrapEstimate, interval, undefined
from gradloc.evaluation.examples import shown_examples
from gradloc.evaluation.harness_metrics import harness_metrics
from gradloc.evaluation.matched_uptake import Point, forgetting_ratio, uptake_share
from gradloc.evaluation.metrics.fuar import fuar
from gradloc.evaluation.probe_groups import probe_groups
from gradloc.evaluation.results import ArmResult, EvalResult, MetricValue, uptake_axis
from gradloc.evaluation.score_record import CheckpointScores
from gradloc.evaluation.suites import Suite, is_known_fact
from gradloc.models.checkpoints import series_and_step
from gradloc.utils.environment import current_environment
from gradloc.utils.io import TRAINING_FILE, read_json

# The policy that trains everything: the line to compare with.
FULL_POLICY = "all"
_RESERVED = (BASELINE, "probe_ids", "probes", "texts")
# What training writes beside the weights, as fields of ``ArmResult``.
_FACTS = (
    "policy", "methods", "learning_rate", "train_seconds", "peak_rss_mib", "trainable_fraction",
    "curve",
)  # fmt: skip


def training_facts(folder: str | Path) -> dict[str, Any]:
    """How a checkpoint came about, as fields of ``ArmResult``; little is known of foreign ones.

    Raises:
        GradlocError: The file of what training left beside the weights cannot be read.
    """
    path = Path(folder) / TRAINING_FILE
    log = read_json(path, "training log") if path.is_file() else {}
    series, step = series_and_step(folder)
    return {**{name: log[name] for name in _FACTS if name in log}, "series": series, "step": step}


def summarize(
    suite: Suite,
    baseline: CheckpointScores | None,
    arms: Mapping[str, CheckpointScores],
    facts: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    reference_arms: Sequence[str] | None = None,
) -> EvalResult:
    """Compare checkpoints with their baseline, item by item.

    Args:
        suite: What was asked of the arms, screened if the suite asks for that.
        baseline: Scores of the model that "before" means, on at least the suite's probes;
            ``None``: only ``scores`` are given.
        arms: Arm name -> scores on the suite's probes.
        facts: Arm name -> ``training_facts``, where they are known.
        reference_arms: Arms that were trained in full; together they are the line that the
            others are compared with at equal uptake. ``None``: those whose policy is ``all``, by
            no method of training.

    Returns:
        The result.

    Raises:
        GradlocError: Scores of other probes or texts, a reserved or unknown arm name.
    """
    facts = {name: {} for name in arms} | dict(facts or {})
    if reference_arms is None:
        reference_arms = [
            name
            for name in arms
            if facts[name].get("policy") == FULL_POLICY and not facts[name].get("methods")
        ]
    _check_names(arms, reference_arms)
    before = {BASELINE: baseline} if baseline else {}
    systems = _on_same_items(suite, {**before, **arms})
    metrics = _metrics(suite, systems)

    def scores(system: str) -> dict[str, MetricValue]:
        return {key: metric.score(system) for key, metric in metrics.items()}

    results = {}
    for name in arms:
        changes: dict[str, dict[str, MetricValue]] = {"uptake": {}, "forgetting": {}}
        if baseline is not None:
            for key, metric in metrics.items():
                changes[metric.kind][key] = metric.change_figure(name)
            if (ratio := forgetting_per_gain(metrics, name)) is not None:
                changes["forgetting"]["fuar"] = ratio
        compared = baseline is not None and reference_arms and name not in reference_arms
        results[name] = ArmResult(
            checkpoint=arms[name].checkpoint,
            **changes,
            scores=scores(name),
            versus_full=_versus_full(metrics, name, reference_arms) if compared else {},
            **facts[name],
        )
    return EvalResult(
        suite=suite.name,
        baseline=baseline.checkpoint if baseline else "",
        baseline_scores=scores(BASELINE) if baseline else {},
        arms=results,
        counts=_counts(suite, next(iter(systems.values()))),
        items=_items(suite.probes, systems),
        examples=shown_examples(suite.probes, systems),
        reference_arms=tuple(reference_arms),
        versions=current_environment()["versions"],
    )


def _metrics(suite: Suite, systems: Mapping[str, CheckpointScores]) -> dict[str, Metric]:
    settings = {"n_bootstrap": suite.n_bootstrap, "seed": suite.seed}
    screened = suite.n_invariant_candidates is not None
    groups = probe_groups(suite.probes, suite.metrics_of, screened)
    return {
        **probe_metrics(groups, suite.probes, systems, settings),
        **general_text_metrics(systems, settings),
        **harness_metrics(systems, settings),
    }


def _versus_full(
    metrics: Mapping[str, Metric], arm: str, reference_arms: Sequence[str]
) -> dict[str, MetricValue]:
    axis = uptake_axis(key for key, metric in metrics.items() if metric.kind == "uptake")
    if axis is None:
        return {}
    taken = {name: metrics[axis].change(name) for name in (arm, *reference_arms)}
    found = {"uptake_share": uptake_share(taken[arm], [taken[name] for name in reference_arms])}
    for key in ("general_text", "known_facts", "known_facts_nll"):
        if key in metrics:
            arm_point, *line = (
                Point(taken[name], metrics[key].change(name)) for name in (arm, *reference_arms)
            )
            found[f"forgetting_ratio_{key}"] = forgetting_ratio(arm_point, line)
    return found


def forgetting_per_gain(metrics: Mapping[str, Metric], arm: str) -> MetricValue | None:
    """FUAR of one stage: known facts lost for each new or updated fact gained.

    From what models write where the suite has that (``exact_match``, as in CKL), else from
    teacher forcing (``exact``).

    Returns:
        The ratio, without value where nothing was gained; ``None`` where the suite lacks known
        facts, updated facts or new ones.

    References: Jang et al. 2022 (CKL), arXiv:2110.03215, equation 1.
    """
    for metric, how in (
        ("exact_match", "what the model writes"),
        ("exact", "greedy decoding, token for token"),
    ):
        known = metrics.get("known_facts" if metric == "exact" else f"known_facts_{metric}")
        updated, new = (_pooled(metrics, group, metric) for group in ("updated", "new"))
        if known and updated and new:
            pairs = [(x.estimates[BASELINE], x.estimates[arm]) for x in (known, updated, new)]
            return _fuar_figure(pairs, f"counted by {how}")
    return None


def _fuar_figure(
    pairs: Sequence[tuple[BootstrapEstimate, BootstrapEstimate]], note: str
) -> MetricValue:
    """FUAR from each group's share of right answers before and after."""
    n = sum(before.n for before, _ in pairs)
    sides = (
        [(before.value, after.value), *zip(before.replicates, after.replicates, strict=True)]
        for before, after in pairs
    )
    value, *replicates = (fuar(*row) for row in zip(*sides, strict=True))
    if value is None:
        return undefined(n, "ratio", False, f"{note}; nothing was gained")
    low, high = interval([np.inf if x is None else x for x in replicates])
    return MetricValue(value, low, high, n, "ratio", False, note)


def _pooled(metrics: Mapping[str, Metric], group: str, metric: str) -> Metric | None:
    """A metric over all depths of a group, which at a single depth is that depth's."""
    at_depths = [metrics.get(f"{group}_{depth}_{metric}") for depth in DEPTHS]
    return metrics.get(f"{group}_{metric}") or next(filter(None, at_depths), None)


# ---- checks, counts, items --------------------------------------------------------------------


def _check_names(arms: Mapping[str, CheckpointScores], reference_arms: Sequence[str]) -> None:
    if not arms:
        raise GradlocError("there is no checkpoint to compare; give at least one.")
    if taken := [name for name in arms if name in _RESERVED]:
        raise GradlocError(f"an arm may not be called {taken[0]!r}; give it another name.")
    if unknown := [name for name in reference_arms if name not in arms]:
        raise GradlocError(
            f"reference arm {unknown[0]!r} is not among the arms: {', '.join(arms)}."
        )


def _on_same_items(
    suite: Suite, systems: Mapping[str, CheckpointScores]
) -> dict[str, CheckpointScores]:
    ids = tuple(probe.id for probe in suite.probes)
    same = {name: scores.only(ids) for name, scores in systems.items()}
    tokens = {name: _tokens(scores) for name, scores in same.items()}
    for name, own in tokens.items():
        if own != next(iter(tokens.values())):
            raise GradlocError(
                f"{name}: its scores are of other texts, or of another tokenizer. Score it anew."
            )
    return same


def _tokens(scores: CheckpointScores) -> dict[str, list[int]]:
    return {domain: list(text["tokens"]) for domain, text in scores.texts.items()}


def _counts(suite: Suite, scores: CheckpointScores) -> dict[str, int]:
    counts = Counter(probe.task or f"{probe.group}_{probe.depth}" for probe in suite.probes)
    n_invariant = sum(is_known_fact(probe) for probe in suite.probes)
    n_truncated = sum(map(bool, scores.columns.get("truncated", ())))
    n_candidates = suite.n_invariant_candidates
    tokens = [n for numbers in _tokens(scores).values() for n in numbers]
    return {
        **counts,
        "invariant_candidates": n_invariant if n_candidates is None else n_candidates,
        "invariant_screened": n_invariant,
        "texts": len(tokens),
        "tokens": sum(tokens),
        **({"prompts cut to the context": n_truncated} if n_truncated else {}),
    }


def _items(probes: Sequence[Probe], systems: Mapping[str, CheckpointScores]) -> dict[str, Any]:
    first = next(iter(systems.values()))
    items: dict[str, Any] = {
        "probe_ids": list(first.probe_ids),
        "probes": {
            field: [getattr(probe, field) for probe in probes]
            for field in ("group", "depth", "task", "kind", "entity", "date")
        },
    }
    for name, scores in systems.items():
        answers = [scores.answers.get(identifier) for identifier in scores.probe_ids]
        columns = {key: scores.columns[key] for key in ("nll", "exact", "old_nll")}
        items[name] = {**columns, "answer": answers}
    items["texts"] = {
        domain: {name: scores.texts[domain] for name, scores in systems.items()}
        for domain in first.texts
    }
    return items
