"""Arms of a benchmark: Trainer set-ups that run for a few steps with a clock."""

import io
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from gradloc.errors import GradlocError
from gradloc.experiments.bench_config import BenchConfig
from gradloc.localization.plan import LayerPlan
from gradloc.training.callback import GradLocCallback


@dataclass
class ArmSetup:
    """What an arm adds to ``Trainer(model, TrainingArguments(...))``.

    Args:
        model: The model to train, wrapped where the arm does so.
        callbacks: Callbacks of the trainer.
        arguments: Training arguments other than the common ones.
        optimizer: An optimizer of the arm's own; ``None``: the Trainer's.
        trainer: The class of the trainer.
    """

    model: nn.Module
    callbacks: list[TrainerCallback] = field(default_factory=list)
    arguments: dict[str, Any] = field(default_factory=dict)
    optimizer: torch.optim.Optimizer | None = None
    trainer: type[Trainer] = Trainer


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Args:
        about: What it is, in a few words.
        build: Makes the set-up around a model of its own.
        plan: The plan it trains under, if any.
        cached: Whether it starts from hidden states that were computed before.
        step: Options of ``StepShape`` for the prediction beside batch and length; ``None``: the
            cost model does not cover this arm.
    """

    about: str
    build: Callable[[nn.Module], ArmSetup]
    plan: LayerPlan | None = None
    cached: bool = False
    step: dict[str, Any] | None = None


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
        redirect_stdout(io.StringIO()),
        warnings.catch_warnings(action="ignore"),
    ):
        setup = arm.build(model)
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
            **setup.arguments,
        )
        trainer = setup.trainer(
            model=setup.model,
            args=arguments,
            train_dataset=token_rows(model, config),
            callbacks=[*setup.callbacks, clock],
            optimizers=(setup.optimizer, None),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    if arm.cached and n_steps is None:
        _check_cache_was_read(setup.callbacks, config.steps_a_run)
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


def _check_cache_was_read(callbacks: list, n_steps: int) -> None:
    # What is not found in a run of one epoch is not offered to the store: only hits are counted.
    cache = next(c for c in callbacks if isinstance(c, GradLocCallback)).prefix_cache
    n_hits = cache.n_hits if cache else 0
    if n_hits < n_steps:
        raise GradlocError(
            f"bench: {n_hits} of {n_steps} batches were found in the prefix cache, so the "
            "measured time would be a mixture. Is the disk full?"
        )
