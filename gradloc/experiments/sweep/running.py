"""Run the cells of a sweep, one after another or several at a time.

Comes in: a ``Sweep`` and its cells. Goes out: finished run folders and ``sweep.json``, written
anew after every cell. Killed at any point, the same call continues: a cell is an ordinary run.
"""

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from gradloc.errors import GradlocError
from gradloc.experiments.sweep.cells import Cell, drop_weights, make_start, open_cell, sweep_cells
from gradloc.experiments.sweep.collecting import collect, earlier_record
from gradloc.experiments.sweep.config import Sweep
from gradloc.experiments.sweep.records import SweepRecord

RECORD_FILE = "sweep.json"
# Told that a cell begins (None), is done (True) or has failed (the reason).
Report = Callable[[Cell, bool | str | None], None]

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def run_sweep(
    sweep: Sweep,
    cells: Sequence[Cell],
    *,
    jobs: int = 1,
    devices: Sequence[str] = (),
    command: str = "",
    earlier: SweepRecord | None = None,
    report: Report = lambda cell, outcome: None,
) -> tuple[Path, dict[str, str]]:
    """Run every cell that is not finished.

    Args:
        sweep: The sweep.
        cells: Its cells, in the order in which they are wanted.
        jobs: How many cells run at a time, each in its own process with its share of the cores.
            Two at a time on the same cores are rarely faster than one after another, and their
            ``train_seconds`` cannot be compared; with several accelerators they are.
        devices: Accelerators to hand out to the jobs, as ``CUDA_VISIBLE_DEVICES`` names them.
        command: The command, for the record.
        earlier: Record of earlier sittings, perhaps on another machine: its cells are not run
            again and go into the new record.
        report: Told when a cell begins and ends.

    Returns:
        Path of ``sweep.json``, and label -> reason of the cells that failed. A failed cell stops
        no other: the same call tries it again.

    Raises:
        GradlocError: A process was killed from outside (memory, most often).
    """
    failed: dict[str, str] = {}
    path = sweep.folder / RECORD_FILE
    todo = [cell for cell in cells if not (cell.is_done or earlier_record(earlier, cell))]
    for cell, reason in _outcomes(todo, jobs, devices, sweep.keep_weights, report):
        if reason:
            failed[cell.label] = reason
        report(cell, reason or True)
        # All that is finished, not only the cells of this call.
        collect(sweep, sweep_cells(sweep), command, earlier).save(path)
    if not todo:
        collect(sweep, sweep_cells(sweep), command, earlier).save(path)
    return path, failed


def run_cell(cell: Cell, keep_weights: bool = False) -> str:
    """Run one cell to its end.

    Returns:
        Nothing, or why it failed.
    """
    from gradloc.experiments.run import run

    try:
        make_start(cell)
        open_cell(cell)
        run(cell.recipe)
    except GradlocError as error:
        return str(error)
    if not keep_weights:
        drop_weights(cell)
    return ""


def _outcomes(
    cells: Sequence[Cell], jobs: int, devices: Sequence[str], keep_weights: bool, report: Report
) -> Iterator[tuple[Cell, str]]:
    if jobs == 1 and not devices:
        for cell in cells:
            report(cell, None)
            yield cell, run_cell(cell, keep_weights)
        return
    # What the cells of a seed share is made here, so that no two processes make it at once.
    starts = {cell.recipe.output_dir: cell for cell in cells}
    for cell in starts.values():
        make_start(cell)
    context = multiprocessing.get_context("spawn")
    handed_out = context.Queue()
    for number in range(jobs):
        handed_out.put(devices[number % len(devices)] if devices else None)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    try:
        with ProcessPoolExecutor(jobs, context, _start_worker, (handed_out, threads)) as pool:
            waiting = list(cells)
            running = {}
            while waiting or running:
                while waiting and len(running) < jobs:
                    cell = waiting.pop(0)
                    report(cell, None)
                    running[pool.submit(run_cell, cell, keep_weights)] = cell
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield running.pop(future), future.result()
    except BrokenProcessPool as error:
        raise GradlocError(
            "a process of the sweep was killed, most often for want of memory. Finished cells are "
            "kept; run the same command with fewer --jobs."
        ) from error


def _start_worker(handed_out, threads: int) -> None:
    """Give a process its device and its share of the cores before torch is imported."""
    device = handed_out.get()
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    for name in _THREADS:
        os.environ[name] = str(threads)
    logging.disable(logging.WARNING)
    import torch

    torch.set_num_threads(threads)
