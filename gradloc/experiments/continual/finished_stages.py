"""From the folders of finished stages to the record of continual training."""

from dataclasses import replace

from gradloc.evaluation.aggregate import BASELINE, item_values
from gradloc.evaluation.item_changes import probe_changes, text_changes
from gradloc.evaluation.metrics import PROBE_METRICS
from gradloc.evaluation.probe_groups import ProbeGroup
from gradloc.evaluation.score_record import CheckpointScores, ItemScores
from gradloc.evaluation.suites import Suite, is_known_fact
from gradloc.experiments.continual.continual_record import (
    ArmRecord,
    ContinualRecord,
    StageRecord,
    uptake_metric,
)
from gradloc.experiments.continual.shared_inputs import SharedInputs
from gradloc.experiments.continual.stage_runs import Stage, arm_stages
from gradloc.localization.plan import LayerPlan
from gradloc.utils.environment import current_environment
from gradloc.utils.io import PLAN_FILE, SCORES_FILE, TRAINING_FILE, read_json


def collect(
    shared: SharedInputs, suite: Suite, base: CheckpointScores, command: str = ""
) -> ContinualRecord:
    """The record of those stages that are finished, of all arms of the recipe.

    Args:
        shared: What the arms share.
        suite: What they are asked, screened.
        base: Scores of the base model.
        command: The command that runs it, for the record.
    """
    recipe, items = shared.recipe, _Items(shared, suite, base)
    arms = {}
    for name, config in recipe.arms.items():
        stages = [stage for stage in arm_stages(shared, name) if stage.is_scored]
        if stages:
            plan = LayerPlan.load(stages[0].checkpoint / PLAN_FILE)
            log = read_json(stages[0].checkpoint / TRAINING_FILE, "training log")
            arms[name] = ArmRecord(
                policy=config.policy,
                methods=config.methods,
                learning_rate=log["learning_rate"],
                n_units=len(plan.scale),
                stages=tuple(_stage_record(stage, items) for stage in stages),
                training=config.training_but_rate,
            )
    return ContinualRecord(
        name=recipe.name,
        model=recipe.model,
        by=shared.division.by,
        measure=shared.division.measure,
        periods=tuple((p.name, p.start, p.end) for p in shared.periods),
        stages=tuple(stage.name for stage in shared.stages),
        base=items.of_base(),
        arms=arms,
        notes=shared.notes,
        seed=recipe.seed,
        n_bootstrap=suite.n_bootstrap,
        screened=suite.screen_invariant,
        command=command,
        environment=current_environment(),
    )


class _Items:
    """What is asked after every stage: the facts of each period, known facts, general text."""

    def __init__(self, shared: SharedInputs, suite: Suite, base: CheckpointScores):
        self.base = base
        self.asked = [p for p in suite.probes if p.group != "invariant"]
        self.known = [probe for probe in suite.probes if is_known_fact(probe)]
        self.periods = [
            ProbeGroup(period.name, members, ("nll",))
            for period in shared.periods
            if (members := tuple(i for i, p in enumerate(self.asked) if period.holds(p.date)))
        ]

    def of_base(self) -> dict[str, ItemScores]:
        """Log-probability of every period's answers by the base model."""
        systems = {BASELINE: self.base.only([probe.id for probe in self.asked])}
        unchanged = probe_changes(self.periods, self.asked, self.base, self.base)
        found = {}
        for period in self.periods:
            name = uptake_metric(period.name)
            nats = item_values(PROBE_METRICS["nll"], period, self.asked, systems)[0]
            found[name] = replace(unchanged[name], values=tuple((-nats).tolist()))
        return found

    def changes(self, after: CheckpointScores) -> dict[str, ItemScores]:
        """What a stage gained and lost."""
        everything = ProbeGroup("known_facts", tuple(range(len(self.known))), ("nll", "exact"))
        known = [everything] if self.known else []
        return {
            **probe_changes(self.periods, self.asked, self.base, after),
            **probe_changes(known, self.known, self.base, after),
            **text_changes(self.base, after, by_domain=False),
        }


def _stage_record(stage: Stage, items: _Items) -> StageRecord:
    log = read_json(stage.checkpoint / TRAINING_FILE, "training log")
    return StageRecord(
        period=stage.period.name,
        metrics=items.changes(CheckpointScores.load(stage.checkpoint / SCORES_FILE)),
        n_steps=log["n_steps"],
        train_seconds=log["train_seconds"],
        trainable_fraction=log["trainable_fraction"],
        trained=LayerPlan.load(stage.checkpoint / PLAN_FILE).trained,
    )
