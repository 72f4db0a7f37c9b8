"""Arms of a benchmark: Trainers that run for a few steps with a clock, or with memory watched."""

import contextlib
import copy
import gc
import io
import random
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from typing import Any

import psutil
import torch
from datasets import Dataset
from tqdm.auto import trange
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from gradloc.errors import GradlocError
from gradloc.experiments.bench_config import BenchConfig
from gradloc.localization.plan import LayerPlan
from gradloc.models import load_model
from gradloc.training.callback import GradLocCallback
from gradloc.utils.memory import PeakMemory

# Every ratio is to this arm.
REFERENCE = "full"
_MIB = 2**20


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Args:
        about: What it is, in a few words.
        trainer: Makes the Trainer from ``model``, ``args`` and ``train_dataset``.
        plan: The plan it trains under, if any.
        cached: Whether it starts from hidden states that were computed before.
        step: Options of ``StepShape`` for the prediction beside batch and length; ``None``: the
            cost model does not cover this arm.
    """

    about: str
    trainer: Callable[..., Trainer] = Trainer
    plan: LayerPlan | None = None
    cached: bool = False
    step: dict[str, Any] | None = None


# (model, folder for caches) -> arms by name, ``full`` among them. Other processes call it as well.
ArmTable = Callable[[PreTrainedModel, Path], dict[str, Arm]]


@dataclass(frozen=True)
class Turn:
    """One turn of every arm.

    Args:
        order: Arms in the order in which they ran; ``full`` is first and last.
        seconds: Seconds of the timed steps of each arm's runs, (n_runs, n_steps); two runs of
            ``full``, one of the others.
    """

    order: tuple[str, ...]
    seconds: dict[str, list[list[float]]]

    def step_seconds(self, arm: str) -> float:
        """Seconds of an arm's step: the median of a run, which a disturbed step does not move."""
        return mean(median(run) for run in self.seconds[arm])


def time_arms(arms: dict[str, Arm], model: PreTrainedModel, config: BenchConfig) -> list[Turn]:
    """Let the arms take turns, each on a copy of the model.

    Args:
        arms: The arms, ``full`` among them; caches are filled already.
        model: The model; it stays as it is.
        config: Sizes and counts.
    """
    turns = []
    for number in trange(config.turns, desc="time", unit="turn", leave=False, disable=None):
        others = [name for name in arms if name != REFERENCE]
        random.Random(config.seed + number).shuffle(others)
        order = (REFERENCE, *others, REFERENCE)
        seconds: dict[str, list[list[float]]] = {}
        for name in order:
            steps = run_arm(arms[name], copy.deepcopy(model), config, seed=config.seed + number)
            seconds.setdefault(name, []).append(steps)
            gc.collect()  # a Trainer and its callbacks hold each other, and the model
        turns.append(Turn(order, seconds))
    return turns


def measure_memory(
    arms_of: ArmTable, names: Iterable[str], config: BenchConfig, folder: Path
) -> dict[str, list[float]]:
    """Peak memory of each arm above the weights, MiB, one value a repeat.

    Raises:
        GradlocError: A process was killed.
    """
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in trange(config.memory_repeats, desc="memory", leave=False, disable=None):
        for name, values in found.items():
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                try:
                    values.append(pool.submit(arm_memory, arms_of, name, config, folder).result())
                except BrokenProcessPool as error:
                    raise GradlocError(
                        f"bench: the process that measured the memory of {name} was killed. If "
                        "memory ran out, choose a smaller --batch-size."
                    ) from error
    return found


def arm_memory(arms_of: ArmTable, name: str, config: BenchConfig, folder: Path) -> float:
    """Peak memory of an arm's steps above the weights, MiB, in this process.

    Returns:
        Peak resident memory above what is resident before the trainer is built: gradients,
        optimizer state, activations and logits. On a GPU, peak allocated device memory.
    """
    model = load_model(config.model, dtype=config.dtype)
    arm = arms_of(model, folder)[name]
    with torch.no_grad():
        for parameter in model.parameters():
            # Weights that are mapped from a file count as resident only once they are read.
            parameter.data = parameter.data.clone()
    if torch.cuda.is_available():
        model.cuda()  # type: ignore[call-arg]  # transformers wraps it without its signature
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run_arm(arm, model, config, seed=config.seed)
        return (torch.cuda.max_memory_allocated() - before) / _MIB
    with PeakMemory() as peak:
        before = psutil.Process().memory_info().rss
        run_arm(arm, model, config, seed=config.seed)
    return peak.mib - before / _MIB


def run_arm(
    arm: Arm, model: PreTrainedModel, config: BenchConfig, *, seed: int, n_steps: int | None = None
) -> list[float]:
    """Train for a few steps of the real Trainer.

    Args:
        arm: The arm.
        model: The model that is trained; of no use to other arms afterwards.
        config: Sizes; the rows of token ids depend on it alone.
        seed: Seed of the order of rows and of what the arm draws.
        n_steps: Steps; default: ``config.steps_a_run``.

    Returns:
        Seconds of each timed step, from the end of the step before to its own end.

    Raises:
        GradlocError: An arm that should have read its cache did not find everything in it.
    """
    set_seed(seed)
    clock = _StepClock()
    # Packages of arms print and warn; standard output may be meant for JSON.
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(action="ignore"),
    ):
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=config.batch_size,
            max_steps=n_steps or config.steps_a_run,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=not torch.accelerator.is_available(),
            dataloader_pin_memory=torch.cuda.is_available(),
            seed=seed,
        )
        rows = token_rows(model, config)
        trainer = arm.trainer(model=model, args=arguments, train_dataset=rows)
        trainer.add_callback(clock)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    if arm.cached and n_steps is None:
        _check_cache_was_read(trainer, config.steps_a_run)
    return [end - start for start, end in zip(clock.ends, clock.ends[1:], strict=False)]


def fill_cache(arm: Arm, model: PreTrainedModel, config: BenchConfig) -> None:
    """Let a cached arm see every row once, so that later runs find all of them."""
    # The callback keeps rows only if there is a second epoch, so one more step than one epoch has.
    run_arm(arm, model, config, seed=config.seed, n_steps=config.steps_a_run + 1)


def token_rows(model: PreTrainedModel, config: BenchConfig) -> Dataset:
    """Rows of random token ids, all labelled: one epoch is as long as a run.

    Raises:
        GradlocError: The model takes no sequences of that length.
    """
    sizes = model.config.get_text_config()
    longest = getattr(sizes, "max_position_embeddings", None)
    if longest and config.sequence_length > longest:
        raise GradlocError(
            f"bench: sequences of {config.sequence_length} tokens, but the model takes "
            f"{longest} at most. Choose a smaller --sequence-length."
        )
    generator = torch.Generator().manual_seed(config.seed)
    shape = (config.batch_size * config.steps_a_run, config.sequence_length)
    ids = torch.randint(sizes.vocab_size, shape, generator=generator).tolist()
    return Dataset.from_dict({"input_ids": ids, "labels": ids})


class _StepClock(TrainerCallback):
    """When each step ended; the first has no step before it and counts as the warm-up."""

    def __init__(self):
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs):
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # kernels run behind the clock
        self.ends.append(time.perf_counter())


def _check_cache_was_read(trainer: Trainer, n_steps: int) -> None:
    # What is not found in a run of one epoch is not offered to the store: only hits are counted.
    callbacks = trainer.callback_handler.callbacks
    cache = next(c for c in callbacks if isinstance(c, GradLocCallback)).prefix_cache
    n_hits = cache.n_hits if cache else 0
    if n_hits < n_steps:
        raise GradlocError(
            f"bench: {n_hits} of {n_steps} batches were found in the prefix cache, so the "
            "measured time would be a mixture. Is the disk full?"
        )
