"""Get hold of what a Trainer tells no callback.

Comes in: a Trainer that is being built, or that trains. Goes out: the Trainer, calls around its
``create_optimizer``, and the folders of its checkpoints. It knows nothing of layers or plans.

Why: the Trainer builds its optimizer after a checkpoint has been loaded and before the model is
wrapped, but fires no event there; and it hands no callback its trainer, nor the folder that it
resumes from.
"""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from transformers import Trainer, TrainerState, TrainingArguments

from gradloc.errors import GradlocError


def trainer_under_construction() -> Trainer:
    """The Trainer whose ``__init__`` is running.

    No event of the Trainer passes the trainer itself, so the callers' frames are searched.

    Raises:
        GradlocError: None is.
    """
    for frame in _trainer_frames():
        return frame.f_locals["self"]
    raise GradlocError(
        "GradLocCallback could not find its Trainer. Call gradloc.attach(trainer, callback)."
    )


def around_create_optimizer(
    trainer: Trainer, before: Callable[[], None], after: Callable[[], None]
) -> None:
    """Call something before and after this trainer makes its optimizer, at each ``train()``.

    Where that has been arranged already, nothing is added.
    """
    if getattr(trainer.create_optimizer, "is_surrounded", False):
        return
    create_optimizer = trainer.create_optimizer

    def create_optimizer_between(*args, **kwargs):
        before()
        optimizer = create_optimizer(*args, **kwargs)
        after()
        return optimizer

    create_optimizer_between.is_surrounded = True
    trainer.create_optimizer = create_optimizer_between


def saved_checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    """Folder that the Trainer saves the present step in; it need not exist."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def resumed_checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    """Folder that a training resumes from, asked when it begins.

    It may be any, so it is looked up in the frames of the Trainer: another training's checkpoint of
    the same step may lie where this one would save.
    """
    for frame in _trainer_frames():
        folder = frame.f_locals.get("resume_from_checkpoint")
        if isinstance(folder, (str, Path)):
            return Path(folder)
    return saved_checkpoint(args, state)


def _trainer_frames() -> Iterator[FrameType]:
    """Running methods of a Trainer, the innermost first."""
    frame = inspect.currentframe()
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), Trainer):
            yield frame
        frame = frame.f_back
