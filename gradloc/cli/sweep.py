"""The command ``gradloc sweep``.

Comes in: arguments. Goes out: run folders, ``sweep.json``, ``frontier.html`` and a table on the
terminal. Heavy imports happen inside.
"""

import shlex
import sys
from pathlib import Path

import click

from gradloc.cli.commands import SHOW_JSON, show
from gradloc.errors import GradlocError

PAGE_FILE = "frontier.html"


@click.command()
@click.argument("sweep", metavar="SWEEP")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a value of the sweep, such as seeds=[0] or arms.full.rates=[1.0e-4].",
)
@click.option("--corpus", "corpora", multiple=True, help="Only this corpus; may be repeated.")
@click.option("--arm", "arms", multiple=True, help="Only this arm; may be repeated.")
@click.option("--seed", "seeds", multiple=True, type=int, help="Only this seed; may be repeated.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Runs at a time, each in its own process with its share of the cores.",
)
@click.option(
    "--devices",
    default="",
    help="Accelerators to hand out to the jobs, such as 0,1,2,3; one job for each unless --jobs "
    "says otherwise.",
)
@click.option(
    "--earlier",
    type=click.Path(exists=True, dir_okay=False),
    metavar="SWEEP.json",
    help="Record of an earlier sitting, on another machine perhaps: its runs are not done again.",
)
@click.option("--list", "only_list", is_flag=True, help="List the runs and their state; run none.")
@SHOW_JSON
def sweep(
    sweep, overrides, corpora, arms, seeds, jobs, devices, earlier, only_list, as_json
) -> None:
    """Train arms at several learning rates and seeds, and draw their frontiers.

    SWEEP is a YAML file or the name of a shipped one (sweeps/frontier). Each run is an ordinary
    run folder; a sweep that was killed continues where it stopped, and an arm that is added to a
    finished sweep is all that is run. It ends in frontier.html: uptake of new facts against
    forgetting of old ones, one curve an arm, each compared with full training at equal uptake.

    \b
      gradloc sweep sweeps/frontier --list
      gradloc sweep sweeps/frontier --seed 0 --arm full --arm interference_ratio
      gradloc sweep sweeps/frontier --devices 0,1,2,3
      gradloc sweep sweeps/frontier --earlier frontier.json      # go on elsewhere
    A sweep.json alone (of another machine, say) is drawn by
      gradloc sweep runs/frontier/sweep.json
    """
    from gradloc.experiments.sweep.cells import check_files, sweep_cells
    from gradloc.experiments.sweep.collecting import earlier_record
    from gradloc.experiments.sweep.config import load_sweep
    from gradloc.experiments.sweep.records import SweepRecord
    from gradloc.experiments.sweep.running import RECORD_FILE, run_sweep

    if sweep.endswith(".json"):
        _draw(Path(sweep), as_json)
        return
    loaded = load_sweep(sweep, overrides)
    cells = sweep_cells(loaded, corpora=corpora, arms=arms, seeds=seeds)
    kept = SweepRecord.load(earlier) if earlier else None
    done = [bool(cell.is_done or earlier_record(kept, cell)) for cell in cells]
    if only_list:
        for cell, is_done in zip(cells, done, strict=True):
            click.echo(f"{'done' if is_done else 'open'}  {cell.label}")
        return
    check_files(cell for cell, is_done in zip(cells, done, strict=True) if not is_done)
    named = [name.strip() for name in devices.split(",") if name.strip()]
    jobs = max(jobs, len(named)) if named else jobs
    command = shlex.join(["gradloc", *sys.argv[1:]])
    with _Progress(len(cells), sum(done)) as progress:
        path, failed = run_sweep(
            loaded, cells, jobs=jobs, devices=named, command=command, earlier=kept,
            report=progress.report,
        )  # fmt: skip
    if failed and not SweepRecord.load(path).cells:
        label, reason = next(iter(failed.items()))
        raise GradlocError(f"all {len(failed)} runs failed; the first: {label}: {reason}")
    _draw(path, as_json)
    if failed:
        reasons = "\n".join(f"  {label}: {reason}" for label, reason in failed.items())
        raise GradlocError(
            f"{len(failed)} of {len(cells)} runs failed; the same command tries them again, and "
            f"{RECORD_FILE} has the others.\n{reasons}"
        )


class _Progress:
    """A bar over the runs with the remaining time, on a terminal; lines elsewhere."""

    def __init__(self, n: int, n_done: int):
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.console = Console(stderr=True)
        self.n, self.n_ended = n, n_done
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("sweep", total=n, completed=n_done)

    def __enter__(self):
        self.bar.start()
        return self

    def __exit__(self, *_):
        self.bar.stop()

    def report(self, cell, outcome) -> None:
        """A cell begins (None), is done (True) or has failed (its reason)."""
        if outcome is None:
            self.bar.update(self.task, description=cell.label)
        else:
            self.n_ended += 1
            self.bar.advance(self.task)
        if outcome is not None and (self.bar.disable or outcome is not True):
            word = "done" if outcome is True else f"failed: {outcome}"
            self.console.print(f"{self.n_ended}/{self.n}  {cell.label}  {word}", highlight=False)


def _draw(path: Path, as_json: bool) -> None:
    from gradloc.experiments.sweep.frontiers import find_frontier, frontier_figures
    from gradloc.experiments.sweep.page import write_frontier
    from gradloc.experiments.sweep.records import SweepRecord
    from gradloc.experiments.sweep.table import frontier_table

    record = SweepRecord.load(path)
    frontier = find_frontier(record)
    page = write_frontier(record, path.parent / PAGE_FILE, frontier=frontier)
    show(as_json, lambda: frontier_figures(frontier), frontier_table(frontier), page)
