"""From finished cells to the record of a sweep.

Comes in: run folders. Goes out: ``SweepRecord``, every item's change against the base model. It
averages nothing and runs no model.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gradloc.data.probes import load_probes
from gradloc.evaluation.aggregate import BASELINE, CheckpointScores, item_values, probe_groups
from gradloc.evaluation.metrics import PROBE_METRICS
from gradloc.evaluation.suites import Suite, recipe_suite
from gradloc.experiments.run import BASELINE_SCORES
from gradloc.experiments.sweep.cells import Cell
from gradloc.experiments.sweep.config import Sweep
from gradloc.experiments.sweep.records import CellRecord, MeasureRecord, SweepRecord
from gradloc.localization.plan import LayerPlan
from gradloc.utils.environment import current_environment
from gradloc.utils.io import PLAN_FILE, SCORES_FILE, TRAINING_FILE, read_json

# What is kept of every item: likelihood and greedy match. Other metrics can be had from the run
# folders.
METRICS = ("nll", "exact")


def collect(
    sweep: Sweep, cells: Sequence[Cell], command: str = "", earlier: SweepRecord | None = None
) -> SweepRecord:
    """The record of those cells that are finished.

    Args:
        sweep: The sweep.
        cells: Its cells.
        command: The command that runs it, for the record.
        earlier: Record of earlier sittings. Its cells count as finished where the sweep still
            has them and they have no run folder here.
    """
    sittings = earlier.sittings if earlier else ()
    finished = []
    for cell in cells:
        if cell.is_done:
            finished.append(replace(_cell_record(cell), sitting=len(sittings)))
        elif (kept := earlier_record(earlier, cell)) is not None:
            finished.append(kept)
    return SweepRecord(
        sweep.name,
        sweep.line,
        sweep.axis,
        tuple(finished),
        command,
        current_environment(),
        sittings,
    )


def earlier_record(earlier: SweepRecord | None, cell: Cell) -> CellRecord | None:
    """What an earlier sitting found of a cell; nothing if its arm was another then."""
    arm = cell.recipe.arms[cell.arm]
    for record in earlier.cells if earlier else ():
        same_place = (record.corpus, record.arm, record.seed) == (cell.corpus, cell.arm, cell.seed)
        same_arm = (record.policy, record.options, record.methods, record.training) == (
            arm.policy,
            arm.options,
            arm.methods,
            arm.training_but_rate,
        )
        if same_place and same_arm and record.learning_rate == cell.rate:
            return record
    return None


def _cell_record(cell: Cell) -> CellRecord:
    run_dir = cell.recipe.run_dir
    checkpoint = run_dir / "checkpoint"
    base = CheckpointScores.load(run_dir / BASELINE_SCORES)
    arm = CheckpointScores.load(checkpoint / SCORES_FILE)
    suite = recipe_suite(cell.recipe, load_probes(run_dir / "probes.jsonl")).screened(base)
    plan = LayerPlan.load(checkpoint / PLAN_FILE)
    log = read_json(checkpoint / TRAINING_FILE, "training log")
    config = cell.recipe.arms[cell.arm]
    return CellRecord(
        corpus=cell.corpus,
        arm=cell.arm,
        policy=config.policy,
        options=config.options,
        methods=config.methods,
        training=config.training_but_rate,
        learning_rate=cell.rate,
        seed=cell.seed,
        train_seconds=log["train_seconds"],
        peak_rss_mib=log["peak_rss_mib"],
        trainable_fraction=log["trainable_fraction"],
        n_trained=len(plan.trained),
        n_units=len(plan.scale),
        measures={**_probe_measures(suite, base, arm), **_text_measures(base, arm)},
    )


def _probe_measures(
    suite: Suite, base: CheckpointScores, arm: CheckpointScores
) -> dict[str, MeasureRecord]:
    wanted = [probe.id for probe in suite.probes]
    systems = {BASELINE: base.only(wanted), "arm": arm.only(wanted)}
    entities = {
        name: number
        for number, name in enumerate(dict.fromkeys(p.entity or p.id for p in suite.probes))
    }
    found = {}
    for group in probe_groups(suite.probes, suite.metrics_of, suite.screen_invariant):
        members = [suite.probes[index] for index in group.indices]
        kind = "forgetting" if all(p.group == "invariant" for p in members) else "uptake"
        for name in METRICS:
            if name not in group.metrics:
                continue
            metric = PROBE_METRICS[name]
            before, after = item_values(metric, group, suite.probes, systems)
            rising = (kind == "uptake") == metric.higher_is_better
            change = after - before if rising else before - after
            key = f"{group.name}_{name}".removesuffix("_exact" if kind == "forgetting" else "")
            found[key] = MeasureRecord(
                kind,
                "share" if metric.unit == "fraction" else metric.unit,
                tuple(np.nan_to_num(change, nan=np.inf).tolist()),
                tuple(entities[p.entity or p.id] for p in members),
            )
    return found


def _text_measures(base: CheckpointScores, arm: CheckpointScores) -> dict[str, MeasureRecord]:
    """Nats per token lost on each text, over all domains and, where there are several, in each."""
    domains = {"general_text": list(base.texts)}
    if len(base.texts) > 1:
        domains |= {f"general_text_{domain}": [domain] for domain in base.texts}
    found = {}
    for name, members in domains.items():
        tokens = _column(base, members, "tokens")
        rise = _column(arm, members, "nats") - _column(base, members, "nats")
        scored = tokens > 0
        found[name] = MeasureRecord(
            "forgetting",
            "nats/token",
            tuple((rise[scored] / tokens[scored]).tolist()),
            None,
            tuple(tokens[scored].tolist()),
        )
    return found


def _column(scores: CheckpointScores, domains: Sequence[str], name: str) -> np.ndarray:
    return np.array([x for domain in domains for x in scores.texts[domain][name]], float)
