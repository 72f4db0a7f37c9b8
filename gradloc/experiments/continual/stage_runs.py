"""The stages of one arm, each an ordinary recipe that starts from the weights of the last.

<output_dir>/<name>/<arm>/<stage>/  probes.jsonl, profile.json, plan.json, checkpoint/
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gradloc.config.recipe import ProbeSource, Recipe
from gradloc.errors import RunError
from gradloc.experiments.continual.periods import Period
from gradloc.experiments.continual.shared_inputs import PROBES_FILE, SharedInputs
from gradloc.experiments.run import (
    choose_plan,
    drop_weights,
    make_probes,
    make_profile,
    score_model,
    train_stage,
)
from gradloc.localization.plan import LayerPlan
from gradloc.localization.policies import POSITIONAL
from gradloc.utils.io import DOCUMENTS_FILE, PLAN_FILE, SCORES_FILE, TRAINING_FILE

if TYPE_CHECKING:  # torch is imported only by the stages that need it
    from gradloc.evaluation.suites import Suite
    from gradloc.localization.profile import GradientProfile


class Stage(NamedTuple):
    """One stage of one arm.

    Args:
        period: What it is trained on.
        arm: Name of the arm.
        recipe: Its recipe: the documents of the period, the model of the stage before.
        before: The stage before it; ``None`` for the first.
    """

    period: Period
    arm: str
    recipe: Recipe
    before: "Stage | None"

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.arm} {self.period.name}"

    @property
    def after(self) -> str:
        """The stage without which it cannot begin."""
        return self.before.label if self.before else ""

    @property
    def folder(self) -> Path:
        """Folder of the stage."""
        return self.recipe.run_dir

    @property
    def checkpoint(self) -> Path:
        """Folder of its weights."""
        return self.folder / "checkpoint"

    @property
    def is_trained(self) -> bool:
        """Whether its training is complete."""
        return (self.checkpoint / TRAINING_FILE).is_file()

    @property
    def is_scored(self) -> bool:
        """Whether nothing of it is left to do."""
        return self.is_trained and (self.checkpoint / SCORES_FILE).is_file()


def arm_stages(shared: SharedInputs, arm: str) -> list[Stage]:
    """The stages of an arm, in order; nothing is made."""
    stages: list[Stage] = []
    for period in shared.stages:
        before = stages[-1] if stages else None
        stages.append(Stage(period, arm, _stage_recipe(shared, arm, period, before), before))
    return stages


def run_stage(
    stage: Stage, *, shared: SharedInputs, suite: "Suite", keep_weights: bool = False
) -> None:
    """Run what is left of a stage.

    Args:
        stage: The stage; that before it is done.
        shared: What the arms share.
        suite: What is asked after every stage.
        keep_weights: Keep the weights of the stage before. Else they are removed once it has
            scores and this one is trained.

    Raises:
        RunError: The weights that it starts from are gone.
        GradlocError: It failed.
    """
    if not stage.is_trained:
        if stage.before is not None:
            _require_weights(stage.before)
        _train(shared, stage)
    if stage.before is not None and not keep_weights:
        drop_weights(stage.before.recipe)
    if not stage.is_scored:
        _require_weights(stage)
        kept = stage.checkpoint / SCORES_FILE
        score_model(stage.recipe, stage.checkpoint, suite, kept, stage.label)


def base_profile(shared: SharedInputs, first: Stage) -> "GradientProfile":
    """Measure the base model: before the first stage all arms are that, so it serves them all."""
    return make_profile(first.recipe, shared.folder, _probes(shared, first))


def _stage_recipe(shared: SharedInputs, arm: str, period: Period, before: Stage | None) -> Recipe:
    recipe, folder = shared.recipe, shared.folder / arm
    return replace(
        recipe,
        name=period.name,
        output_dir=str(folder),
        model=str(before.checkpoint) if before else recipe.model,
        corpus=replace(
            recipe.corpus,
            source="jsonl",
            paths=(str(shared.folder / DOCUMENTS_FILE),),
            fields={},
            options={},
            cutoff=period.start,
            until=period.end,
        ),
        probes=replace(
            recipe.probes,
            sources=(ProbeSource(str(folder / period.name / PROBES_FILE)),),
            from_corpus=False,
            from_documents=False,
        ),
        arms={arm: recipe.arms[arm]},
    )


def _probes(shared: SharedInputs, stage: Stage):
    if not (stage.folder / PROBES_FILE).is_file():
        shared.stage_probes(stage.period).save(stage.folder / PROBES_FILE)
    return make_probes(stage.recipe, stage.folder)


def _train(shared: SharedInputs, stage: Stage) -> None:
    """Measure, choose and train."""
    probes = _probes(shared, stage)
    if not (stage.folder / PLAN_FILE).is_file():
        _choose(shared, stage).save(stage.folder / PLAN_FILE)
    plan = LayerPlan.load(stage.folder / PLAN_FILE)
    train_stage(stage.recipe, plan, arm=stage.arm, probes=probes)


def _choose(shared: SharedInputs, stage: Stage) -> LayerPlan:
    if stage.before is None:
        profile = base_profile(shared, stage)
        profile.save(stage.folder / "profile.json")
        return choose_plan(stage.recipe, stage.arm, profile)
    # What a measurement could not change is not measured again.
    is_once = shared.timeline.division.measure == "once"
    if is_once or shared.recipe.arms[stage.arm].policy in POSITIONAL:
        return LayerPlan.load(stage.before.folder / PLAN_FILE)
    profile = make_profile(stage.recipe, stage.folder, _probes(shared, stage))
    return choose_plan(stage.recipe, stage.arm, profile)


def _require_weights(stage: Stage) -> None:
    if not any(stage.checkpoint.glob("*.safetensors")):
        raise RunError(
            f"{stage.checkpoint} has no weights any more, and they are needed to go on. Remove "
            f"{stage.folder.parent} to train this arm anew."
        )
