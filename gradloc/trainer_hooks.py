"""Get hold of a Trainer, and of the moment when it has made its optimizer.

Comes in: a Trainer that is being built. Goes out: the Trainer, and calls around its
``create_optimizer``. It knows nothing of layers or plans.

Why: the Trainer builds its optimizer after a checkpoint has been loaded and before the model is
wrapped, but fires no event there, and hands no callback its trainer.
"""

import inspect
from collections.abc import Callable

from transformers import Trainer

from gradloc.errors import GradlocError


def trainer_under_construction() -> Trainer:
    """The Trainer whose ``__init__`` is running.

    No event of the Trainer passes the trainer itself, so the callers' frames are searched.

    Raises:
        GradlocError: None is.
    """
    frame = inspect.currentframe()
    while frame is not None:
        candidate = frame.f_locals.get("self")
        if isinstance(candidate, Trainer):
            return candidate
        frame = frame.f_back
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
