"""The input projection against a loop by hand: C from the inputs, each step times its "
"projection."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import CHOSEN, build_model, plan_for
from hand_training import Rows, arguments, by_trainer, context_for, token_rows
from test_callback import run_on_two_processes
from transformers import AutoModelForCausalLM, OPTConfig, Qwen2MoeConfig

from gradloc.data.corpora import fact_passages
from gradloc.errors import MethodError
from gradloc.models.units import find_units
from gradloc.training.methods.anchor_texts import anchor_rows
from gradloc.training.methods.input_covariance import (
    input_covariance,
    input_projections,
    linear_modules,
)
from gradloc.training.methods.input_projection import InputProjectionCallback
from gradloc.training.methods.method_table import build_method

NEW = ["The river of Tal is the Ombra.", "In Tal one pays in marks."]


OPT = OPTConfig(
    vocab_size=97, hidden_size=32, ffn_dim=48, num_attention_heads=4, num_hidden_layers=2,
    max_position_embeddings=64, word_embed_proj_dim=32,
)  # fmt: skip
QWEN_MOE = Qwen2MoeConfig(
    vocab_size=97, hidden_size=32, intermediate_size=48, moe_intermediate_size=24,
    shared_expert_intermediate_size=40, num_attention_heads=4, num_key_value_heads=2,
    num_hidden_layers=2, num_experts=4, num_experts_per_tok=2, decoder_sparse_step=1,
)  # fmt: skip


def without_dropout(kind):
    model = build_model(kind)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def chosen_weights(model):
    trained = {
        name for unit in find_units(model) if unit.name in CHOSEN for name in unit.parameters
    }
    return [name for name in linear_modules(model) if name in trained]


def moments_by_hand(model, rows, names):
    """One row at a time, so that there is no padding at all."""
    kept = {name: [] for name in names}
    modules = linear_modules(model)
    hooks = [
        modules[name].register_forward_hook(
            lambda module, inputs, output, name=name: kept[name].append(
                inputs[0].reshape(-1, inputs[0].shape[-1])
            )
        )
        for name in names
    ]
    with torch.no_grad():
        for row in rows:
            model.eval()(input_ids=torch.tensor([row]))
    for hook in hooks:
        hook.remove()
    inputs = {name: torch.cat(parts) for name, parts in kept.items()}
    return {name: sum(torch.outer(x, x) for x in xs) / len(xs) for name, xs in inputs.items()}


@pytest.mark.parametrize("kind", ["llama_tied", "gpt2"])
def test_moments_are_those_of_single_rows_whatever_the_padding(kind):
    model = build_model(kind).eval()
    names = list(linear_modules(model))[:4]
    rows = token_rows(9, 3, 7, 2, 12, 5, 6, 8, 4, 11)
    expected = moments_by_hand(model, rows, names)
    for name, moment in input_covariance(model, rows, names).items():
        assert torch.allclose(moment, expected[name], rtol=1e-4, atol=1e-6), name


def test_layers_that_read_the_same_share_a_projection_and_no_others_do(monkeypatch):
    """Queries, keys and values; gate and up. Their inputs are multiplied once for all."""
    monkeypatch.setattr(
        "gradloc.training.methods.input_covariance._BATCH_TOKENS", 8
    )  # several batches
    model = build_model("llama_tied").eval()
    names = list(linear_modules(model))[:14]
    rows = token_rows(4, 3, 7, 2)
    expected = input_projections(moments_by_hand(model, rows, names))
    found = input_projections(input_covariance(model, rows, names))
    for name in names:
        assert torch.allclose(found[name], expected[name], rtol=1e-4, atol=1e-6), name
    shared = {}
    for name in names:
        shared.setdefault(id(found[name]), []).append(name.split(".")[-2])
    block = [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]
    assert list(shared.values()) == block * 2


@pytest.mark.parametrize("config", [OPT, QWEN_MOE], ids=["opt", "qwen_moe"])
def test_layers_that_get_all_positions_in_one_row_are_measured_like_others(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    flat = {"opt": ("fc1", "fc2"), "qwen2_moe": ("shared_expert.",)}[config.model_type]
    names = [name for name in linear_modules(model) if any(part in name for part in flat)]
    assert len(names) >= 4
    rows = token_rows(9, 3, 7, 12)
    expected = moments_by_hand(model, rows, names)
    for name, moment in input_covariance(model, rows, names).items():
        assert torch.allclose(moment, expected[name], rtol=1e-4, atol=1e-6), name


def test_measuring_leaves_the_model_as_it_was():
    model = build_model("llama_tied").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    input_covariance(model, token_rows(5, 6), chosen_weights(model))
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_projection_slows_each_direction_by_its_share():
    """On C = V diag(l) V' it divides direction i by 1 + strength l_i / mean l."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(5, 5, generator=generator)).Q
    values = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.0])
    moment = basis @ torch.diag(values) @ basis.T
    projection = input_projections({"w": moment}, strength=3.0)["w"]
    expected = basis @ torch.diag(1 / (1 + 3.0 * values / 3.0)) @ basis.T
    assert torch.allclose(projection, expected, atol=1e-5)
    assert torch.allclose(input_projections({"w": moment}, strength=0.0)["w"], torch.eye(5))


def test_the_projected_step_gains_most_for_its_cost():
    """Among steps D of equal gain, G (I + s C)^-1 has the least |D|^2 + s tr(D C D')."""
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(4, 6, generator=generator)
    inputs = torch.randn(50, 6, generator=generator) * torch.tensor([5.0, 3.0, 1.0, 1.0, 0.5, 0.1])
    moment = inputs.T @ inputs / 50
    strength = 4.0
    best = gradient @ input_projections({"w": moment}, strength)["w"]

    def cost(step):
        scale = strength / moment.diagonal().mean()
        return (step**2).sum() + scale * torch.trace(step @ moment @ step.T)

    best = best / (best * gradient).sum()
    for _ in range(200):
        other = torch.randn(4, 6, generator=generator) + gradient
        other = other / (other * gradient).sum()
        assert cost(best) <= cost(other)


@pytest.mark.parametrize("kind", ["llama_tied", "gpt2"])
@pytest.mark.parametrize("optim", ["adamw_torch", "sgd"])
def test_training_is_a_plain_loop_whose_updates_are_multiplied(tmp_path, kind, optim):
    model = without_dropout(kind)
    units = [unit.name for unit in find_units(model) if unit.info.in_stack][2:4]
    plan = plan_for(model, units)
    trained = {
        name: p
        for unit in find_units(model)
        if unit.name in units
        for name, p in unit.parameters.items()
    }
    names = [name for name in linear_modules(model) if name in trained]
    rows = token_rows(9, 3, 7, 12, 6)
    projections = input_projections(input_covariance(model, rows, names), 5.0)
    trainer = by_trainer(
        tmp_path, model, [InputProjectionCallback(projections)], plan, optim=optim, weight_decay=0.0
    )

    hand = without_dropout(kind).train()
    own = dict(hand.named_parameters())
    parameters = [own[name] for name in trained]
    args = arguments(tmp_path, optim=optim)
    optimizer = (
        torch.optim.SGD(parameters, lr=args.learning_rate)
        if optim == "sgd"
        else torch.optim.AdamW(
            parameters, lr=args.learning_rate, eps=args.adam_epsilon, weight_decay=0.0
        )
    )
    data = Rows()
    for step in range(4):
        batch = [data[i] for i in range(step * 4, step * 4 + 4)]
        ids = torch.stack([row["input_ids"] for row in batch])
        labels = torch.stack([row["labels"] for row in batch])
        gradients = torch.autograd.grad(hand(input_ids=ids, labels=labels).loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        before = {name: own[name].detach().clone() for name in names}
        optimizer.step()
        with torch.no_grad():
            for name in names:
                update = own[name] - before[name]
                if kind == "gpt2":  # (in, out)
                    own[name].copy_(before[name] + (update.T @ projections[name]).T)
                else:
                    own[name].copy_(before[name] + update @ projections[name])
    for name, value in trainer.model.state_dict().items():
        assert torch.allclose(value, hand.state_dict()[name], atol=2e-5), name


def test_a_loop_of_ones_own_can_be_projected():
    model = without_dropout("llama_tied").train()
    names = chosen_weights(model)
    projections = input_projections(input_covariance(model, token_rows(9, 3, 7, 12, 6), names), 5.0)
    weights = {name: dict(model.named_parameters())[name] for name in names}
    optimizer = torch.optim.SGD(weights.values(), lr=0.5)
    projection = InputProjectionCallback(projections)
    for projected in (True, False):
        if projected:
            projection.attach(model, optimizer)
        else:
            projection.remove()
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        ids = Rows()[0]["input_ids"][None]
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        for name, weight in weights.items():
            update = -0.5 * weight.grad
            expected = before[name] + (update @ projections[name] if projected else update)
            torch.testing.assert_close(weight.detach(), expected, rtol=1e-4, atol=1e-6)
        optimizer.zero_grad()


@pytest.mark.slow
def test_answers_on_projected_inputs_stay_where_plain_training_moves_them(tmp_path):
    """What the method is for: reference rows are answered nearly as before, to equal steps."""
    rows = [row[:8] for row in token_rows(*[10] * 6)]
    base = build_model("llama_tied").eval()
    names = chosen_weights(base)
    projections = input_projections(input_covariance(base, rows, names), 1000.0)

    def drift(callbacks):
        model = build_model("llama_tied")
        by_trainer(tmp_path, model, callbacks, plan_for(model), max_steps=6)
        ids = torch.tensor(rows)
        with torch.no_grad():
            return (model.eval()(input_ids=ids).logits - base(input_ids=ids).logits).norm()

    assert drift([InputProjectionCallback(projections)]) < 0.5 * drift([])


SHARDED_SCRIPT = """
import sys
import torch
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
sys.path.insert(0, {tests!r})
from test_methods_projection import *
from test_callback import tiny_tokenizer
from evaluation.studies.rivals.weight_averaging import WeightAveragingCallback
from gradloc.training.methods.extra_loss import starting_weights
from evaluation.studies.rivals.recadam import RecAdamCallback

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
mesh = torch.distributed.init_device_mesh("cpu", (2,))
shards, whole = without_dropout("llama_tied").train(), without_dropout("llama_tied").train()
names = chosen_weights(whole)
# Rank 1 measures something else: what counts is what the first process has measured.
projections = input_projections(input_covariance(whole, token_rows(9, 3, 7, 12, 6), names), 5.0)
mine = projections if rank == 0 else {{name: torch.eye(len(s)) for name, s in projections.items()}}
for layer in shards.model.layers:
    fully_shard(layer, mesh=mesh)
fully_shard(shards, mesh=mesh)
ids = torch.stack([Rows()[i]["input_ids"] for i in range(4)])
for layer in shards.model.layers:
    layer.set_reshard_after_forward(False)  # parts that were whole when the projection was made
tokenizer = tiny_tokenizer()
texts = ["the old fact is here .", "a fact of the new currency"]
for model, given in ((shards, mine), (whole, projections), (shards, None), (whole, None)):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    make = InputProjectionCallback
    callback = make(given) if given else make.from_texts(texts)
    args = SimpleNamespace(deepspeed=None, disable_tqdm=True, process_index=rank)
    callback.on_train_begin(
        args, None, None, model=model, optimizer=optimizer, processing_class=tokenizer
    )
    for _ in range(3):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    callback.remove()
    assert callback.projections
for layer in shards.model.layers:
    layer.reshard()
expected = whole.state_dict()
for name, value in shards.state_dict().items():
    assert isinstance(value, DTensor)
    torch.testing.assert_close(value.full_tensor(), expected[name], rtol=1e-3, atol=1e-4)
assert not torch.allclose(expected[names[0]], without_dropout("llama_tied").state_dict()[names[0]])
# These hold copies of whole weights and must say so instead of mixing them with parts.
for callback in (WeightAveragingCallback(), RecAdamCallback(starting_weights(whole))):
    with pytest.raises(MethodError, match="sharded ones"):
        callback.on_train_begin(
            args, SimpleNamespace(global_step=0, max_steps=3), None, model=shards,
            optimizer=torch.optim.AdamW(shards.parameters()),
        )
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_sharded_weights_are_projected_like_whole_ones(tmp_path):
    """FSDP2 over gloo: two processes with half of each weight train what one trains."""
    script = tmp_path / "script.py"
    script.write_text(SHARDED_SCRIPT.format(tests=str(Path(__file__).parent)))
    run_on_two_processes(script)


@pytest.mark.slow
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path, character_tokenizer):
    def callbacks():
        context = context_for(tmp_path, character_tokenizer)
        return build_method("input_projection").callbacks(context)

    whole, broken = build_model("llama_tied"), build_model("llama_tied")
    plan = plan_for(whole)
    by_trainer(tmp_path / "a", whole, callbacks(), plan, max_steps=6)
    by_trainer(
        tmp_path / "b", broken, callbacks(), plan, max_steps=3, save_strategy="steps", save_steps=3
    )
    again = build_model("llama_tied")
    by_trainer(
        tmp_path / "b", again, callbacks(), plan, str(tmp_path / "b" / "checkpoint-3"), max_steps=6
    )
    for name, value in again.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name


def test_only_the_plans_linear_layers_get_a_projection(tmp_path, character_tokenizer):
    context = context_for(tmp_path, character_tokenizer)
    (callback,) = build_method("input_projection", {"strength": 2.0}).callbacks(context)
    assert sorted(callback.projections) == sorted(chosen_weights(context.model))


def test_of_two_sources_each_counts_the_same_however_much_text_it_has(
    tmp_path, character_tokenizer
):
    context = context_for(tmp_path, character_tokenizer)
    names = chosen_weights(context.model)
    parts = [
        input_covariance(context.model, anchor_rows(context, source, 20), names)
        for source in ("reference", "facts")
    ]
    expected = input_projections(
        {name: (parts[0][name] + parts[1][name]) / 2 for name in names}, 2.0
    )
    options = {"strength": 2.0, "source": ["reference", "facts"], "n_texts": 20}
    (callback,) = build_method("input_projection", options).callbacks(context)
    for name in names:
        assert torch.allclose(callback.projections[name], expected[name], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("facts", [True, False])
def test_a_script_gives_texts_and_gets_the_same_projections(facts, tmp_path, character_tokenizer):
    model = build_model("llama_tied")
    names = chosen_weights(model)
    old = ["The capital of Norway is Oslo.", "Water boils."]
    texts = [old, NEW, *([[passage.text for passage in fact_passages()]] if facts else [])]
    groups = [[character_tokenizer(text)["input_ids"][:16] for text in g] for g in texts]
    moments = [moments_by_hand(build_model("llama_tied"), rows, names) for rows in groups]
    expected = input_projections({n: sum(m[n] for m in moments) / len(groups) for n in names})
    callback = InputProjectionCallback.from_texts(old, NEW, facts=facts, max_length=16)
    by_trainer(
        tmp_path, model, [callback], plan_for(model), max_steps=1, tokenizer=character_tokenizer
    )
    assert sorted(callback.projections) == sorted(names)
    for name in names:
        assert torch.allclose(callback.projections[name], expected[name], atol=1e-4)
    for wrong in ("a text", []):
        with pytest.raises(MethodError, match="lists of texts"):
            InputProjectionCallback.from_texts(wrong)
    with pytest.raises(MethodError, match="processing_class"):
        by_trainer(tmp_path, model, [InputProjectionCallback.from_texts(old)], plan_for(model))


def test_what_cannot_be_projected_is_refused(tmp_path, character_tokenizer):
    for options in ({"strength": 0.0}, {"source": "old"}, {"source": []}, {"n_texts": 0}):
        with pytest.raises(MethodError):
            build_method("input_projection", options)
    model = build_model("llama_tied")
    projections = {"model.layers.0.mlp.up_proj.weight": torch.eye(3)}
    with pytest.raises(MethodError, match="no weight of a linear layer that trains"):
        by_trainer(tmp_path, model, [InputProjectionCallback(projections)], plan_for(model))
    with pytest.raises(MethodError, match="DeepSpeed"):
        InputProjectionCallback({}).on_train_begin(
            SimpleNamespace(deepspeed="zero.json"), None, None, model=model, optimizer=None
        )
    projections = {chosen_weights(model)[0]: torch.eye(3)}
    with pytest.raises(MethodError, match="inputs"):
        by_trainer(tmp_path, model, [InputProjectionCallback(projections)], plan_for(model))
