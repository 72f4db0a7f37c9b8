"""The record of a training equals what a plain loop measures on the same weights."""

import copy
import functools
import json
import logging
import shutil

import numpy as np
import pytest
import torch
from conftest import build_model, training_arguments
from transformers import Trainer, TrainerCallback

from gradloc.data.batches import collate
from gradloc.data.injection import Fact, InjectedRows, InjectionSchedule
from gradloc.data.probes import Probe, ProbeSet
from gradloc.errors import GradlocError
from gradloc.training.acquisition import RECORD_FILE, AcquisitionCallback, AcquisitionRecord

PROBES = ProbeSet(
    (
        Probe("a", "new", "Ada", ("weaves wool",), depth="verbatim", entity="Ada"),
        Probe("b", "new", "The one who weaves is", ("Ada", "A."), entity="Ada"),
        Probe("c", "invariant", "Water is", ("wet",), old_targets=(), entity="water"),
    )
)
SCHEDULE = InjectionSchedule({"once": [Fact("Ada", ("Ada weaves wool.",))]}, [1])


arguments = functools.partial(
    training_arguments,
    per_device_train_batch_size=2,
    gradient_accumulation_steps=2,
    max_steps=7,
    learning_rate=1e-2,
    train_sampling_strategy="sequential",
)


def train(folder, tokenizer, *callbacks, kind="llama", resume=None, **changes):
    args = arguments(folder, **changes)
    texts = [f"Row {number} of the ordinary text." for number in range(20)]
    rows = [tokenizer(text)["input_ids"] for text in texts]
    trainer = Trainer(
        model=build_model(kind).train(),
        args=args,
        train_dataset=InjectedRows(
            SCHEDULE, [{"input_ids": row, "labels": row} for row in rows], args, tokenizer
        ),
        data_collator=lambda rows: collate(rows, pad_token_id=96),
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


class Snapshots(TrainerCallback):
    """Keeps a copy of the weights before each update, and the final ones."""

    def __init__(self):
        self.weights = {}

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.weights[state.global_step] = copy.deepcopy(model.state_dict())

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.weights[state.global_step] = copy.deepcopy(model.state_dict())


def plain_loss(model, tokenizer, probe):
    """Mean loss of the answer's tokens and its blank, one forward pass a probe."""
    prompt = tokenizer(probe.prompt)["input_ids"]
    answer = tokenizer(" " + probe.targets[0])["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    places = range(len(prompt), len(prompt) + len(answer))
    return -sum(float(logits[p - 1, t]) for p, t in zip(places, answer, strict=True)) / len(answer)


def test_losses_are_those_of_the_weights_before_each_update(tmp_path, character_tokenizer):
    kept = Snapshots()
    tracker = AcquisitionCallback(PROBES, every=3, exposures=SCHEDULE)
    train(tmp_path, character_tokenizer, kept, tracker)
    record = AcquisitionRecord.load(tmp_path / RECORD_FILE)
    # Every third update and, off that grid, the final weights.
    assert record.steps == (0, 3, 6, 7)
    model = build_model("llama")
    for step, losses in zip(record.steps, record.nll, strict=True):
        model.load_state_dict(kept.weights[step])
        expected = [plain_loss(model, character_tokenizer, probe) for probe in PROBES]
        assert losses == pytest.approx(expected, abs=2e-5)
    assert len({row[0] for row in record.nll}) == 4, "the weights must have moved"


def test_the_record_says_what_was_measured(tmp_path, character_tokenizer):
    train(tmp_path, character_tokenizer, AcquisitionCallback(PROBES, 3, exposures=SCHEDULE))
    record = AcquisitionRecord.load(tmp_path / RECORD_FILE)
    assert record.probe_ids == ("a", "b", "c")
    assert record.entities == ("Ada", "Ada", "water")
    assert record.depths == ("verbatim", "paraphrase", "paraphrase")
    assert record.scenarios == ("once", "once", "")
    assert record.n_tokens == (len(" weaves wool"), len(" Ada"), len(" wet"))
    assert record.injection_steps == {"Ada": (1,)}
    per_token = record.log_probabilities()
    assert per_token.shape == (4, 3) and (per_token < 0).all()
    np.testing.assert_allclose(
        record.log_probabilities(per_token=False), per_token * np.array([12, 4, 4])
    )


def test_training_is_the_same_with_and_without_it(tmp_path, character_tokenizer):
    """GPT-2 has dropout, so a random state that is not given back would show."""

    def weights(*callbacks):
        return train(tmp_path, character_tokenizer, *callbacks, kind="gpt2").model.state_dict()

    plain, followed = weights(), weights(AcquisitionCallback(PROBES))
    assert all(torch.equal(plain[name], followed[name]) for name in plain)


def test_the_model_is_left_as_found(tmp_path, character_tokenizer):
    found = []

    class After(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            modes = {module.training for module in model.modules()}
            found.append((modes, [p.grad for p in model.parameters() if p.grad is not None]))

    train(tmp_path, character_tokenizer, AcquisitionCallback(PROBES), After(), kind="gpt2")
    assert found == [({True}, [])] * 7


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, character_tokenizer):
    """The record of a straight training, and a folder of the same with its checkpoint of step 4."""
    folder = tmp_path_factory.mktemp("run")
    tracker = AcquisitionCallback(PROBES, 2, exposures=SCHEDULE)
    train(folder, character_tokenizer, tracker, save_strategy="steps", save_steps=4)
    return AcquisitionRecord.load(folder / RECORD_FILE), folder


@pytest.mark.parametrize("lost", ["", "folder", "checkpoint"])
def test_a_resumed_training_continues_the_record(tmp_path, character_tokenizer, interrupted, lost):
    straight, folder = interrupted
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    checkpoint = tmp_path / "checkpoint-4"
    # Either copy is enough.
    checkpoint = checkpoint.rename(tmp_path / "kept")
    if lost:
        ({"folder": tmp_path, "checkpoint": checkpoint}[lost] / RECORD_FILE).unlink()
    again = AcquisitionCallback(PROBES, 2, exposures=SCHEDULE)
    train(tmp_path, character_tokenizer, again, resume=str(checkpoint))
    resumed = AcquisitionRecord.load(tmp_path / RECORD_FILE)
    assert resumed.steps == (0, 2, 4, 6, 7)
    assert resumed == straight


def test_a_resumed_training_without_a_record_says_so(
    tmp_path, character_tokenizer, interrupted, caplog
):
    shutil.copytree(interrupted[1], tmp_path, dirs_exist_ok=True)
    for path in tmp_path.rglob(RECORD_FILE):
        path.unlink()
    tracker = AcquisitionCallback(PROBES, 2)
    with caplog.at_level(logging.WARNING):
        train(tmp_path, character_tokenizer, tracker, resume=str(tmp_path / "checkpoint-4"))
    assert "the record of the probes begins at step 4" in caplog.text
    assert AcquisitionRecord.load(tmp_path / RECORD_FILE).steps == (4, 6, 7)


def test_a_record_of_other_probes_is_not_continued(tmp_path, character_tokenizer, interrupted):
    shutil.copytree(interrupted[1], tmp_path, dirs_exist_ok=True)
    other = AcquisitionCallback(ProbeSet(PROBES.probes[:2]), 2, exposures=SCHEDULE)
    with pytest.raises(GradlocError, match="recorded with other probes or injections"):
        train(tmp_path, character_tokenizer, other, resume=str(tmp_path / "checkpoint-4"))


def test_a_new_training_begins_a_new_record(tmp_path, character_tokenizer):
    tracker = AcquisitionCallback(PROBES, 3)
    train(tmp_path, character_tokenizer, tracker)
    first = AcquisitionRecord.load(tmp_path / RECORD_FILE)
    # The same callback, trainer after trainer, into the same folder.
    train(tmp_path, character_tokenizer, tracker, max_steps=4)
    second = AcquisitionRecord.load(tmp_path / RECORD_FILE)
    assert second.steps == (0, 3, 4) and second.nll[0] == first.nll[0]


def test_probes_may_be_a_file_and_exposures_a_mapping(tmp_path, character_tokenizer):
    path = PROBES.save(tmp_path / "probes.jsonl")
    tracker = AcquisitionCallback(path, 7, exposures={"water": [5, 2], "nobody": [1]})
    train(tmp_path, character_tokenizer, tracker)
    record = AcquisitionRecord.load(tmp_path / RECORD_FILE)
    assert record.injection_steps == {"water": (2, 5)}
    assert record.scenarios == ("", "", "injected")


def test_only_the_first_process_writes(tmp_path, character_tokenizer, monkeypatch):
    from transformers.trainer_callback import TrainerState

    tracker = AcquisitionCallback(PROBES, 3, tokenizer=character_tokenizer)
    state = TrainerState(is_world_process_zero=False, max_steps=7)
    args = arguments(tmp_path)
    tracker.on_train_begin(args, state, None)
    tracker.on_step_begin(args, state, None, model=build_model("llama"))
    tracker.on_train_end(args, state, None)
    assert tracker.record.steps == (0,), "a sharded model needs every process"
    assert not (tmp_path / RECORD_FILE).exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AcquisitionCallback(ProbeSet(())), "has no probes"),
        (lambda: AcquisitionCallback(PROBES, every=0), "every=0"),
        (lambda: AcquisitionCallback("nowhere.jsonl"), "nowhere.jsonl"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(GradlocError, match=message):
        make()


def test_a_trainer_without_a_tokenizer_is_told(tmp_path):
    with pytest.raises(GradlocError, match="needs a tokenizer, and the trainer has none"):
        AcquisitionCallback(PROBES).on_train_begin(arguments(tmp_path), None, None)


def test_a_loss_that_is_not_finite_survives_the_file(tmp_path):
    record = AcquisitionRecord(("a",), ("A",), ("verbatim",), ("once",), (2,), {"A": (0,)})
    record = record.measured(0, [1.23456789]).measured(1, [float("nan")])
    found = AcquisitionRecord.load(record.save(tmp_path / RECORD_FILE))
    assert found.nll[0] == (1.234568,) and np.isnan(found.nll[1][0])
    assert found.follows_the_same_as(record) and found.until(0).steps == (0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "plan"}, r"expected an acquisition record \('acquisition'\); its kind is 'plan'"),
        ({"version": 9}, "version 9, written by a newer gradloc; this one reads version 1"),
        ({"steps": [0, 1]}, "nll: has 1 rows for 2 steps"),
        ({"depths": []}, "depths: has 0 entries for 1 probes"),
        ({"nll": None}, "nll: is empty; give a list"),
    ],
)
def test_a_damaged_record_is_refused(tmp_path, change, message):
    record = AcquisitionRecord(("a",), ("A",), ("verbatim",), ("once",), (2,), {"A": (0,)})
    path = record.measured(0, [1.0]).save(tmp_path / RECORD_FILE)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(GradlocError, match=message):
        AcquisitionRecord.load(path)
