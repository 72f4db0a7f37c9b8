"""Averages of weights against copies taken at every step, schedules against their formula."""

import math
from types import SimpleNamespace

import pytest
import torch
from conftest import build_model
from hand_training import (
    by_trainer,
    largest_gap,
    moved,
    plan_for,
)
from transformers import TrainerCallback

from gradloc.errors import MethodError
from gradloc.training.methods.averaging import (
    AVERAGE_FILE,
    WeightAveraging,
    WeightAveragingCallback,
)
from gradloc.training.methods.extra_loss import starting_weights
from gradloc.training.methods.schedule import Rewarm


class Trail(TrainerCallback):
    """Copies of the weights after each step."""

    def __init__(self):
        self.weights = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.weights.append({n: p.detach().clone() for n, p in model.named_parameters()})


@pytest.mark.parametrize(("kind", "start"), [("tail", 0.5), ("tail", 0.0), ("ema", 0.3)])
def test_the_average_is_that_of_the_copies(tmp_path, kind, start):
    model = build_model("llama_tied")
    trail = Trail()
    callback = WeightAveragingCallback(kind, start=start, decay=0.6)
    by_trainer(tmp_path, model, [trail, callback], plan_for(model), max_steps=6)
    first = {0.5: 3, 0.0: 1, 0.3: 2}[start]  # ceil(share x 6), at least 1
    copies = trail.weights[first - 1 :]
    assert callback.n_averaged == len(copies)
    for name, parameter in model.named_parameters():
        if kind == "tail":
            expected = torch.stack([copy[name] for copy in copies]).mean(0)
        else:
            expected = copies[0][name]
            for copy in copies[1:]:
                expected = 0.6 * expected + 0.4 * copy[name]
        torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=1e-6)
    assert moved(model) == set(starting_weights(build_model("llama_tied"), plan_for(model)))
    last = trail.weights[-1]
    gap = max((p - last[n]).abs().max().item() for n, p in model.named_parameters())
    assert gap > 1e-4


def test_averages_of_low_precision_weights_are_taken_in_float32():
    weight = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.bfloat16))
    model = torch.nn.Module()
    model.weight = weight
    callback = WeightAveragingCallback("ema", start=0.0, decay=0.999)
    state = SimpleNamespace(global_step=0, max_steps=100)
    callback.on_train_begin(None, state, None, model=model)
    for step in range(1, 101):
        state.global_step = step
        with torch.no_grad():
            weight.fill_(1.0 if step == 1 else 2.0)
        callback.on_step_end(None, state, None)
    # In bfloat16, no step of a thousandth would move an average of 1.
    assert math.isclose(callback._average["weight"].item(), 2 - 0.999**99, rel_tol=1e-4)


@pytest.mark.parametrize("kind", ["tail", "ema"])
def test_the_average_rides_with_checkpoints(tmp_path, kind):
    def train(resume=None, **changes):
        model = build_model("llama_tied")
        callbacks = WeightAveraging(kind=kind, start=0.3, decay=0.5).callbacks(None)
        given = dict(max_steps=6) | changes
        return by_trainer(tmp_path, model, callbacks, plan_for(model), resume, **given).model

    straight = train(save_strategy="steps", save_steps=3)
    checkpoint = (tmp_path / "checkpoint-3").rename(tmp_path / "kept")
    assert largest_gap(straight, train(str(checkpoint))) == 0
    (checkpoint / AVERAGE_FILE).unlink()
    with pytest.raises(MethodError, match="Resume from an earlier checkpoint"):
        train(str(checkpoint))


@pytest.mark.parametrize("wrong", [{"kind": "swa"}, {"start": 1.0}, {"decay": 1.0}])
def test_averages_out_of_range_are_refused(wrong):
    with pytest.raises(MethodError, match=next(iter(wrong))):
        WeightAveraging(**wrong).check()


def test_rewarming_gives_the_rates_of_its_formula(tmp_path):
    method = Rewarm(warmup=0.25, min_ratio=0.2)
    method.check()
    given = method.training_arguments({"learning_rate": 1e-3, "max_steps": 8})
    assert given["learning_rate"] == 1e-3 and given["max_steps"] == 8
    trainer = by_trainer(tmp_path, build_model("llama_tied"), [], **given)
    found = [e["learning_rate"] for e in trainer.state.log_history if "loss" in e]
    expected = [0.0, 0.5] + [0.2 + 0.4 * (1 + math.cos(math.pi * i / 6)) for i in range(6)]
    assert found == pytest.approx([1e-3 * factor for factor in expected])


def test_a_second_schedule_and_shares_out_of_range_are_refused():
    with pytest.raises(MethodError, match=r"training\.warmup_steps"):
        Rewarm().training_arguments({"warmup_steps": 5})
    for wrong in ({"warmup": 1.0}, {"min_ratio": 1.5}):
        with pytest.raises(MethodError, match=next(iter(wrong))):
            Rewarm(**wrong).check()
