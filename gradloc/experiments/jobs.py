"""Jobs that each fill a folder: run in turn, or several at a time in processes of their own."""

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol, TypeVar

from tqdm import tqdm

from gradloc.errors import GradlocError

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_N_SHOWN = 8

logger = logging.getLogger(__name__)


class Job(Protocol):
    """What there is to do."""

    @property
    def label(self) -> str:
        """What people call it; no other job has the same."""
        ...

    @property
    def after(self) -> str:
        """The job without which it cannot begin; empty: none."""
        ...


JobT = TypeVar("JobT", bound=Job)


def run_jobs(
    jobs: Sequence[JobT], work: Callable[[JobT], object], *, processes: int = 1, n_done: int = 0
) -> Iterator[tuple[JobT, str]]:
    """Run jobs, in their order.

    Args:
        jobs: What is left to do. A job comes later than the one that it needs.
        work: Does one, whole or in parts that the same call continues.
        processes: How many at a time, each in its own process with its share of the cores and an
            accelerator of its own where there are several. Two at a time on the same cores are
            rarely faster than one after another, and their times cannot be compared.
        n_done: Jobs that are finished already, for the progress bar.

    Yields:
        Each job with why it failed; empty if it did not. A job that fails stops only those that
        need it.

    Raises:
        GradlocError: A process was killed from outside (memory, most often).
    """
    processes = min(processes, len(jobs))
    waiting, failed = list(jobs), set()
    running: dict[Future, JobT] = {}
    bar = tqdm(total=n_done + len(jobs), initial=n_done, unit="job", disable=None)
    try:
        with bar, _executor(processes) as executor:
            while waiting or running:
                ahead = {job.label for job in (*waiting, *running.values())}
                ready = [job for job in waiting if job.after not in ahead]
                for job in ready[: processes - len(running)]:
                    waiting.remove(job)
                    bar.set_description(job.label)
                    reason = f"{job.after} failed" if job.after in failed else ""
                    running[executor.submit(_attempt, work, job, reason)] = job
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job, reason = running.pop(future), future.result()
                    if reason:
                        failed.add(job.label)
                    bar.update()
                    logger.info("%s  %s", job.label, f"failed: {reason}" if reason else "done")
                    yield job, reason
    except BrokenProcessPool as error:
        raise GradlocError(
            "a process was killed, most often for want of memory. What is finished is kept; run "
            "the same command with fewer --jobs."
        ) from error


def failure_text(failed: dict[str, str]) -> str:
    """What to tell of jobs that failed: label -> reason."""
    lines = [f"  {label}: {reason}" for label, reason in failed.items()]
    if len(lines) > _N_SHOWN:
        lines[_N_SHOWN:] = [f"  ... and {len(lines) - _N_SHOWN} more"]
    head = f"{len(failed)} failed; the same command tries them again, what is finished is kept."
    return "\n".join([head, *lines])


def _attempt(work: Callable[[JobT], object], job: JobT, reason: str) -> str:
    try:
        if not reason:
            work(job)
    except GradlocError as error:
        return str(error)
    return reason


class _Here(Executor):
    """Runs what it is given at once, in this process."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def _executor(processes: int) -> Executor:
    if processes < 2:
        return _Here()
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    devices = given.split(",") if given else [str(i) for i in range(torch.cuda.device_count())]
    context = multiprocessing.get_context("spawn")
    handed_out = context.Queue()
    for number in range(processes):
        handed_out.put(devices[number % len(devices)] if devices else None)
    threads = max(1, (os.cpu_count() or 1) // processes)
    return ProcessPoolExecutor(processes, context, _start_worker, (handed_out, threads))


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
