"""From the folders of finished runs to the record of a sweep."""

from collections.abc import Sequence
from dataclasses import replace

from gradloc.data.probes import load_probes
from gradloc.evaluation.item_changes import probe_changes, text_changes
from gradloc.evaluation.probe_groups import probe_groups
from gradloc.evaluation.score_record import CheckpointScores
from gradloc.evaluation.suites import recipe_suite
from gradloc.experiments.run import BASELINE_SCORES
from gradloc.experiments.sweep.sweep_config import Sweep
from gradloc.experiments.sweep.sweep_record import RunRecord, SweepRecord
from gradloc.experiments.sweep.sweep_runs import SweepRun
from gradloc.localization.plan import LayerPlan
from gradloc.utils.environment import current_environment
from gradloc.utils.io import PLAN_FILE, SCORES_FILE, TRAINING_FILE, read_json


def collect(
    sweep: Sweep, runs: Sequence[SweepRun], command: str = "", earlier: SweepRecord | None = None
) -> SweepRecord:
    """The record of those runs that are finished.

    Args:
        sweep: The sweep.
        runs: Its runs.
        command: The command that runs it, for the record.
        earlier: Record of earlier sessions. Its runs count as finished where the sweep still
            has them and they have no run folder here.
    """
    sessions = earlier.sessions if earlier else ()
    finished = []
    for run in runs:
        if run.is_done:
            finished.append(replace(_run_record(run), session=len(sessions)))
        elif (kept := earlier_record(earlier, run)) is not None:
            finished.append(kept)
    return SweepRecord(
        sweep.name,
        sweep.line,
        sweep.axis,
        tuple(finished),
        command,
        current_environment(),
        sessions,
    )


def earlier_record(earlier: SweepRecord | None, run: SweepRun) -> RunRecord | None:
    """What an earlier session found of a run; nothing if its arm was another then."""
    arm = run.recipe.arms[run.arm]
    for record in earlier.runs if earlier else ():
        same_place = (record.corpus, record.arm, record.seed) == (run.corpus, run.arm, run.seed)
        same_arm = (record.policy, record.options, record.methods, record.training) == (
            arm.policy,
            arm.options,
            arm.methods,
            arm.training_but_rate,
        )
        if same_place and same_arm and record.learning_rate == run.rate:
            return record
    return None


def _run_record(run: SweepRun) -> RunRecord:
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
    )
