"""Run continual training: every arm through its stages."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from gradloc.config.recipe import Recipe
from gradloc.errors import RunError
from gradloc.experiments.continual.continual_folder import open_continual
from gradloc.experiments.continual.continual_record import RECORD_FILE
from gradloc.experiments.continual.shared_inputs import Division
from gradloc.experiments.continual.stage_runs import base_scores, run_arm
from gradloc.utils.names import did_you_mean


def run_continual(
    recipe: Recipe,
    division: Division | None = None,
    *,
    arms: Collection[str] = (),
    keep_weights: bool = False,
    command: str = "",
) -> Path:
    """Train every arm stage by stage, and score all items after every stage.

    Stage k trains on the documents dated in period k, from the weights of stage k-1; the first
    from the recipe's model. Killed at any point, the same call continues.

    Args:
        recipe: The recipe; each stage trains as its ``training`` says, warm-up and decay included.
        division: How time is divided; default: a stage a month, each measured anew.
        arms: Only these; empty: all.
        keep_weights: Keep the weights of every stage, not of each arm's last alone.
        command: The command, for the record.

    Returns:
        Path of ``continual.json``.

    Raises:
        RunError: No such arm, the folder holds another continual training, or weights are gone.
        GradlocError: A stage failed; finished stages stay.
    """
    from gradloc.evaluation.suites import recipe_suite
    from gradloc.experiments.continual.finished_stages import collect

    for arm in arms:
        if arm not in recipe.arms:
            hint = did_you_mean(arm, recipe.arms)
            raise RunError(f"recipe {recipe.name} has no arm {arm!r}. {hint}")
    shared = open_continual(recipe, division or Division())
    # No examples: writing answers after every stage would cost more than scoring.
    suite = replace(recipe_suite(recipe, shared.probes), n_examples=0, example_ids=())
    base = base_scores(shared, suite)
    suite = suite.screened(base)
    path = shared.folder / RECORD_FILE
    for arm in recipe.arms:
        if arms and arm not in arms:
            continue
        for _ in run_arm(shared, arm, suite, keep_weights):
            collect(shared, suite, base, command).save(path)
    collect(shared, suite, base, command).save(path)
    return path
