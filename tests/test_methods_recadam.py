"""RecAdam against the original's outputs, and in the Trainer against a plain loop."""

import math
from types import SimpleNamespace

import pytest
import torch
from conftest import build_model
from hand_training import (
    EPSILON,
    RATE,
    Rows,
    by_trainer,
    context_for,
    largest_gap,
    moved,
    plan_for,
)
from reference_checks import DEFAULT, GIVEN, PATH, agrees, read_vectors

from gradloc.errors import MethodError
from gradloc.training.methods.extra_loss import planned_parameters, starting_weights
from gradloc.training.methods.recadam import RecAdam, RecAdamCallback, annealed

RECADAM = {v["id"]: v for v in read_vectors(PATH) if v["id"].startswith("recadam.")}


def recadam_vector(name):
    if name not in RECADAM:
        if not GIVEN:
            pytest.skip(f"{DEFAULT} is absent or has no {name}")
        pytest.skip(f"{PATH} has no {name}")
    return RECADAM[name]


def test_annealing_is_that_of_the_original():
    vector = recadam_vector("recadam.anneal")
    given = vector["input"]
    for kind in ("sigmoid", "linear"):
        found = [
            annealed(step, given["k"], given["t0"], kind, given["weight"])
            for step in given["steps"]
        ]
        agrees(found, vector["output"][kind])


TRAJECTORIES = {
    "anneal_w=1,k=1,t0=3,gamma=1,sigmoid": dict(k=5.0, t0=0.6),
    "anneal_w=1,k=1,t0=3,gamma=1,wd=0.01": dict(k=5.0, t0=0.6, decay=0.01),
    "linear t0=4": dict(t0=0.8, anneal="linear"),
}


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_steps_are_those_of_the_original(name):
    vector = recadam_vector("recadam.traj")
    given = vector["input"]
    options = dict(TRAJECTORIES[name])
    holder = torch.nn.Module()
    holder.w = torch.nn.Parameter(torch.tensor(given["theta0"], dtype=torch.float64))
    optimizer = torch.optim.AdamW(
        holder.parameters(), lr=given["lr"], weight_decay=options.pop("decay", 0.0)
    )
    start = {"w": torch.tensor(given["theta_star"], dtype=torch.float64)}
    callback = RecAdamCallback(start, gamma=1.0, **options)
    args = SimpleNamespace(learning_rate=given["lr"])
    state = SimpleNamespace(global_step=0, max_steps=5)
    callback.on_train_begin(args, state, None, model=holder, optimizer=optimizer)
    found = []
    for step in range(5):
        state.global_step = step
        callback.on_step_begin(args, state, None)
        holder.w.grad = torch.tensor([0.3 * (step + 1), -0.2], dtype=torch.float64)
        optimizer.step()
        found.append(holder.w.tolist())
    # The original adds epsilon before it corrects the second moment's bias: 1e-7 of a step.
    agrees(found, vector["output"][name], 1e-6)
    assert optimizer.param_groups[0]["lr"] == given["lr"]
    callback.on_train_end(args, state, None)
    before = holder.w.detach().clone()
    holder.w.grad = None
    optimizer.step()
    assert torch.equal(before, holder.w)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_recadam_in_the_trainer_equals_a_loop(tmp_path, scale):
    """With a plan that freezes and scales, clipping, accumulation and a falling rate."""
    n_steps, gamma, k, t0 = 4, 300.0, 6.0, 0.5
    model = build_model("llama_tied")
    plan = plan_for(model, scale=scale)
    callback = RecAdamCallback(starting_weights(model, plan), gamma=gamma, k=k, t0=t0)
    by_trainer(
        tmp_path,
        model,
        [callback],
        plan,
        lr_scheduler_type="linear",
        max_grad_norm=0.5,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
    )
    expected = build_model("llama_tied").train()
    trained = planned_parameters(expected, plan)
    start = {name: p.detach().clone() for name, p in trained.items()}
    first = {name: torch.zeros_like(p) for name, p in trained.items()}
    second = {name: torch.zeros_like(p) for name, p in trained.items()}
    rows = Rows()
    for t in range(1, n_steps + 1):
        batch = [rows[i] for i in range(4 * (t - 1), 4 * t)]
        ids, labels = (torch.stack([r[c] for r in batch]) for c in ("input_ids", "labels"))
        expected.zero_grad()
        expected(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), 0.5)
        rate = scale * RATE["adamw_torch"] * (1 - (t - 1) / n_steps)
        share = 1 / (1 + math.exp(-k * (t / n_steps - t0)))
        with torch.no_grad():
            for name, p in trained.items():
                first[name] = 0.9 * first[name] + 0.1 * p.grad
                second[name] = 0.999 * second[name] + 0.001 * p.grad**2
                m, v = first[name] / (1 - 0.9**t), second[name] / (1 - 0.999**t)
                p -= rate * share * m / (v.sqrt() + EPSILON)
                p -= rate * (1 - share) * gamma * (p - start[name])
                p -= rate * (0.0 if "norm" in name else 0.1) * p
    assert largest_gap(model, expected) < 1e-6
    assert moved(model) == set(start)


@pytest.mark.parametrize("gamma", [1900.0, 2100.0])
def test_an_unstable_pull_is_refused_and_only_that(tmp_path, gamma):
    """The bound is where a pull without gradients begins to grow: lr gamma (w - lambda) = 2."""
    model = build_model("llama_tied")
    start = {name: value + 1e-3 for name, value in starting_weights(model).items()}
    distance = abs(1 - 1e-3 * gamma * (1 - annealed(1, 5.0, 3.0)))
    callback = RecAdamCallback(start, gamma=gamma, k=20.0, t0=0.75)
    if distance < 1:
        by_trainer(tmp_path, model, [callback])
    else:
        with pytest.raises(MethodError, match="Set gamma below 2000"):
            by_trainer(tmp_path, model, [callback])


def test_a_pull_is_unstable_by_the_rate_that_a_plan_gives(tmp_path):
    model = build_model("llama_tied")
    plan = plan_for(model, scale=3.0)
    callback = RecAdamCallback(starting_weights(model, plan), gamma=1000.0, k=20.0, t0=0.75)
    with pytest.raises(MethodError, match="Set gamma below 666"):
        by_trainer(tmp_path, model, [callback], plan)


def test_recadam_refuses_other_optimizers_and_options(tmp_path):
    model = build_model("llama_tied")
    with pytest.raises(MethodError, match="the optimizer is SGD"):
        by_trainer(tmp_path, model, [RecAdamCallback(starting_weights(model))], optim="sgd")
    for wrong in ({"gamma": 0}, {"k": -1.0}, {"t0": 250}, {"w": 0}, {"anneal": "constant"}):
        with pytest.raises(MethodError, match=next(iter(wrong))):
            RecAdam(**wrong).check()


def test_recadam_resumes_as_the_method_builds_it(tmp_path, character_tokenizer):
    def train(resume=None, **changes):
        context = context_for(tmp_path, character_tokenizer)
        callbacks = RecAdam(gamma=500.0).callbacks(context)
        return by_trainer(tmp_path, context.model, callbacks, context.plan, resume, **changes).model

    straight = train(save_strategy="steps", save_steps=2)
    assert largest_gap(straight, train(str(tmp_path / "checkpoint-2"))) == 0
    without = train_plainly(tmp_path)
    assert largest_gap(straight, without) > 1e-5


def train_plainly(folder):
    model = build_model("llama_tied")
    return by_trainer(folder, model, [], plan_for(model)).model
