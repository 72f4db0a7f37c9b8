"""The command ``gradloc sweep``. Heavy imports happen inside."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from gradloc.cli.options import Count, Json, Overrides, show
from gradloc.errors import GradlocError

PAGE_FILE = "frontier.html"


def sweep(
    sweep: Annotated[str, Positional, arg(metavar="SWEEP")],
    *,
    overrides: Overrides = (),
    corpora: Annotated[tuple[str, ...], arg(name="corpus")] = (),
    arms: Annotated[tuple[str, ...], arg(name="arm")] = (),
    seeds: Annotated[tuple[int, ...], arg(name="seed")] = (),
    jobs: Count = 1,
    earlier: Annotated[Path | None, arg(name="earlier", metavar="SWEEP.json")] = None,
    only_list: Annotated[bool, arg(name="list")] = False,
    as_json: Json = False,
) -> None:
    """Train arms at several learning rates and seeds, and draw their frontiers.

    SWEEP is a YAML file or the name of a shipped one (sweeps/frontier). Each run is an ordinary
    run folder; a sweep that was killed continues where it stopped, and an arm that is added to a
    finished sweep is all that is run. It ends in frontier.html: uptake of new facts against
    forgetting of old ones, one curve an arm, each compared with full training at equal uptake.

      gradloc sweep sweeps/frontier --list
      gradloc sweep sweeps/frontier --seed 0 --arm full --arm interference_ratio
      gradloc sweep sweeps/frontier --jobs 4
      gradloc sweep sweeps/frontier --earlier frontier.json

    A sweep.json alone (of another machine, say) is drawn by

      gradloc sweep runs/frontier/sweep.json

    Args:
        sweep: Sweep file or name, or a finished sweep.json to draw.
        overrides: Override a value of the sweep, such as seeds=[0] or arms.full.rates=[1e-4]; may
            be repeated.
        corpora: Only this corpus; may be repeated.
        arms: Only this arm; may be repeated.
        seeds: Only this seed; may be repeated.
        jobs: Runs at a time, each in its own process with its share of the cores and, where there
            are several, an accelerator of its own (CUDA_VISIBLE_DEVICES says which).
        earlier: Record of an earlier session, on another machine perhaps: its runs are not done
            again.
        only_list: List the runs and their state; run none.
    """
    if sweep.endswith(".json"):
        _draw(Path(sweep), as_json)
        return
    from gradloc.experiments.jobs import failure_text
    from gradloc.experiments.sweep.run_sweep import earlier_record, run_sweep
    from gradloc.experiments.sweep.sweep_config import load_sweep
    from gradloc.experiments.sweep.sweep_record import SweepRecord
    from gradloc.experiments.sweep.sweep_runs import sweep_runs

    loaded = load_sweep(sweep, overrides)
    runs = sweep_runs(loaded, corpora=corpora, arms=arms, seeds=seeds)
    kept = SweepRecord.load(earlier) if earlier else None
    if only_list:
        for run in runs:
            print(f"{'done' if earlier_record(kept, run) else run.state:<5} {run.label}")
        return
    command = shlex.join(["gradloc", *sys.argv[1:]])
    path, failed = run_sweep(loaded, runs, jobs=jobs, command=command, earlier=kept)
    if not failed or SweepRecord.load(path).runs:
        _draw(path, as_json)
    if failed:
        raise GradlocError(failure_text(failed))


def _draw(path: Path, as_json: bool) -> None:
    from gradloc.experiments.sweep.frontier_page import frontier_tables, write_frontier
    from gradloc.experiments.sweep.frontiers import find_frontier
    from gradloc.experiments.sweep.sweep_record import SweepRecord

    record = SweepRecord.load(path)
    frontier = find_frontier(record)
    page = write_frontier(record, frontier, path.parent / PAGE_FILE)
    show(as_json, frontier.to_dict, frontier_tables(frontier), page)
