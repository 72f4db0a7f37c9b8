"""Run a sweep, one run after another or several at a time.

Killed at any point, the same call continues.
"""

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from gradloc.errors import GradlocError
from gradloc.experiments.sweep.finished_runs import collect, earlier_record
from gradloc.experiments.sweep.sweep_config import Sweep
from gradloc.experiments.sweep.sweep_record import SweepRecord
from gradloc.experiments.sweep.sweep_runs import (
    SweepRun,
    drop_weights,
    make_shared,
    open_folder,
    sweep_runs,
)

RECORD_FILE = "sweep.json"
# Told that a run begins (None), is done (True) or has failed (the reason).
Report = Callable[[SweepRun, bool | str | None], None]

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def run_sweep(
    sweep: Sweep,
    runs: Sequence[SweepRun],
    *,
    jobs: int = 1,
    devices: Sequence[str] = (),
    command: str = "",
    earlier: SweepRecord | None = None,
    report: Report = lambda run, outcome: None,
) -> tuple[Path, dict[str, str]]:
    """Run what is not finished of a sweep.

    Args:
        sweep: The sweep.
        runs: Its runs, in the order in which they are wanted.
        jobs: How many runs at a time, each in its own process with its share of the cores.
            Two at a time on the same cores are rarely faster than one after another, and their
            ``train_seconds`` cannot be compared; with several accelerators they are.
        devices: Accelerators to hand out to the jobs, as ``CUDA_VISIBLE_DEVICES`` names them.
        command: The command, for the record.
        earlier: Record of earlier sessions, perhaps on another machine: its runs are not run
            again and go into the new record.
        report: Told when a run begins and ends.

    Returns:
        Path of ``sweep.json``, and label -> reason of the runs that failed. A failed run stops
        no other: the same call tries it again.

    Raises:
        GradlocError: A process was killed from outside (memory, most often).
    """
    failed: dict[str, str] = {}
    path = sweep.folder / RECORD_FILE
    todo = [run for run in runs if not (run.is_done or earlier_record(earlier, run))]
    for run, reason in _outcomes(todo, jobs, devices, sweep.keep_weights, report):
        if reason:
            failed[run.label] = reason
        report(run, reason or True)
        # All that is finished, not only the runs of this call.
        collect(sweep, sweep_runs(sweep), command, earlier).save(path)
    if not todo:
        collect(sweep, sweep_runs(sweep), command, earlier).save(path)
    return path, failed


def run_one(run: SweepRun, keep_weights: bool = False) -> str:
    """Execute one run to its end.

    Returns:
        Nothing, or why it failed.
    """
    from gradloc.experiments.run import run as execute

    try:
        make_shared(run)
        open_folder(run)
        execute(run.recipe)
    except GradlocError as error:
        return str(error)
    if not keep_weights:
        drop_weights(run)
    return ""


def _outcomes(
    runs: Sequence[SweepRun], jobs: int, devices: Sequence[str], keep_weights: bool, report: Report
) -> Iterator[tuple[SweepRun, str]]:
    if jobs == 1 and not devices:
        for run in runs:
            report(run, None)
            yield run, run_one(run, keep_weights)
        return
    # What the runs of a seed share is made here, so that no two processes make it at once.
    shared = {run.recipe.output_dir: run for run in runs}
    for run in shared.values():
        make_shared(run)
    context = multiprocessing.get_context("spawn")
    handed_out = context.Queue()
    for number in range(jobs):
        handed_out.put(devices[number % len(devices)] if devices else None)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    try:
        with ProcessPoolExecutor(jobs, context, _start_worker, (handed_out, threads)) as pool:
            waiting = list(runs)
            running = {}
            while waiting or running:
                while waiting and len(running) < jobs:
                    run = waiting.pop(0)
                    report(run, None)
                    running[pool.submit(run_one, run, keep_weights)] = run
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield running.pop(future), future.result()
    except BrokenProcessPool as error:
        raise GradlocError(
            "a process of the sweep was killed, most often for want of memory. Finished runs are "
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
