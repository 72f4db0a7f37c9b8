"""The command ``gradloc sweep``. Heavy imports happen inside."""

import logging
import shlex
import sys
from pathlib import Path
from typing import Annotated

from tqdm import tqdm
from tyro.conf import Positional, arg

from gradloc.cli.options import Count, Json, Overrides, comma_list, show
from gradloc.errors import GradlocError

logger = logging.getLogger(__name__)

PAGE_FILE = "frontier.html"


def sweep(
    sweep: Annotated[str, Positional, arg(metavar="SWEEP")],
    *,
    overrides: Overrides = (),
    corpora: Annotated[tuple[str, ...], arg(name="corpus")] = (),
    arms: Annotated[tuple[str, ...], arg(name="arm")] = (),
    seeds: Annotated[tuple[int, ...], arg(name="seed")] = (),
    jobs: Count = 1,
    devices: str = "",
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
      gradloc sweep sweeps/frontier --devices 0,1,2,3
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
        jobs: Runs at a time, each in its own process with its share of the cores.
        devices: Accelerators to hand out to the jobs, such as 0,1,2,3; one job for each unless
            --jobs says otherwise.
        earlier: Record of an earlier session, on another machine perhaps: its runs are not done
            again.
        only_list: List the runs and their state; run none.
    """
    from gradloc.experiments.sweep.executor import RECORD_FILE, run_sweep
    from gradloc.experiments.sweep.finished_runs import earlier_record
    from gradloc.experiments.sweep.sweep_config import load_sweep
    from gradloc.experiments.sweep.sweep_record import SweepRecord
    from gradloc.experiments.sweep.sweep_runs import check_files, sweep_runs

    if sweep.endswith(".json"):
        _draw(Path(sweep), as_json)
        return
    loaded = load_sweep(sweep, overrides)
    runs = sweep_runs(loaded, corpora=corpora, arms=arms, seeds=seeds)
    kept = SweepRecord.load(earlier) if earlier else None
    done = [bool(run.is_done or earlier_record(kept, run)) for run in runs]
    if only_list:
        for run, is_done in zip(runs, done, strict=True):
            print(f"{'done' if is_done else 'open'}  {run.label}")
        return
    check_files(run for run, is_done in zip(runs, done, strict=True) if not is_done)
    device_names = comma_list(devices)
    jobs = max(jobs, len(device_names))
    bar = tqdm(total=len(runs), initial=sum(done), desc="sweep", unit="run", disable=None)

    def report(run, outcome) -> None:
        """A run begins (None), is done (True) or has failed (its reason)."""
        if outcome is None:
            bar.set_description(run.label)
            return
        bar.update()
        word = "done" if outcome is True else f"failed: {outcome}"
        logger.info("%s  %s", run.label, word)

    with bar:
        path, failed = run_sweep(
            loaded,
            runs,
            jobs=jobs,
            devices=device_names,
            command=shlex.join(["gradloc", *sys.argv[1:]]),
            earlier=kept,
            report=report,
        )
    if failed and not SweepRecord.load(path).runs:
        label, reason = next(iter(failed.items()))
        raise GradlocError(f"all {len(failed)} runs failed; the first: {label}: {reason}")
    _draw(path, as_json)
    if failed:
        reasons = "\n".join(f"  {label}: {reason}" for label, reason in failed.items())
        raise GradlocError(
            f"{len(failed)} of {len(runs)} runs failed; the same command tries them again, and "
            f"{RECORD_FILE} has the others.\n{reasons}"
        )


def _draw(path: Path, as_json: bool) -> None:
    from gradloc.experiments.sweep.frontier_page import frontier_tables, write_frontier
    from gradloc.experiments.sweep.frontiers import find_frontier
    from gradloc.experiments.sweep.sweep_record import SweepRecord

    record = SweepRecord.load(path)
    frontier = find_frontier(record)
    page = write_frontier(record, frontier, path.parent / PAGE_FILE)
    show(as_json, frontier.to_dict, frontier_tables(frontier), page)
