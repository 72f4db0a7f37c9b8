"""Rivals (evaluation/studies/rivals): averages, RecAdam and token weights against plain loops."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import build_model, plan_for
from hand_training import (
    EPSILON,
    RATE,
    Rows,
    by_trainer,
    context_for,
    largest_gap,
    moved,
    token_rows,
)
from reference_checks import DEFAULT, GIVEN, PATH, agrees, read_vectors
from transformers import TrainerCallback

from evaluation.studies.rivals.recadam import RecAdamCallback, annealed
from evaluation.studies.rivals.token_weights import TokenWeights, token_losses, weighted_loss
from evaluation.studies.rivals.weight_averaging import (
    AVERAGE_FILE,
    WeightAveraging,
    WeightAveragingCallback,
)
from gradloc.data.batches import collate
from gradloc.errors import MethodError
from gradloc.training.methods.extra_loss import planned_parameters, starting_weights


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


@pytest.mark.slow
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


ROWS = token_rows(5, 9, 2, 7)


def labelled_rows():
    rows = [{"input_ids": list(row), "labels": list(row)} for row in ROWS]
    rows[1]["labels"][4] = -100
    return rows


def hand_losses(model, row):
    found = [math.nan]
    for place in range(1, len(row["input_ids"])):
        with torch.no_grad():
            ids = torch.tensor([row["input_ids"][:place]])
            log_probs = model(input_ids=ids).logits[0, -1].log_softmax(-1)
        known = row["labels"][place] != -100
        found.append(-log_probs[row["input_ids"][place]].item() if known else math.nan)
    return found


def test_the_tokens_that_surprise_most_get_the_weight(tmp_path, character_tokenizer):
    context = context_for(tmp_path, character_tokenizer)
    rows = labelled_rows()
    losses = [hand_losses(context.model, row) for row in rows]
    for found, expected in zip(token_losses(context.model, rows), losses, strict=True):
        assert found.tolist() == pytest.approx(expected, rel=1e-4, nan_ok=True)
    weighted = TokenWeights(fraction=0.25, weight=5.0).rows(rows, context)
    known = sorted((x for row in losses for x in row if not math.isnan(x)), reverse=True)
    assert len(known) == 18  # 19 tokens have one before them, one of these has no label
    threshold = known[4 - 1]  # a quarter of 18, rounded to even
    for row, before, loss in zip(weighted, rows, losses, strict=True):
        assert {k: v for k, v in row.items() if k != "weights"} == before
        assert row["weights"] == [5.0 if x >= threshold - 1e-5 else 1.0 for x in loss]
    assert sum(w == 5.0 for row in weighted for w in row["weights"]) == 4


def test_the_loss_is_the_weighted_mean_and_ordinary_at_equal_weights(llama):
    rows = labelled_rows()
    weights = np.random.default_rng(0).uniform(0.5, 4.0, (len(rows), 9)).astype("float32")
    batch = collate(rows, 0)
    batch["weights"] = torch.tensor(weights) * batch["attention_mask"]
    losses = [hand_losses(llama, row) for row in rows]
    pairs = [
        (w, x)
        for row_weights, row in zip(weights.tolist(), losses, strict=True)
        for w, x in zip(row_weights, row, strict=False)
        if not math.isnan(x)
    ]
    expected = sum(w * x for w, x in pairs) / sum(w for w, _ in pairs)
    loss = TokenWeights().loss(None)(llama, batch)
    assert math.isclose(loss.item(), expected, rel_tol=1e-5)
    equal = {**batch, "weights": 7.0 * batch["attention_mask"]}
    labelled = {k: batch[k] for k in ("input_ids", "attention_mask", "labels")}
    torch.testing.assert_close(weighted_loss(llama, equal), llama(**labelled).loss)
