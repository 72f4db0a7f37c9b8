"""Quadratic penalties against a plain loop, and the Fisher information against its meaning."""

import math
from types import SimpleNamespace

import pytest
import torch
from conftest import build_model, plan_for
from hand_training import by_hand, by_trainer, context_for, largest_gap, moved, token_rows
from peft import LoraConfig, get_peft_model
from torch.nn import functional

from evaluation.studies.rivals.recadam import RecAdam
from evaluation.studies.rivals.weight_averaging import WeightAveraging
from gradloc import GradLocCallback
from gradloc.errors import MethodError
from gradloc.training.methods.extra_loss import planned_parameters, starting_weights
from gradloc.training.methods.method_table import build_method
from gradloc.training.methods.quadratic import (
    EWC,
    L2ToStart,
    QuadraticPenaltyCallback,
    diagonal_fisher,
    normalized,
)
from gradloc.training.methods.reference_kl import ReferenceKL

ROWS = token_rows(5, 9, 2, 7)


def quadratic(start, weight, importance=None):
    def extra(model, step):
        total = 0.0
        for name, parameter in model.named_parameters():
            if name in start:
                square = (parameter - start[name]) ** 2
                total = total + (square * importance[name] if importance else square).sum()
        return 0.5 * weight * total

    return extra


@pytest.mark.parametrize("fisher", [False, True])
@pytest.mark.parametrize(
    ("optim", "clip", "accumulation", "frozen"),
    [
        ("adamw_torch", 0.0, 1, True),
        ("adamw_torch", 0.5, 2, False),
        ("sgd", 0.5, 1, True),
        ("sgd", 0.0, 2, False),
    ],
)
def test_training_equals_a_loop_on_the_sum(tmp_path, optim, clip, accumulation, frozen, fisher):
    # In double precision, but for norms and loss: Adam divides by a gradient's size, so where terms
    # cancel it turns the rounding of another order of summing into steps of another length.
    model = build_model("llama_tied").double()
    plan = plan_for(model) if frozen else None
    start = starting_weights(model, plan)
    importance = None
    if fisher:
        generator = torch.Generator().manual_seed(0)
        importance = {
            n: torch.rand(s.shape, generator=generator).double() for n, s in start.items()
        }
    callback = QuadraticPenaltyCallback(start, weight=20.0, importance=importance)
    trainer = by_trainer(
        tmp_path,
        model,
        [callback],
        plan,
        optim=optim,
        max_grad_norm=clip,
        per_device_train_batch_size=4 // accumulation,
        gradient_accumulation_steps=accumulation,
    )
    options = dict(plan=plan, optim=optim, clip=clip)
    penalty = quadratic(start, 20.0, importance)
    expected = by_hand(build_model("llama_tied").double(), penalty, **options)
    without = by_hand(build_model("llama_tied").double(), lambda model, step: 0.0, **options)
    assert largest_gap(model, expected) < 1e-6 < 20e-6 < largest_gap(model, without)
    values = [e["quadratic_penalty"] for e in trainer.state.log_history if "loss" in e]
    before_last = by_hand(build_model("llama_tied").double(), penalty, n_steps=3, **options)
    assert values[0] == 0
    # What is logged has no weight.
    assert math.isclose(values[3], penalty(before_last, 0).item() / 20.0, rel_tol=1e-3)
    if frozen:
        assert moved(model.float()) == set(start)


def test_fisher_is_that_of_a_loop_over_parameters(llama):
    chosen = planned_parameters(llama, plan_for(llama))
    for parameter in llama.parameters():
        parameter.requires_grad_(False)
    found = diagonal_fisher(llama, ROWS, chosen)
    assert not any(p.requires_grad for p in llama.parameters())
    assert set(found) == set(chosen) and all(n.startswith("model.layers") for n in chosen)
    for parameter in llama.parameters():
        parameter.requires_grad_(True)
    expected = {name: torch.zeros_like(parameter) for name, parameter in chosen.items()}
    for row in ROWS:
        llama.zero_grad()
        ids = torch.tensor([row])
        log_probs = llama(input_ids=ids).logits[0, :-1].log_softmax(-1)
        log_probs[range(len(row) - 1), row[1:]].mean().backward()
        for name, parameter in chosen.items():
            expected[name] += parameter.grad**2 * (len(row) - 1) / len(ROWS)
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-9)


def test_on_all_samples_of_the_model_the_fisher_is_the_curvature_of_the_divergence():
    """Every two-token text, weighted as the model would write it: 1/2 F d^2 is the KL."""
    model = build_model("llama").double()
    name = "model.layers.2.mlp.down_proj.weight"
    parameter = dict(model.named_parameters())[name]
    first = 7
    with torch.no_grad():
        base = model(input_ids=torch.tensor([[first]])).logits[0, 0].log_softmax(-1)
    fisher = sum(
        base[token].exp() * diagonal_fisher(model, [(first, token)], {name: parameter})[name]
        for token in range(97)
    )
    place, length = (5, 11), 1e-3
    with torch.no_grad():
        parameter[place] += length
        after = model(input_ids=torch.tensor([[first]])).logits[0, 0].log_softmax(-1)
    kl = functional.kl_div(after, base, log_target=True, reduction="sum").item()
    assert kl > 0
    assert math.isclose(0.5 * fisher[place].item() * length**2, kl, rel_tol=1e-2)


def test_normalized_importance_has_mean_one_over_all_weights():
    found = normalized({"a": torch.tensor([1.0, 2.0, 3.0]), "b": torch.tensor([[6.0]])})
    assert found["a"].tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert found["b"].tolist() == [[2.0]]
    with pytest.raises(MethodError, match="zero throughout"):
        normalized({"a": torch.zeros(2)})


@pytest.mark.parametrize(
    "method", [L2ToStart(weight=3.0), EWC(weight=3.0, source="facts", n_texts=4)]
)
def test_a_resumed_training_is_pulled_to_the_same_start(tmp_path, character_tokenizer, method):
    def train(resume=None, **changes):
        context = context_for(tmp_path, character_tokenizer)
        method.prepare(context)
        callbacks = method.callbacks(context)
        return by_trainer(tmp_path, context.model, callbacks, context.plan, resume, **changes).model

    straight = train(save_strategy="steps", save_steps=2)
    assert largest_gap(straight, train(str(tmp_path / "checkpoint-2"))) == 0


def test_normalized_importance_has_mean_one(tmp_path, character_tokenizer):
    context = context_for(tmp_path, character_tokenizer)
    method = EWC(n_texts=2, normalize=True)
    method.prepare(context)
    importance = method.callbacks(context)[0].importance
    assert set(importance) == set(planned_parameters(context.model, context.plan))
    values = torch.cat([value.flatten() for value in importance.values()])
    assert math.isclose(values.mean().item(), 1.0, rel_tol=1e-5)


def test_adapters_and_missing_starts_are_refused(tmp_path):
    model = build_model("llama_tied")
    start = starting_weights(model)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["up_proj"]))
    with pytest.raises(MethodError, match="Adapters have no weight to stay near"):
        by_trainer(tmp_path, adapted, [QuadraticPenaltyCallback(start, weight=1.0)])


def test_sharded_parameters_and_options_out_of_range_are_refused(llama):
    callback = QuadraticPenaltyCallback(starting_weights(llama), weight=1.0)
    with pytest.raises(MethodError, match="on one device or with DDP"):
        callback.on_train_begin(SimpleNamespace(deepspeed="ds.json"), None, None, model=llama)
    wrong = [{"weight": 0}, {"weight": -1.0}, {"source": "web"}, {"n_texts": 0}]
    for name, options in [("l2_to_start", wrong[0]), *(("ewc", given) for given in wrong[1:])]:
        with pytest.raises(MethodError, match=next(iter(options))):
            build_method(name, options)


def test_a_loss_scaler_scales_the_penalty_too(llama):
    start = {name: torch.zeros_like(p) for name, p in llama.named_parameters()}
    callback = QuadraticPenaltyCallback(start, weight=2.0)
    callback.on_train_begin(SimpleNamespace(deepspeed=None), None, None, model=llama)
    optimizer = SimpleNamespace(scaler=SimpleNamespace(get_scale=lambda: 1024.0))
    state = SimpleNamespace(global_step=0)
    callback.on_step_begin(None, state, None, model=llama, optimizer=optimizer)
    callback.on_step_begin(None, state, None, model=llama, optimizer=optimizer)  # adds, as it says
    for parameter in llama.parameters():
        torch.testing.assert_close(parameter.grad, 2 * 2048 * parameter.detach())


@pytest.mark.slow
def test_all_of_them_at_once_on_a_prefix_cache_move_nothing_frozen(tmp_path, character_tokenizer):
    """Where a cache starts the passes above the frozen blocks, the figures stay the same."""

    def train(**options):
        context = context_for(tmp_path, character_tokenizer)
        methods = [ReferenceKL(), L2ToStart(), EWC(n_texts=2), RecAdam(), WeightAveraging()]
        for method in methods:
            method.prepare(context)
        callbacks = [c for method in methods for c in method.callbacks(context)]
        freezing = GradLocCallback(context.plan, **options)
        # Three epochs: what is seen once is not stored.
        changes = dict(per_device_train_batch_size=8, max_steps=9, logging_steps=9)
        trainer = by_trainer(tmp_path, context.model, [freezing, *callbacks], **changes)
        assert freezing.n_verified > 0
        return trainer, freezing

    plain, _ = train()
    trainer, freezing = train(cache=tmp_path / "cache")
    # Of each step's two passes, one is the penalty's, over rows it has seen before.
    assert freezing.prefix_cache.n_hits > 9
    assert largest_gap(plain.model, trainer.model) < 1e-6
    context = context_for(tmp_path, character_tokenizer)
    assert moved(trainer.model) == set(starting_weights(context.model, context.plan))
