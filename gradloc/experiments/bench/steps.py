"""Run an arm for a few steps of the real Trainer, with a clock.

Comes in: an arm and a model of its own. Goes out: the seconds of each step and of its parts. It
compares nothing.
"""

import io
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass

import torch
from datasets import Dataset
from torch import nn
from transformers import TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from gradloc.errors import GradlocError
from gradloc.experiments.bench.arms import Arm
from gradloc.experiments.bench.settings import BenchSettings
from gradloc.training.callback import GradLocCallback

PARTS = ("forward", "backward", "optimizer", "other")


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step, from the end of the step before to its own end.

    Args:
        forward: ``compute_loss``. A loss that makes its gradient in the same pass
            (``label_loss``) has the backward pass of the head here.
        backward: ``accelerator.backward``.
        optimizer: Clipping and ``optimizer.step``.
        other: The rest: data loading, callbacks, schedule, clearing gradients.
    """

    forward: float
    backward: float
    optimizer: float
    other: float

    @property
    def total(self) -> float:
        """Seconds of the whole step."""
        return self.forward + self.backward + self.optimizer + self.other


class StepClock(TrainerCallback):
    """Clock of a trainer's steps; ``steps`` begins with the second, which has a step before it.

    Attributes:
        steps: The steps, in order.
    """

    def __init__(self):
        self.steps: list[StepTime] = []
        self._parts = dict.fromkeys(PARTS, 0.0)
        self._end: float | None = None
        self._optimizer_start = 0.0

    def attach(self, trainer) -> None:
        """Time a trainer that has not begun; only this instance is touched."""
        trainer.add_callback(self)
        trainer.compute_loss = self._timed("forward", trainer.compute_loss)
        accelerator = trainer.accelerator
        accelerator.backward = self._timed("backward", accelerator.backward)
        accelerator.clip_grad_norm_ = self._timed("optimizer", accelerator.clip_grad_norm_)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        """The optimizer begins."""
        self._optimizer_start = _now()

    def on_optimizer_step(self, args, state, control, **kwargs):
        """The optimizer is done."""
        self._parts["optimizer"] += _now() - self._optimizer_start

    def on_step_end(self, args, state, control, **kwargs):
        """The step is done."""
        now = _now()
        if self._end is not None:
            self._parts["other"] = now - self._end - sum(self._parts.values())
            self.steps.append(StepTime(**self._parts))
        self._end = now
        self._parts = dict.fromkeys(PARTS, 0.0)

    def _timed(self, part: str, function: Callable) -> Callable:
        def run(*args, **kwargs):
            start = _now()
            try:
                return function(*args, **kwargs)
            finally:
                self._parts[part] += _now() - start

        return run


def run_arm(
    arm: Arm, model: nn.Module, settings: BenchSettings, *, seed: int, n_steps: int | None = None
) -> list[StepTime]:
    """Train for a few steps.

    Args:
        arm: The arm.
        model: The model that is trained, and is of no use to other arms afterwards.
        settings: Sizes; the rows of token ids are the same for the same settings.
        seed: Seed of the order of rows and of what the arm draws.
        n_steps: Steps; default: ``settings.steps_a_run``.

    Returns:
        The steps from the second on.

    Raises:
        GradlocError: An arm that should have read its cache did not find everything in it.
    """
    set_seed(seed)
    clock = StepClock()
    # Packages of arms print to standard output, which may be meant for JSON.
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()), _quiet():
        setup = arm.build(model)
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=settings.batch_size,
            max_steps=n_steps or settings.steps_a_run,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=not torch.accelerator.is_available(),
            dataloader_pin_memory=torch.cuda.is_available(),
            seed=seed,
            **setup.arguments,
        )
        trainer = setup.trainer(
            model=setup.model,
            args=arguments,
            train_dataset=token_rows(model, settings),
            callbacks=setup.callbacks,
            optimizers=(setup.optimizer, None),
        )
        trainer.remove_callback(PrinterCallback)
        clock.attach(trainer)
        trainer.train()
    if arm.cached and n_steps is None:
        _check_cache_was_read(arm, setup.callbacks, settings.steps_a_run)
    return clock.steps


def fill_cache(arm: Arm, model: nn.Module, settings: BenchSettings) -> None:
    """Let a cached arm see every row once, so that later runs find all of them."""
    # The callback keeps rows only if there is a second epoch, so one more step than one epoch has.
    run_arm(arm, model, settings, seed=settings.seed, n_steps=settings.steps_a_run + 1)


def token_rows(model: nn.Module, settings: BenchSettings) -> Dataset:
    """Rows of random token ids, all labelled: one epoch is as long as a run.

    Raises:
        GradlocError: The model takes no sequences of that length.
    """
    config = model.config.get_text_config()
    longest = getattr(config, "max_position_embeddings", None)
    if longest and settings.sequence_length > longest:
        raise GradlocError(
            f"bench: sequences of {settings.sequence_length} tokens, but the model takes "
            f"{longest} at most. Choose a smaller --sequence-length."
        )
    generator = torch.Generator().manual_seed(settings.seed)
    shape = (settings.batch_size * settings.steps_a_run, settings.sequence_length)
    ids = torch.randint(config.vocab_size, shape, generator=generator).tolist()
    return Dataset.from_dict({"input_ids": ids, "labels": ids})


def _check_cache_was_read(arm: Arm, callbacks: list, n_steps: int) -> None:
    # What is not found in a run of one epoch is not offered to the store: only hits are counted.
    cache = next(c for c in callbacks if isinstance(c, GradLocCallback)).prefix_cache
    if cache.n_hits < n_steps:
        raise GradlocError(
            f"bench: {arm.name} found {cache.n_hits} of {n_steps} batches in its cache, so its "
            "time would be a mixture. Is the disk full?"
        )


@contextmanager
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # BAdam's advice to load other weights, for example
        yield


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # kernels run behind the clock
    return time.perf_counter()
