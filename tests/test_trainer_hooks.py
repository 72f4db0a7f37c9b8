"""What gradloc takes from inside the Trainer, on every version that it was run on."""

import shutil

import pytest
import transformers
from conftest import build_model
from test_callback import Rows, arguments, plan_for, trainer_for
from transformers import Trainer, TrainerCallback

from gradloc import GradLocCallback, attach
from gradloc.errors import GradlocError
from gradloc.training import trainer_hooks
from gradloc.training.methods.interpolation import START_FILE, InterpolationCallback
from gradloc.training.trainer_hooks import (
    ResumableCallback,
    around_create_optimizer,
    note_resume,
    resumed_checkpoint,
    trainer_of,
)

# The first and the last are those of ``make test-floor`` and of constraints.txt.
RUN_ON = ("4.57.0", "4.57.6", "5.10.0", "5.23.0")


class Asking(ResumableCallback):
    """Notes the folder that a training resumes from."""

    folder = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.folder = state.global_step and resumed_checkpoint(args, state)


def asking_trainer(folder, *more, **changes):
    return Trainer(
        build_model("llama_tied").train(),
        args=arguments(folder, **changes),
        train_dataset=Rows(),
        callbacks=[*more],
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    asking_trainer(folder, max_steps=4).train()
    return folder


def test_this_version_of_transformers_is_one_that_the_hooks_were_run_on():
    assert transformers.__version__ in RUN_ON, "run this file, and enter the version here"


def test_the_trainer_is_the_one_that_fires_the_event(tmp_path):
    """Trainers are built inside the methods of others, as a search over models does."""
    found = []

    class Finding(TrainerCallback):
        def on_init_end(self, args, state, control, **kwargs):
            found.append(trainer_of(args, state, control))

    class Outer(Trainer):
        def build(self):
            return asking_trainer(tmp_path / "inner", Finding())

    outer = Outer(build_model("llama_tied"), arguments(tmp_path), callbacks=[Finding()])
    inner = outer.build()
    assert found == [outer, inner]


def test_a_trainer_that_cannot_be_found_is_an_error(tmp_path):
    trainer = asking_trainer(tmp_path)
    other = asking_trainer(tmp_path)
    with pytest.raises(GradlocError, match=r"gradloc\.attach"):
        trainer_of(trainer.args, trainer.state, trainer.control)

    class Mixed(Trainer):
        def ask(self):
            return trainer_of(self.args, other.state, self.control)

    with pytest.raises(GradlocError, match=r"gradloc\.attach"):
        Mixed(build_model("llama_tied"), arguments(tmp_path)).ask()


@pytest.mark.slow
@pytest.mark.parametrize("given", ["folder", "path", True])
def test_the_folder_is_the_one_that_train_was_given(tmp_path, trained, given):
    """Not that of the same step in the output folder, nor what the arguments name."""
    out = tmp_path / "out"
    shutil.copytree(trained / "checkpoint-2", out / "checkpoint-2")
    ask = Asking()
    trainer = asking_trainer(out, ask, max_steps=4, resume_from_checkpoint=str(tmp_path / "none"))
    elsewhere = trained / "checkpoint-2"
    trainer.train(
        resume_from_checkpoint={"folder": str(elsewhere), "path": elsewhere}.get(given, True)
    )
    assert ask.folder == (out / "checkpoint-2" if given is True else elsewhere)
    assert trainer_hooks._resumed == {}


@pytest.mark.slow
def test_training_that_resumes_nothing_asks_for_no_folder(tmp_path, trained):
    ask = Asking()
    trainer = asking_trainer(trained, ask, max_steps=1, save_strategy="no")
    trainer.train(resume_from_checkpoint=False)
    trainer.train()
    assert ask.folder == 0


@pytest.mark.slow
def test_a_callback_that_was_added_late_refuses_to_guess_its_checkpoint(tmp_path, trained):
    ask = Asking()
    trainer = asking_trainer(tmp_path, max_steps=4)
    trainer.add_callback(ask)
    with pytest.raises(GradlocError, match=r"Pass it in callbacks=\[\.\.\.\]"):
        trainer.train(resume_from_checkpoint=str(trained / "checkpoint-2"))
    # Beside a GradLocCallback it need not guess.
    trainer = asking_trainer(tmp_path, max_steps=4)
    trainer.add_callback(ask)
    attach(trainer, plan_for(trainer.model))
    trainer.train(resume_from_checkpoint=str(trained / "checkpoint-2"))
    assert ask.folder == trained / "checkpoint-2"


def test_a_folder_of_another_step_is_an_error(tmp_path, trained):
    trainer = asking_trainer(tmp_path, Asking(), max_steps=4)
    trainer.state.global_step = 3
    trainer_hooks._resumed[id(trainer.args)] = str(trained / "checkpoint-2")
    try:
        with pytest.raises(GradlocError, match="resumes at step 3, but .* holds step 2"):
            resumed_checkpoint(trainer.args, trainer.state)
    finally:
        trainer_hooks._resumed.clear()


@pytest.mark.slow
def test_a_train_that_takes_no_folder_is_an_error_and_one_that_takes_anything_is_not(
    tmp_path, trained
):
    class Renamed(Trainer):
        def train(self, checkpoint=None):
            return super().train(checkpoint)

    with pytest.raises(GradlocError, match="Renamed.train takes no resume_from_checkpoint"):
        Renamed(build_model("llama_tied"), arguments(tmp_path), callbacks=[Asking()])

    class Passing(Trainer):
        def train(self, *args, **kwargs):
            return super().train(*args, **kwargs)

    for form in ((str(trained / "checkpoint-2"),), ()):
        ask = Asking()
        trainer = Passing(
            build_model("llama_tied"), arguments(tmp_path, max_steps=4), train_dataset=Rows(),
            callbacks=[ask],
        )  # fmt: skip
        named = {} if form else {"resume_from_checkpoint": str(trained / "checkpoint-2")}
        trainer.train(*form, **named)
        assert ask.folder == trained / "checkpoint-2"


def test_wrapping_twice_calls_once(tmp_path):
    calls = []
    trainer = asking_trainer(tmp_path, max_steps=1, save_strategy="no")
    for _ in range(2):
        around_create_optimizer(
            trainer, lambda: calls.append("before"), lambda: calls.append("after")
        )
        note_resume(trainer)
    trainer.train()
    assert calls == ["before", "after"]
    assert trainer.train.__name__ == "train" and trainer.create_optimizer.__doc__


@pytest.mark.slow
def test_the_start_is_read_from_the_folder_that_train_was_given(tmp_path):
    """A checkpoint of the same step in the output folder is of another training."""
    plan = plan_for(build_model("llama_tied"))
    for name in ("a", "b"):
        trainer = trainer_for(tmp_path / name, GradLocCallback(plan), learning_rate=1e-2)
        trainer.add_callback(InterpolationCallback(0.5))
        trainer.train()
    (tmp_path / "b" / "checkpoint-2" / START_FILE).unlink()
    again = trainer_for(tmp_path / "b", GradLocCallback(plan, interpolation=0.5))
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    assert again.state.global_step == 6
