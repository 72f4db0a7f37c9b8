"""From finished stages to the record of a stream.

Comes in: stage folders. Goes out: ``StreamRecord``, every item's change against the base model. It
averages nothing and runs no model.
"""

from collections.abc import Sequence

import numpy as np

from gradloc.data.probes import Probe
from gradloc.evaluation.aggregate import CheckpointScores
from gradloc.evaluation.suites import Suite, is_known_fact
from gradloc.experiments.continual.periods import period_of
from gradloc.experiments.continual.records import (
    ArmRecord,
    Items,
    StageRecord,
    StreamRecord,
    Values,
)
from gradloc.experiments.continual.stages import Stage, arm_stages
from gradloc.experiments.continual.start import Start
from gradloc.localization.plan import LayerPlan
from gradloc.utils.environment import current_environment
from gradloc.utils.io import PLAN_FILE, SCORES_FILE, TRAINING_FILE, read_json


def collect(start: Start, suite: Suite, base: CheckpointScores, command: str = "") -> StreamRecord:
    """The record of those stages that are finished, of all arms of the recipe.

    Args:
        start: What the arms share.
        suite: What they are asked, screened.
        base: Scores of the base model.
        command: The command that runs it, for the record.
    """
    recipe = start.recipe
    asked = [p for p in suite.probes if period_of(p.date, start.periods) and not _is_kept(p)]
    known = [probe for probe in suite.probes if is_known_fact(probe)]
    arms = {}
    for name, config in recipe.arms.items():
        stages = [stage for stage in arm_stages(start, name) if stage.is_scored]
        if stages:
            plan = LayerPlan.load(stages[0].checkpoint / PLAN_FILE)
            log = read_json(stages[0].checkpoint / TRAINING_FILE, "training log")
            arms[name] = ArmRecord(
                policy=config.policy,
                methods=config.methods,
                learning_rate=log["learning_rate"],
                n_units=len(plan.scale),
                stages=tuple(_stage_record(stage, base, asked, known) for stage in stages),
                training=config.training_but_rate,
            )
    return StreamRecord(
        name=recipe.name,
        model=recipe.model,
        by=start.division.by,
        measure=start.division.measure,
        periods=tuple(tuple(period) for period in start.periods),
        stages=tuple(stage.name for stage in start.stages),
        items=Items(
            dates=tuple(probe.date for probe in asked),
            entities=_entities(asked),
            base=tuple((-_column(base, asked, "nll")).tolist()),
            known_entities=_entities(known),
            text_tokens=tuple(int(n) for n in _texts(base, "tokens")),
        ),
        arms=arms,
        notes=start.notes,
        seed=recipe.seed,
        n_bootstrap=suite.n_bootstrap,
        screened=suite.screen_invariant,
        command=command,
        environment=current_environment(),
    )


def _stage_record(
    stage: Stage, base: CheckpointScores, asked: Sequence[Probe], known: Sequence[Probe]
) -> StageRecord:
    after = CheckpointScores.load(stage.checkpoint / SCORES_FILE)
    log = read_json(stage.checkpoint / TRAINING_FILE, "training log")
    lost_nats = _texts(after, "nats") - _texts(base, "nats")

    def fall(probes: Sequence[Probe], column: str) -> np.ndarray:
        return _column(base, probes, column) - _column(after, probes, column)

    return StageRecord(
        period=stage.period.name,
        uptake=_plain(fall(asked, "nll")),
        known_facts=_plain(fall(known, "exact")),
        known_facts_nll=_plain(-fall(known, "nll")),
        # A text of one token has nothing to score; its weight is 0.
        general_text=_plain(lost_nats / np.maximum(_texts(base, "tokens"), 1)),
        n_steps=log["n_steps"],
        train_seconds=log["train_seconds"],
        trainable_fraction=log["trainable_fraction"],
        trained=LayerPlan.load(stage.checkpoint / PLAN_FILE).trained,
    )


def _is_kept(probe: Probe) -> bool:
    return probe.group == "invariant"


def _column(scores: CheckpointScores, probes: Sequence[Probe], name: str) -> np.ndarray:
    """A column of some probes, NaN where a score was not finite."""
    found = scores.only([probe.id for probe in probes]).columns[name]
    return np.array([np.nan if value is None else value for value in found], float)


def _texts(scores: CheckpointScores, name: str) -> np.ndarray:
    values = [value for text in scores.texts.values() for value in text[name]]
    return np.array([np.nan if value is None else value for value in values], float)


def _entities(probes: Sequence[Probe]) -> tuple[int, ...]:
    names = [("entity", p.entity) if p.entity else ("id", p.id) for p in probes]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return tuple(numbers[name] for name in names)


def _plain(values: np.ndarray) -> Values:
    return tuple(values.tolist())
