"""Run continual training: every arm through its stages, and the record of those that are done."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from gradloc.config.recipe import Recipe
from gradloc.data.probes import Probe
from gradloc.errors import RunError
from gradloc.evaluation.aggregate import BASELINE, item_values
from gradloc.evaluation.item_changes import probe_changes, text_changes
from gradloc.evaluation.metrics import PROBE_METRICS
from gradloc.evaluation.probe_groups import ProbeGroup
from gradloc.evaluation.score_record import CheckpointScores, ItemScores
from gradloc.evaluation.suites import Suite, is_known_fact, recipe_suite
from gradloc.experiments.continual.continual_record import (
    RECORD_FILE,
    ArmRecord,
    ContinualRecord,
    StageRecord,
    uptake_metric,
)
from gradloc.experiments.continual.periods import Period
from gradloc.experiments.continual.shared_inputs import Division, SharedInputs, open_continual
from gradloc.experiments.continual.stage_runs import Stage, arm_stages, base_profile, run_stage
from gradloc.experiments.jobs import run_jobs
from gradloc.experiments.run import drop_weights, score_model
from gradloc.localization.plan import LayerPlan
from gradloc.utils.environment import current_environment
from gradloc.utils.io import PLAN_FILE, SCORES_FILE, TRAINING_FILE, read_json
from gradloc.utils.names import did_you_mean

BASE_SCORES_FILE = "base_scores.json"


def run_continual(
    recipe: Recipe,
    division: Division | None = None,
    *,
    arms: Collection[str] = (),
    jobs: int = 1,
    keep_weights: bool = False,
    command: str = "",
) -> tuple[Path, dict[str, str]]:
    """Train every arm stage by stage, and score all items after every stage.

    Stage k trains on the documents dated in period k, from the weights of stage k-1; the first
    from the recipe's model. Killed at any point, the same call continues.

    Args:
        recipe: The recipe; each stage trains as its ``training`` says, warm-up and decay included.
        division: How time is divided; default: a stage a month, each measured anew.
        arms: Only these; empty: all.
        jobs: How many arms at a time.
        keep_weights: Keep the weights of every stage, not of each arm's last alone.
        command: The command, for the record.

    Returns:
        Path of ``continual.json``, and label -> reason of the stages that failed. Finished stages
        stay.

    Raises:
        RunError: No such arm, or the folder holds another continual training.
        GradlocError: Bad input, or a process was killed from outside.
    """
    for arm in arms:
        if arm not in recipe.arms:
            hint = did_you_mean(arm, recipe.arms)
            raise RunError(f"recipe {recipe.name} has no arm {arm!r}. {hint}")
    shared = open_continual(recipe, division or Division())
    # No examples: writing answers after every stage would cost more than scoring.
    suite = replace(recipe_suite(recipe, shared.probes), n_examples=0, example_ids=())
    base = score_model(recipe, recipe.model, suite, shared.folder / BASE_SCORES_FILE, "base")
    suite = suite.screened(base)
    groups = _groups(shared.timeline.periods, suite.probes)
    stages = {arm: arm_stages(shared, arm) for arm in recipe.arms}
    found = {
        stage.label: _stage_record(stage, groups, suite.probes, base)
        for own in stages.values()
        for stage in own
        if stage.is_scored
    }

    def save() -> Path:
        records = {
            arm: _arm_record(own, [found[stage.label] for stage in own if stage.label in found])
            for arm, own in stages.items()
            if own[0].label in found
        }
        items = _base_items(groups, suite.probes, base)
        return _record(shared, suite, items, records, command).save(shared.folder / RECORD_FILE)

    asked = [stage for arm, own in stages.items() if not arms or arm in arms for stage in own]
    todo = [stage for stage in asked if stage.label not in found]
    for stage in asked:
        if stage.before and stage.label in found and not keep_weights:
            drop_weights(stage.before.recipe)
    if jobs > 1 and any(stage.before is None for stage in todo):
        base_profile(shared, asked[0])  # so that no two processes measure it at once
    failed = {}
    work = partial(run_stage, shared=shared, suite=suite, keep_weights=keep_weights)
    for stage, reason in run_jobs(todo, work, processes=jobs, n_done=len(asked) - len(todo)):
        if reason:
            failed[stage.label] = reason
        else:
            found[stage.label] = _stage_record(stage, groups, suite.probes, base)
            save()
    return save(), failed


def _record(
    shared: SharedInputs,
    suite: Suite,
    base: dict[str, ItemScores],
    arms: dict[str, ArmRecord],
    command: str,
) -> ContinualRecord:
    recipe, timeline = shared.recipe, shared.timeline
    return ContinualRecord(
        name=recipe.name,
        model=recipe.model,
        by=timeline.division.by,
        measure=timeline.division.measure,
        periods=tuple((p.name, p.start, p.end) for p in timeline.periods),
        stages=timeline.stages,
        base=base,
        arms=arms,
        notes=timeline.notes,
        seed=recipe.seed,
        n_bootstrap=suite.n_bootstrap,
        screened=suite.screen_invariant,
        command=command,
        environment=current_environment(),
    )


def _groups(periods: Sequence[Period], probes: Sequence[Probe]) -> list[ProbeGroup]:
    """What is asked after every stage: the facts of each period, and known facts."""

    def members(period: Period) -> tuple[int, ...]:
        return tuple(
            i for i, p in enumerate(probes) if p.group != "invariant" and period.holds(p.date)
        )

    known = tuple(i for i, probe in enumerate(probes) if is_known_fact(probe))
    groups = [ProbeGroup(period.name, members(period), ("nll",)) for period in periods]
    groups.append(ProbeGroup("known_facts", known, ("nll", "exact")))
    return [group for group in groups if group.indices]


def _base_items(
    groups: Sequence[ProbeGroup], probes: Sequence[Probe], base: CheckpointScores
) -> dict[str, ItemScores]:
    """Log-probability of every period's answers by the base model."""
    systems = {BASELINE: base.only([probe.id for probe in probes])}
    unchanged = probe_changes(groups, probes, base, base)
    found = {}
    for group in groups:
        items = unchanged[name := uptake_metric(group.name)]
        if items.kind == "uptake":
            nats = item_values(PROBE_METRICS["nll"], group, probes, systems)[0]
            found[name] = replace(items, values=tuple((-nats).tolist()))
    return found


def _arm_record(stages: Sequence[Stage], finished: Sequence[StageRecord]) -> ArmRecord:
    config = stages[0].recipe.arms[stages[0].arm]
    log = read_json(stages[0].checkpoint / TRAINING_FILE, "training log")
    return ArmRecord(
        policy=config.policy,
        methods=config.methods,
        learning_rate=log["learning_rate"],
        n_units=len(LayerPlan.load(stages[0].checkpoint / PLAN_FILE).scale),
        stages=tuple(finished),
        training=config.training_but_rate,
    )


def _stage_record(
    stage: Stage, groups: Sequence[ProbeGroup], probes: Sequence[Probe], base: CheckpointScores
) -> StageRecord:
    after = CheckpointScores.load(stage.checkpoint / SCORES_FILE)
    log = read_json(stage.checkpoint / TRAINING_FILE, "training log")
    return StageRecord(
        period=stage.period.name,
        metrics={
            **probe_changes(groups, probes, base, after),
            **text_changes(base, after, by_domain=False),
        },
        n_steps=log["n_steps"],
        train_seconds=log["train_seconds"],
        trainable_fraction=log["trainable_fraction"],
        trained=LayerPlan.load(stage.checkpoint / PLAN_FILE).trained,
    )
