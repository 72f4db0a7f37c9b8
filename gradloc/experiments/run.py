"""The stages of a recipe in order, on one run folder; a killed run continues.

Each stage writes one file, whole or not at all, and is not run again once the file is there.

    recipe.yaml -> probes.jsonl -> profile.json -> plan.json -> checkpoint/ -> results.json
    -> report.html

The first arm's weights are ``checkpoint/`` itself; the other arms' stand in
``checkpoint/arms/<name>/``, each with its own plan.
"""

import dataclasses
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from gradloc.config.recipe import Recipe, save_resolved
from gradloc.data.probes import ProbeSet, load_probes
from gradloc.errors import RunError
from gradloc.experiments.recipes import load_recipe
from gradloc.localization.plan import LayerPlan
from gradloc.localization.profile import GradientProfile
from gradloc.utils.io import (
    DOCUMENTS_FILE,
    PLAN_FILE,
    SCORES_FILE,
    TRAINING_FILE,
    read_json,
)

if TYPE_CHECKING:  # torch is imported only by the stages that need it
    from gradloc.evaluation.score_record import CheckpointScores
    from gradloc.evaluation.suites import Suite

STAGE_FILES = (
    "recipe.yaml",
    "probes.jsonl",
    "profile.json",
    "plan.json",
    "checkpoint",
    "results.json",
    "report.html",
)

BASELINE_SCORES = f"checkpoint/baseline_{SCORES_FILE}"

logger = logging.getLogger(__name__)


def run(recipe: Recipe, *, force: bool = False) -> Path:
    """Run every stage that is not finished yet.

    Args:
        recipe: The recipe.
        force: Start over: what an earlier run left in the folder is removed first.

    Returns:
        The run folder.

    Raises:
        RunError: The folder belongs to another recipe, or to continual training.
        GradlocError: A stage failed; finished stages stay.
    """
    run_dir = recipe.run_dir
    open_run(recipe, force=force)
    probes = make_probes(recipe, run_dir)
    profile = make_profile(recipe, run_dir, probes)
    plans = _plans(recipe, run_dir, profile)
    for arm, plan in plans.items():
        if not (arm_dir(recipe, arm) / TRAINING_FILE).is_file():
            train_stage(recipe, plan, arm=arm, probes=probes)
    if not (run_dir / "results.json").is_file():
        _evaluate(recipe, run_dir, probes)
    if not (run_dir / "report.html").is_file():
        from gradloc.report import write_report

        write_report(run_dir)
        logger.info(f"report     {run_dir / 'report.html'}")
    return run_dir


def arm_dir(recipe: Recipe, arm: str) -> Path:
    """Folder of an arm's weights: ``checkpoint/`` for the first, below it for the others."""
    checkpoint = recipe.run_dir / "checkpoint"
    return checkpoint if arm == next(iter(recipe.arms)) else checkpoint / "arms" / arm


def train_stage(
    recipe: Recipe,
    plan: LayerPlan,
    *,
    arm: str | None = None,
    out_dir: Path | None = None,
    probes: ProbeSet | None = None,
    force: bool = False,
) -> Path:
    """Train one arm into its folder, unless a finished checkpoint is there.

    Raises:
        RunError: A finished checkpoint is there and ``force`` is not given, or no such arm.
    """
    from gradloc.experiments.train import train

    arm = arm or next(iter(recipe.arms))
    if arm not in recipe.arms:
        raise RunError(f"recipe {recipe.name} has no arm {arm!r}; arms: {', '.join(recipe.arms)}.")
    folder = out_dir or arm_dir(recipe, arm)
    if (folder / TRAINING_FILE).exists():
        if not force:
            raise RunError(f"{folder} holds a finished checkpoint. Overwrite it with --force.")
        _clear_training(folder)
    logger.info(
        f"train      {arm}: {len(plan.trained)} of {len(plan.scale)} units, "
        f"{plan.trainable_fraction:.1%} of the parameters"
    )
    return train(recipe, plan, arm=arm, out_dir=folder, probes=probes)


def _clear_training(folder: Path) -> None:
    """Remove what would make a training count as finished or be continued."""
    for name in (TRAINING_FILE, SCORES_FILE):
        (folder / name).unlink(missing_ok=True)
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def open_run(recipe: Recipe, *, force: bool = False) -> None:
    """Make a run's folder, or see that it belongs to this recipe.

    Raises:
        RunError: It belongs to another recipe and ``force`` is not given, or to continual training.
    """
    run_dir = recipe.run_dir
    if (run_dir / DOCUMENTS_FILE).is_file():
        raise RunError(
            f"{run_dir} holds a continual training. Give the run another name (--set name=...), or "
            "remove the folder."
        )
    kept = run_dir / "recipe.yaml"
    if force:
        for name in STAGE_FILES:
            path = run_dir / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    finished = [name for name in STAGE_FILES[1:] if (run_dir / name).exists()]
    if not finished:
        # Nothing was made with an earlier recipe, so it may have been corrected since.
        save_resolved(recipe, kept)
    elif kept.is_file():
        if differing := differing_keys(load_recipe(kept), recipe):
            raise RunError(
                f"{run_dir} was made with another recipe (differs in {', '.join(differing)}). "
                "Give this one another name (--set name=...), or start over with --force or in an "
                "empty folder."
            )
    else:
        raise RunError(
            f"{run_dir} holds {', '.join(finished)} but no recipe.yaml, so they cannot be told to "
            "be this recipe's. Move them away, choose another name, or start over with --force."
        )


def differing_keys(found: Recipe, recipe: Recipe) -> list[str]:
    """Keys in which two recipes differ; what they ran in does not count."""
    return [
        field.name
        for field in dataclasses.fields(recipe)
        if field.compare and getattr(found, field.name) != getattr(recipe, field.name)
    ]


def drop_weights(recipe: Recipe) -> None:
    """Remove what is large in a run's folder; scores, plan and logs stay."""
    checkpoint = recipe.run_dir / "checkpoint"
    for file in checkpoint.rglob("*.safetensors"):
        file.unlink()
    for folder in (*checkpoint.glob("checkpoint-*"), recipe.run_dir / "prefix-cache"):
        shutil.rmtree(folder, ignore_errors=True)


def make_probes(recipe: Recipe, run_dir: Path) -> ProbeSet:
    """The probes of a run, from their file or built now."""
    path = run_dir / "probes.jsonl"
    if not path.is_file():
        from gradloc.data.corpora.readers import read_corpus
        from gradloc.data.preparation import build_probes

        probes = build_probes(recipe, read_corpus(recipe.corpus, seed=recipe.seed))
        probes.save(path)
        sides = {
            side: sum(p.split == side for p in probes) for side in ("localization", "evaluation")
        }
        logger.info(
            f"probes     {sides['localization']} to choose layers, {sides['evaluation']} to judge"
        )
    return load_probes(path)


def make_profile(recipe: Recipe, run_dir: Path, probes: ProbeSet) -> GradientProfile:
    """The gradient profile of a run, from its file or measured now."""
    path = run_dir / "profile.json"
    if not path.is_file():
        from gradloc.data.corpora.readers import read_corpus
        from gradloc.localization.probe_profile import profile_probes, recipe_reference
        from gradloc.models import load_model, load_tokenizer

        logger.info(f"measure    gradients of {recipe.model}")
        corpus = read_corpus(recipe.corpus, seed=recipe.seed)
        texts = recipe_reference(recipe, corpus, recipe.measure.n_reference)
        profile_probes(
            load_model(recipe.model, dtype=recipe.dtype),
            load_tokenizer(recipe.model),
            probes,
            texts,
            recipe.measure,
            seed=recipe.seed,
        ).save(path)
    return GradientProfile.load(path)


def _plans(recipe: Recipe, run_dir: Path, profile: GradientProfile) -> dict[str, LayerPlan]:
    """A plan for every arm; the first is the run's ``plan.json``, which a person may edit."""
    plans = {}
    for arm in recipe.arms:
        path = (run_dir if not plans else arm_dir(recipe, arm)) / PLAN_FILE
        if not path.is_file():
            plan = choose_plan(recipe, arm, profile)
            if not plans:
                plan.save(path)
                logger.info(f"select     {arm}: {', '.join(plan.trained)}")
        plans[arm] = LayerPlan.load(path) if path.is_file() else plan
    return plans


def choose_plan(recipe: Recipe, arm: str, profile: GradientProfile) -> LayerPlan:
    """Select layers as an arm does."""
    from gradloc.localization.layer_selection import select_layers
    from gradloc.training.methods.method_table import build_methods, step_shape

    config = recipe.arms[arm]
    step = step_shape(build_methods(config.methods).values(), recipe.corpus.max_length)
    return select_layers(profile, config.policy, step=step, **config.options)


def _evaluate(recipe: Recipe, run_dir: Path, probes: ProbeSet) -> None:
    """Score the base and every arm on the same items; finished scores are kept and reused."""
    from gradloc.evaluation.compare import summarize, training_facts
    from gradloc.evaluation.suites import recipe_suite
    from gradloc.report.card import write_model_card

    suite = recipe_suite(recipe, probes)
    base = score_baseline(recipe, run_dir, suite)
    suite = suite.screened(base)
    folders = {arm: arm_dir(recipe, arm) for arm in recipe.arms}
    scores = {
        arm: score_model(recipe, folder, suite, folder / SCORES_FILE, arm)
        for arm, folder in folders.items()
    }
    facts = {arm: training_facts(folder) for arm, folder in folders.items()}
    result = summarize(suite, base, scores, facts)
    for arm, folder in folders.items():
        write_model_card(
            folder,
            base_model=recipe.model,
            recipe_text=(folder / "recipe.yaml").read_text(encoding="utf-8"),
            plan=LayerPlan.load(folder / PLAN_FILE),
            training=read_json(folder / TRAINING_FILE, "training log"),
            result=result.arms[arm],
        )
    result.save(run_dir / "results.json")


def score_baseline(recipe: Recipe, run_dir: Path, suite: "Suite") -> "CheckpointScores":
    """Scores of the base model on every item of a run, from their file or computed now."""
    return score_model(recipe, recipe.model, suite, run_dir / BASELINE_SCORES, "baseline")


def score_model(
    recipe: Recipe, source: str | Path, suite: "Suite", kept: Path, name: str
) -> "CheckpointScores":
    """Scores of one model, from their file or computed now."""
    from gradloc.evaluation.evaluate import score_checkpoint
    from gradloc.evaluation.score_record import CheckpointScores
    from gradloc.models import load_model, load_tokenizer

    if not kept.is_file():
        logger.info(f"evaluate   {name}")
        model, tokenizer = load_model(source, dtype=recipe.dtype), load_tokenizer(source)
        score_checkpoint(model, tokenizer, suite, checkpoint=str(source)).save(kept)
    return CheckpointScores.load(kept)
