"""Get hold of what a Trainer tells no callback: itself, and the folder that it resumes from.

The Trainer builds its optimizer after a checkpoint has been loaded and before the model is
wrapped, but fires no event there; and no event passes the trainer, or the folder that
``train(resume_from_checkpoint=...)`` was given. So the trainer is found once, in ``on_init_end``,
and two methods of that instance are wrapped: ``create_optimizer`` and ``train``. Whatever a new
version of Transformers moves ends in an error here, never in another trainer or folder.
``tests/test_trainer_hooks.py`` names the versions that this was run on.
"""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from gradloc.errors import GradlocError
from gradloc.utils.io import read_json

_STATE_FILE = "trainer_state.json"
# ``resume_from_checkpoint`` of each training that runs, by the identity of its arguments.
_resumed: dict[int, Any] = {}


def trainer_of(args: TrainingArguments, state: TrainerState, control: TrainerControl) -> Trainer:
    """The Trainer that fires the event ``on_init_end``, from what it passes to callbacks.

    No event passes the trainer itself, so the first arguments of the calling functions are
    searched for it. It has to own the very objects that it passed.

    Raises:
        GradlocError: None does.
    """
    frame = inspect.currentframe()
    while frame is not None:
        for name in frame.f_code.co_varnames[:1]:
            found = frame.f_locals.get(name)
            if isinstance(found, Trainer) and _owns(found, args, state, control):
                return found
        frame = frame.f_back
    raise GradlocError(
        "A callback of gradloc could not find its Trainer. Call gradloc.attach(trainer, ...) after "
        "the Trainer has been built."
    )


def _owns(trainer: Trainer, *passed: object) -> bool:
    own = (trainer.args, trainer.state, trainer.control)
    return all(mine is theirs for mine, theirs in zip(own, passed, strict=True))


def around_create_optimizer(
    trainer: Trainer, before: Callable[[], None], after: Callable[[], None]
) -> None:
    """Call something before and after this trainer makes its optimizer, at each ``train()``.

    Where that has been arranged already, nothing is added.
    """
    create_optimizer = trainer.create_optimizer
    if getattr(create_optimizer, "is_surrounded", False):
        return

    @functools.wraps(create_optimizer)
    def create_optimizer_between(*args, **kwargs):
        before()
        optimizer = create_optimizer(*args, **kwargs)
        after()
        return optimizer

    vars(create_optimizer_between)["is_surrounded"] = True
    trainer.create_optimizer = create_optimizer_between


def note_resume(trainer: Trainer) -> None:
    """Remember what this trainer's ``train`` is asked to resume from, while it runs.

    Raises:
        GradlocError: ``train`` takes no ``resume_from_checkpoint``.
    """
    train = trainer.train
    if getattr(train, "is_noted", False):
        return
    signature = inspect.signature(train)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    if "resume_from_checkpoint" not in signature.parameters and not takes_any:
        raise GradlocError(
            f"{type(trainer).__name__}.train takes no resume_from_checkpoint, so gradloc cannot "
            "know what it resumes from. Install a version of transformers that gradloc supports."
        )

    @functools.wraps(train)
    def train_noted(*args, **kwargs):
        given = signature.bind(*args, **kwargs).arguments
        given = {**given, **given.get("kwargs", {})}
        # A first positional argument of a train(*args, **kwargs) is handed on to the Trainer's.
        first = args[0] if args and "resume_from_checkpoint" not in signature.parameters else None
        _resumed[id(trainer.args)] = given.get("resume_from_checkpoint", first)
        try:
            return train(*args, **kwargs)
        finally:
            _resumed.pop(id(trainer.args), None)

    vars(train_noted)["is_noted"] = True
    trainer.train = train_noted


class ResumableCallback(TrainerCallback):
    """Base of callbacks that read a file of their own from the checkpoint that is resumed."""

    def on_init_end(self, args, state, control, **kwargs):
        """Find the trainer, to know what it will resume from."""
        note_resume(trainer_of(args, state, control))


def resumed_checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    """Folder that a training resumes from, asked while it begins.

    Raises:
        GradlocError: It is not known, or is not the checkpoint that the state was loaded from.
    """
    folder = _resumed_folder(args)
    if folder is None:
        raise GradlocError(
            f"The training resumes at step {state.global_step}, and its checkpoint is not known: a "
            "callback of gradloc was added to a Trainer that already existed. Pass it in "
            "callbacks=[...]."
        )
    saved = read_json(folder / _STATE_FILE, "state of the Trainer")
    if saved.get("global_step") != state.global_step:
        raise GradlocError(
            f"The training resumes at step {state.global_step}, but {folder} holds step "
            f"{saved.get('global_step')}. Give the checkpoint's own folder."
        )
    return folder


def resumed_state(trainer: Trainer) -> dict[str, Any] | None:
    """State of the Trainer in the checkpoint that this trainer resumes from; ``None``: none.

    It is read here since Transformers before 5 makes the optimizer before it reads the state.
    """
    folder = _resumed_folder(trainer.args)
    return None if folder is None else read_json(folder / _STATE_FILE, "state of the Trainer")


def _resumed_folder(args: TrainingArguments) -> Path | None:
    given = _resumed.get(id(args))
    # As the Trainer does it; what the arguments themselves say of it, it does not read.
    folder = get_last_checkpoint(args.output_dir) if given is True else given
    return Path(folder) if folder else None


def saved_checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    """Folder that the Trainer saves the present step in; it need not exist."""
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"


def shows_progress(args: TrainingArguments) -> bool:
    """Whether progress bars are wanted here: on the first process, unless they were declined."""
    return not args.disable_tqdm and args.process_index == 0
