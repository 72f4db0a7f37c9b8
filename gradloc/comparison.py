"""What each checkpoint learned and lost, from the scores of all of them.

Comes in: ``CheckpointScores`` of a baseline and of the arms, on the same items. Goes out: an
``EvalResult``. It runs no model: the same scores always give the same result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradloc.artifacts import read_json
from gradloc.environment import current_environment
from gradloc.errors import GradlocError
from gradloc.frontier import Point, forgetting_ratio, uptake_share
from gradloc.probes import Probe
from gradloc.results import ArmResult, EvalResult, Figure
from gradloc.suite_metrics import (
    BASELINE,
    CheckpointScores,
    Measure,
    general_text_measures,
    known_facts_measures,
    learning_measures,
)
from gradloc.suites import Suite

# The metric that arms are matched by; where a suite lacks it, its first likelihood of new facts.
UPTAKE_AXIS = "new_paraphrase_nll"
# The policy that trains everything: the line to compare with.
FULL_POLICY = "all"
_RESERVED = (BASELINE, "probe_ids", "texts")


@dataclass(frozen=True)
class TrainingFacts:
    """How a checkpoint came about; the fields are those of ``ArmResult``."""

    policy: str = ""
    learning_rate: float | None = None
    train_seconds: float | None = None
    peak_rss_mib: float | None = None
    trainable_fraction: float | None = None
    curve: dict[str, list] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: str | Path) -> "TrainingFacts":
        """Read what training left beside the weights; nothing is known of foreign checkpoints.

        Raises:
            GradlocError: The file is there but cannot be read.
        """
        # Imported here: comparing needs no Trainer, whose import takes seconds.
        from gradloc.training import TRAINING_FILE

        path = Path(folder) / TRAINING_FILE
        if not path.is_file():
            return cls()
        log = read_json(path, "training log")
        return cls(**{name: log[name] for name in cls.__dataclass_fields__ if name in log})


def summarize(
    suite: Suite,
    baseline: CheckpointScores | None,
    arms: Mapping[str, CheckpointScores],
    facts: Mapping[str, TrainingFacts] | None = None,
    *,
    reference_arms: Sequence[str] | None = None,
) -> EvalResult:
    """Compare checkpoints with their baseline, item by item.

    Args:
        suite: What was asked of the arms, screened if the suite asks for that.
        baseline: Scores of the model that "before" means, on at least the suite's probes;
            ``None``: only ``scores`` are given.
        arms: Arm name -> scores on the suite's probes.
        facts: Arm name -> how it was trained, where that is known.
        reference_arms: Arms that were trained in full; together they are the line that the
            others are compared with at equal uptake. ``None``: those whose policy is ``all``.

    Returns:
        The result.

    Raises:
        GradlocError: Scores of other probes or texts, a reserved or unknown arm name.
    """
    facts = dict(facts or {})
    if reference_arms is None:
        reference_arms = [n for n in arms if n in facts and facts[n].policy == FULL_POLICY]
    _check_names(arms, reference_arms)
    systems = _on_same_items(suite, {**({BASELINE: baseline} if baseline else {}), **arms})
    measures = _measures(suite, systems)
    results = {}
    for name in arms:
        changes: dict[str, dict[str, Figure]] = {"uptake": {}, "forgetting": {}}
        if baseline is not None:
            for key, measure in measures.items():
                changes[measure.kind][key] = measure.change_figure(name)
        compared = baseline is not None and reference_arms and name not in reference_arms
        results[name] = ArmResult(
            checkpoint=arms[name].checkpoint,
            **changes,
            scores={key: measure.score(name) for key, measure in measures.items()},
            versus_full=_versus_full(measures, name, reference_arms) if compared else {},
            **vars(facts.get(name, TrainingFacts())),
        )
    return EvalResult(
        suite=suite.name,
        baseline=baseline.checkpoint if baseline else "",
        baseline_scores={key: measure.score(BASELINE) for key, measure in measures.items()}
        if baseline
        else {},
        arms=results,
        counts=_counts(suite, next(iter(systems.values()))),
        items=_items(systems),
        examples=_examples(suite.probes, systems),
        reference_arms=tuple(reference_arms),
        versions=current_environment()["versions"],
    )


def _measures(suite: Suite, systems: Mapping[str, CheckpointScores]) -> dict[str, Measure]:
    settings = {"n_bootstrap": suite.n_bootstrap, "seed": suite.seed}
    screened = suite.n_invariant_candidates is not None
    return {
        **learning_measures(suite.probes, systems, settings),
        **known_facts_measures(suite.probes, systems, screened, settings),
        **general_text_measures(systems, settings),
    }


def _versus_full(
    measures: Mapping[str, Measure], arm: str, reference_arms: Sequence[str]
) -> dict[str, Figure]:
    uptakes = [key for key, measure in measures.items() if measure.kind == "uptake"]
    likelihoods = [key for key in uptakes if key.endswith("_nll")]
    axis = UPTAKE_AXIS if UPTAKE_AXIS in uptakes else next(iter(likelihoods), None)
    if axis is None:
        return {}
    taken = {name: measures[axis].change(name) for name in (arm, *reference_arms)}
    found = {"uptake_share": uptake_share(taken[arm], [taken[name] for name in reference_arms])}
    for key in ("general_text", "known_facts", "known_facts_nll"):
        if key in measures:
            arm_point, *line = (
                Point(taken[name], measures[key].change(name)) for name in (arm, *reference_arms)
            )
            found[f"forgetting_ratio_{key}"] = forgetting_ratio(arm_point, line)
    return found


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
    tokens = _tokens(next(iter(same.values())))
    for name, scores in same.items():
        if _tokens(scores) != tokens:
            raise GradlocError(
                f"{name}: its scores are of other texts, or of another tokenizer. Score it anew."
            )
    return same


def _tokens(scores: CheckpointScores) -> dict[str, list[int]]:
    return {domain: list(text["tokens"]) for domain, text in scores.texts.items()}


def _counts(suite: Suite, scores: CheckpointScores) -> dict[str, int]:
    counts: dict[str, int] = {}
    for probe in suite.probes:
        key = f"{probe.group}_{probe.depth}"
        counts[key] = counts.get(key, 0) + 1
    n_invariant = sum(probe.group == "invariant" for probe in suite.probes)
    n_candidates = suite.n_invariant_candidates
    tokens = [n for numbers in _tokens(scores).values() for n in numbers]
    return {
        **counts,
        "invariant_candidates": n_invariant if n_candidates is None else n_candidates,
        "invariant_screened": n_invariant,
        "texts": len(tokens),
        "tokens": sum(tokens),
    }


def _items(systems: Mapping[str, CheckpointScores]) -> dict[str, Any]:
    first = next(iter(systems.values()))
    items: dict[str, Any] = {"probe_ids": list(first.probe_ids)}
    for name, scores in systems.items():
        answers = [scores.answers.get(identifier) for identifier in scores.probe_ids]
        columns = {key: scores.columns[key] for key in ("nll", "exact", "old_nll")}
        items[name] = {**columns, "answer": answers}
    items["texts"] = {
        domain: {name: scores.texts[domain] for name, scores in systems.items()}
        for domain in first.texts
    }
    return items


def _examples(
    probes: Sequence[Probe], systems: Mapping[str, CheckpointScores]
) -> tuple[dict[str, Any], ...]:
    asked = next(iter(systems.values())).answers
    by_id = {probe.id: probe for probe in probes}
    return tuple(
        {
            "prompt": by_id[identifier].prompt,
            "target": by_id[identifier].targets[0],
            "old_target": next(iter(by_id[identifier].old_targets), ""),
            "group": by_id[identifier].group,
            "answers": {
                name: scores.answers[identifier]
                for name, scores in systems.items()
                if identifier in scores.answers
            },
        }
        for identifier in asked
    )
