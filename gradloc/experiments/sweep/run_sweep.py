"""Run a sweep: what its runs share, every run, and the record of those that are finished.

Killed at any point, the same call continues.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from gradloc.config.recipe import ArmConfig, Recipe
from gradloc.data.probes import load_probes
from gradloc.evaluation.item_changes import probe_changes, text_changes
from gradloc.evaluation.probe_groups import probe_groups
from gradloc.evaluation.score_record import CheckpointScores
from gradloc.evaluation.suites import recipe_suite
from gradloc.experiments.jobs import run_jobs
from gradloc.experiments.run import (
    BASELINE_SCORES,
    drop_weights,
    make_probes,
    make_profile,
    open_run,
    run,
    score_baseline,
)
from gradloc.experiments.sweep.sweep_config import Sweep
from gradloc.experiments.sweep.sweep_record import RunRecord, SweepRecord
from gradloc.experiments.sweep.sweep_runs import SweepRun, check_files, sweep_runs
from gradloc.localization.plan import LayerPlan
from gradloc.utils.environment import current_environment
from gradloc.utils.io import PLAN_FILE, SCORES_FILE, TRAINING_FILE, read_json

RECORD_FILE = "sweep.json"
SHARED = ("probes.jsonl", "profile.json", BASELINE_SCORES)
SHARED_RUN = "shared"


def run_sweep(
    sweep: Sweep,
    runs: Sequence[SweepRun],
    *,
    jobs: int = 1,
    command: str = "",
    earlier: SweepRecord | None = None,
) -> tuple[Path, dict[str, str]]:
    """Run what is not finished of a sweep.

    Args:
        sweep: The sweep.
        runs: Its runs, in the order in which they are wanted.
        jobs: How many runs at a time.
        command: The command, for the record.
        earlier: Record of earlier sessions, perhaps on another machine: its runs are not run
            again and go into the new record, where the sweep still has them.

    Returns:
        Path of ``sweep.json``, and label -> reason of the runs that failed. A failed run stops
        no other: the same call tries it again. So fails one that was finished with another recipe.

    Raises:
        GradlocError: A file of the runs is missing, or a process was killed from outside.
    """
    sessions = earlier.sessions if earlier else ()
    # All that is finished, not only the runs of this call.
    every = sweep_runs(sweep)
    found: dict[str, RunRecord | None] = {
        one.label: _run_record(one, len(sessions))
        if one.state == "done"
        else earlier_record(earlier, one)
        for one in every
    }

    def save() -> Path:
        finished = (found[one.label] for one in every)
        return SweepRecord(
            sweep.name, sweep.line, sweep.axis, tuple(filter(None, finished)), command,
            current_environment(), sessions,
        ).save(sweep.folder / RECORD_FILE)  # fmt: skip

    todo = [one for one in runs if found[one.label] is None]
    check_files(todo)
    if jobs > 1:  # so that no two processes make it at once
        for one in {one.recipe.output_dir: one for one in todo}.values():
            make_shared(one)
    failed = {}
    work = partial(run_one, keep_weights=sweep.keep_weights)
    for one, reason in run_jobs(todo, work, processes=jobs, n_done=len(runs) - len(todo)):
        if reason:
            failed[one.label] = reason
        else:
            found[one.label] = _run_record(one, len(sessions))
            save()
    return save(), failed


def earlier_record(earlier: SweepRecord | None, run: SweepRun) -> RunRecord | None:
    """What an earlier session found of a run; nothing if its arm was another then."""
    arm = run.recipe.arms[run.arm]
    wanted = (
        run.corpus, run.arm, run.seed, run.rate,
        arm.policy, arm.options, arm.methods, arm.training_but_rate,
    )  # fmt: skip
    for old in earlier.runs if earlier else ():
        place = (old.corpus, old.arm, old.seed, old.learning_rate)
        if (*place, old.policy, old.options, old.methods, old.training) == wanted:
            return old
    return None


def run_one(run_: SweepRun, keep_weights: bool = False) -> None:
    """Execute one run to its end.

    Raises:
        GradlocError: It failed.
    """
    make_shared(run_)
    _open_folder(run_)
    run(run_.recipe)
    if not keep_weights:
        drop_weights(run_.recipe)


def shared_recipe(run: SweepRun) -> Recipe:
    """The recipe of the folder that holds what all runs of a corpus and seed share."""
    return replace(run.recipe, name=SHARED_RUN, arms={SHARED_RUN: ArmConfig("none")})


def make_shared(run: SweepRun) -> Path:
    """Build probes, measure gradients and score the base model, once for a corpus and seed.

    Returns:
        The folder of these files; what is there already is kept.
    """
    recipe = shared_recipe(run)
    open_run(recipe)
    probes = make_probes(recipe, recipe.run_dir)
    make_profile(recipe, recipe.run_dir, probes)
    score_baseline(recipe, recipe.run_dir, recipe_suite(recipe, probes))
    return recipe.run_dir


def _open_folder(run: SweepRun) -> None:
    """Put what the runs of a seed share into a run's folder, so that it is not made anew."""
    shared, folder = shared_recipe(run).run_dir, run.recipe.run_dir
    open_run(run.recipe)
    for name in SHARED:
        if not (folder / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            # In two steps, so that a kill leaves no half of a file under its name.
            shutil.copy2(shared / name, folder / f"{name}.part")
            (folder / f"{name}.part").replace(folder / name)


def _run_record(run: SweepRun, session: int) -> RunRecord:
    run_dir = run.recipe.run_dir
    checkpoint = run_dir / "checkpoint"
    base = CheckpointScores.load(run_dir / BASELINE_SCORES)
    arm = CheckpointScores.load(checkpoint / SCORES_FILE)
    suite = recipe_suite(run.recipe, load_probes(run_dir / "probes.jsonl")).screened(base)
    plan = LayerPlan.load(checkpoint / PLAN_FILE)
    log = read_json(checkpoint / TRAINING_FILE, "training log")
    config = run.recipe.arms[run.arm]
    groups = probe_groups(suite.probes, suite.metrics_of, suite.screen_invariant)
    return RunRecord(
        corpus=run.corpus,
        arm=run.arm,
        policy=config.policy,
        options=config.options,
        methods=config.methods,
        training=config.training_but_rate,
        learning_rate=run.rate,
        seed=run.seed,
        train_seconds=log["train_seconds"],
        peak_rss_mib=log["peak_rss_mib"],
        trainable_fraction=log["trainable_fraction"],
        n_trained=len(plan.trained),
        n_units=len(plan.scale),
        metrics={
            **probe_changes(groups, suite.probes, base, arm),
            **text_changes(base, arm),
        },
        session=session,
    )
