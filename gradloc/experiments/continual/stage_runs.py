"""The stages of one arm, each an ordinary recipe that starts from the weights of the last.

<output_dir>/<name>/<arm>/<stage>/  probes.jsonl, profile.json, plan.json, checkpoint/
"""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gradloc.config.recipe import ProbeSource, Recipe
from gradloc.errors import RunError
from gradloc.experiments.continual.periods import Period
from gradloc.experiments.continual.shared_inputs import (
    BASE_SCORES_FILE,
    PROBES_FILE,
    SharedInputs,
)
from gradloc.experiments.run import arm_step, make_probes, make_profile, score_model, train_stage
from gradloc.localization.plan import LayerPlan
from gradloc.localization.policies import POSITIONAL, select_layers
from gradloc.localization.profile import GradientProfile
from gradloc.utils.io import DOCUMENTS_FILE, PLAN_FILE, SCORES_FILE, TRAINING_FILE

if TYPE_CHECKING:  # torch is imported only by the stages that need it
    from gradloc.evaluation.score_record import CheckpointScores
    from gradloc.evaluation.suites import Suite

PROFILE_FILE = "profile.json"

logger = logging.getLogger(__name__)


class Stage(NamedTuple):
    """One stage of one arm.

    Args:
        period: What it is trained on.
        arm: Name of the arm.
        recipe: Its recipe: the documents of the period, the model of the stage before.
    """

    period: Period
    arm: str
    recipe: Recipe

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
        model = str(stages[-1].checkpoint) if stages else shared.recipe.model
        stages.append(Stage(period, arm, _stage_recipe(shared, arm, period, model)))
    return stages


def run_arm(
    shared: SharedInputs,
    arm: str,
    suite: "Suite",
    keep_weights: bool = False,
) -> Iterator[Stage]:
    """Run what is left of an arm, stage by stage.

    Args:
        shared: What the arms share.
        arm: Name of the arm.
        suite: What is asked after every stage.
        keep_weights: Keep the weights of every stage. Else only those of the last are kept: a
            stage's are removed once it has scores and the next is trained.

    Yields:
        Each stage that this call has completed.

    Raises:
        RunError: The weights that the next stage starts from are gone.
        GradlocError: A stage failed; finished stages stay.
    """
    before: Stage | None = None
    stages = arm_stages(shared, arm)
    for stage in stages:
        was_done = stage.is_scored
        if not stage.is_trained:
            if before is not None:
                _require_weights(before)
            _train(shared, stage, stages[0])
        if before is not None and not keep_weights:
            drop_weights(before)
        if not stage.is_scored:
            _require_weights(stage)
            score_model(
                stage.recipe, stage.checkpoint, suite, stage.checkpoint / SCORES_FILE,
                f"{arm} {stage.period.name}",
            )  # fmt: skip
        if not was_done:
            yield stage
        before = stage


def base_scores(shared: SharedInputs, suite: "Suite") -> "CheckpointScores":
    """Scores of the base model on every item, from their file or computed now."""
    path = shared.folder / BASE_SCORES_FILE
    return score_model(shared.recipe, shared.recipe.model, suite, path, "base")


def drop_weights(stage: Stage) -> None:
    """Remove a stage's weights and what else is large; scores, plan and logs stay."""
    for file in stage.checkpoint.rglob("*.safetensors"):
        file.unlink()
    for folder in (*stage.checkpoint.glob("checkpoint-*"), stage.folder / "prefix-cache"):
        shutil.rmtree(folder, ignore_errors=True)


def _stage_recipe(shared: SharedInputs, arm: str, period: Period, model: str) -> Recipe:
    recipe, folder = shared.recipe, shared.folder / arm
    return replace(
        recipe,
        name=period.name,
        output_dir=str(folder),
        model=model,
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


def _train(shared: SharedInputs, stage: Stage, first: Stage) -> None:
    """Measure, choose and train."""
    folder = stage.folder
    if not (folder / PROBES_FILE).is_file():
        shared.stage_probes(stage.period).save(folder / PROBES_FILE)
    probes = make_probes(stage.recipe, folder)
    if not (folder / PLAN_FILE).is_file():
        _choose(shared, stage, first).save(folder / PLAN_FILE)
    plan = LayerPlan.load(folder / PLAN_FILE)
    logger.info(
        f"train      {stage.arm} {stage.period.name}: {len(plan.trained)} of {len(plan.scale)} "
        f"units, {plan.trainable_fraction:.1%} of the parameters"
    )
    train_stage(stage.recipe, plan, arm=stage.arm, probes=probes)


def _choose(shared: SharedInputs, stage: Stage, first: Stage) -> LayerPlan:
    config = shared.recipe.arms[stage.arm]
    # What a measurement could not change is not measured again.
    chosen_once = shared.division.measure == "once" or config.policy in POSITIONAL
    if chosen_once and stage != first:
        return LayerPlan.load(first.folder / PLAN_FILE)
    if stage == first and not (stage.folder / PROFILE_FILE).is_file():
        # Before the first stage all arms are the base model, so one measurement serves them all.
        probes = make_probes(stage.recipe, stage.folder)
        make_profile(stage.recipe, shared.folder, probes).save(stage.folder / PROFILE_FILE)
    elif not (stage.folder / PROFILE_FILE).is_file():
        make_profile(stage.recipe, stage.folder, make_probes(stage.recipe, stage.folder))
    profile = GradientProfile.load(stage.folder / PROFILE_FILE)
    step = arm_step(config, stage.recipe.corpus.max_length)
    return select_layers(profile, config.policy, step=step, **config.options)


def _require_weights(stage: Stage) -> None:
    if not any(stage.checkpoint.glob("*.safetensors")):
        raise RunError(
            f"{stage.checkpoint} has no weights any more, and they are needed to go on. Remove "
            f"{stage.folder.parent} to train this arm anew."
        )
