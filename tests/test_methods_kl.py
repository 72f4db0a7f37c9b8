"""The KL penalty against torch's own, against autograd, and in training against a plain loop."""

import math
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import build_model, plan_for
from hand_training import (
    TEXTS,
    arguments,
    by_hand,
    by_trainer,
    context_for,
    largest_gap,
    moved,
    token_rows,
)
from test_callback import DDP, FSDP2, run_on_two_processes
from torch.nn import functional

from evaluation.studies.rivals.badam import BAdam
from gradloc.data.corpora import fact_passages
from gradloc.errors import MethodError
from gradloc.training.methods import base_targets as base_targets_module
from gradloc.training.methods import coarse_kl as coarse_kl_module
from gradloc.training.methods.base import TrainContext
from gradloc.training.methods.base_targets import BaseTargets, base_targets
from gradloc.training.methods.coarse_kl import coarse_kl
from gradloc.training.methods.extra_loss import planned_parameters
from gradloc.training.methods.method_table import build_method
from gradloc.training.methods.reference_kl import ReferenceKL, ReferenceKLCallback, shuffled

VOCAB = 97
LENGTHS = (5, 9, 2, 7, 9, 4)
ROWS = token_rows(*LENGTHS)


def true_kl(base, model, rows=ROWS):
    """Mean nats a position of KL(base || model), one row at a time, by torch's own function."""
    total, n_positions = 0.0, 0
    for row in rows:
        ids = torch.tensor([row])
        with torch.no_grad():
            p = base(input_ids=ids).logits[0, :-1].log_softmax(-1)
        q = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        total = total + functional.kl_div(q, p, log_target=True, reduction="sum")
        n_positions += len(row) - 1
    return total / n_positions


def explicit_coarse_kl(logits, ids, log_p, log_rest):
    """The coarse divergence of one row, in plain operations on probabilities."""
    q = logits.double().softmax(-1)
    total = 0.0
    for position in range(len(ids)):
        kept = ids[position].tolist()
        rest = [token for token in range(logits.shape[-1]) if token not in kept]
        p_kept, q_kept = log_p[position].double().exp(), q[position, kept]
        total = total + (p_kept * (p_kept / q_kept).log()).sum()
        if rest:
            p_rest, q_rest = log_rest[position].double().exp(), q[position, rest].sum()
            total = total + p_rest * (p_rest / q_rest).log()
    return total


def kl_now(targets, model):
    """Value and gradients by the callback, as one step of a training would have them."""
    callback = ReferenceKLCallback(targets, batch_size=len(targets.rows))
    model.zero_grad()
    args = SimpleNamespace(world_size=1, process_index=0)
    return callback.add_gradients(model, dict(model.named_parameters()), 0, 1.0, args).item()


@pytest.fixture
def changed(llama):
    model = build_model("llama_tied")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("top_k", [0, VOCAB])
def test_with_the_whole_vocabulary_it_is_the_true_divergence(any_model, top_k):
    targets = base_targets(any_model, ROWS, top_k=top_k, batch_size=4)
    base = {name: p.detach().clone() for name, p in any_model.named_parameters()}
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in any_model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    frozen = build_model_like(any_model, base)
    expected = true_kl(frozen, any_model)
    slopes = torch.autograd.grad(expected, list(any_model.parameters()))
    assert expected > 1e-3
    assert math.isclose(kl_now(targets, any_model), expected.item(), rel_tol=1e-4)
    for parameter, slope in zip(any_model.parameters(), slopes, strict=True):
        torch.testing.assert_close(parameter.grad, slope, rtol=1e-3, atol=1e-5)


def build_model_like(model, weights):
    frozen = type(model)(model.config).eval()
    with torch.no_grad():
        for name, parameter in frozen.named_parameters():
            parameter.copy_(weights[name])
    return frozen


def test_it_is_a_lower_bound_that_grows_with_k(llama, changed):
    exact = true_kl(llama, changed).item()
    found = [kl_now(base_targets(llama, ROWS, top_k=k), changed) for k in (1, 2, 8, 32, 96, 97)]
    assert all(low < high for low, high in zip(found[:-2], found[1:-1], strict=True))
    # One token merged with nothing: 96 kept and a rest of one is the whole distribution.
    assert math.isclose(found[-2], found[-1], rel_tol=1e-5)
    assert math.isclose(found[-1], exact, rel_tol=1e-5)


@pytest.mark.parametrize("top_k", [1, 5, 0])
@pytest.mark.parametrize("chunk", [4 * VOCAB * 2, 2**20])
def test_gradient_is_autograds_of_the_explicit_formula(llama, top_k, chunk, monkeypatch):
    monkeypatch.setattr(coarse_kl_module, "CHUNK_BYTES", chunk)
    targets = base_targets(llama, ROWS, top_k=top_k)
    logits = torch.randn(2, 9, VOCAB, generator=torch.Generator().manual_seed(1))
    logits.requires_grad_()
    rows = targets.of_rows([0, 1])  # 4 and 8 of 9 positions count
    expected = sum(explicit_coarse_kl(z, *row) for z, row in zip(logits, rows, strict=True))
    (slopes,) = torch.autograd.grad(expected, logits)
    found = coarse_kl(logits, rows)
    (found_slopes,) = torch.autograd.grad(found * 3.0, logits)
    assert math.isclose(found.item(), expected.item(), rel_tol=1e-5)
    torch.testing.assert_close(found_slopes, 3.0 * slopes, rtol=1e-4, atol=1e-6)
    assert not found_slopes[0, 4:].any()


def test_nothing_is_lost_where_the_rest_is_tiny():
    """A rest below float32's resolution of 1 still has its probability, and no gradient is NaN."""
    logits = torch.tensor([[[0.0, -40.0, -41.0]]], requires_grad=True)
    log_p = logits.detach()[0].log_softmax(-1)
    row = (torch.tensor([[0]]), log_p[:, :1], log_p[:, 1:].logsumexp(-1))
    moved_logits = torch.tensor([[[0.0, -30.0, -41.0]]], requires_grad=True)
    (slopes,) = torch.autograd.grad(coarse_kl(moved_logits, [row]), moved_logits)
    assert torch.isfinite(slopes).all()
    assert math.isclose(slopes[0, 0, 1].item(), math.exp(-30), rel_tol=1e-3)


@pytest.mark.parametrize("kind", ["llama_tied", "gpt2"])
def test_at_the_start_it_is_zero_and_pulls_nowhere(kind):
    model = build_model(kind).train()  # GPT-2 has dropout
    targets = base_targets(model, ROWS, top_k=8)
    state = torch.get_rng_state()
    assert abs(kl_now(targets, model)) < 1e-6
    assert max(p.grad.abs().max().item() for p in model.parameters()) < 1e-5
    assert model.training and torch.equal(state, torch.get_rng_state())


def test_parts_and_batches_do_not_matter(llama, changed, monkeypatch):
    whole = base_targets(llama, ROWS, top_k=6)
    value = kl_now(whole, changed)
    slopes = [p.grad.clone() for p in changed.parameters()]
    monkeypatch.setattr(base_targets_module, "LOGIT_BYTES", 2 * 9 * 4 * VOCAB)
    monkeypatch.setattr(coarse_kl_module, "CHUNK_BYTES", 3 * 4 * VOCAB)
    parts = base_targets(llama, ROWS, top_k=6)
    torch.testing.assert_close(parts.log_probs, whole.log_probs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(parts.log_rest, whole.log_rest, rtol=1e-5, atol=1e-5)
    assert math.isclose(kl_now(parts, changed), value, rel_tol=1e-5)
    for parameter, slope in zip(changed.parameters(), slopes, strict=True):
        torch.testing.assert_close(parameter.grad, slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("top_k", [0, 4])
def test_targets_survive_being_saved(llama, top_k):
    targets = base_targets(llama, ROWS, top_k=top_k)
    again = BaseTargets.from_tensors(targets.to_tensors())
    assert again.rows == targets.rows == tuple(ROWS)
    for one, other in zip(targets.of_rows([4, 0]), again.of_rows([4, 0]), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    n_positions = sum(LENGTHS) - len(LENGTHS)
    kept = targets.to_tensors()
    assert kept["log_probs"].nbytes == n_positions * (top_k or VOCAB) * 4
    assert kept["token_ids"].nbytes == (n_positions * top_k or VOCAB) * 4


# --- in training ---------------------------------------------------------------------------


def penalty(targets_rows, weight, batch_size, every=1):
    """The penalty of a step in plain operations, with a copy of the base model."""
    base = build_model("llama_tied")

    def extra(model, step):
        if (step + 1) % every:
            return 0.0
        size = min(batch_size, len(targets_rows))
        chosen = shuffled(len(targets_rows), step // every * size, size, 0)
        return every * weight * true_kl(base, model, [targets_rows[i] for i in chosen])

    return extra


@pytest.mark.parametrize(
    ("optim", "clip", "accumulation", "frozen"),
    [
        ("adamw_torch", 0.0, 1, False),
        ("adamw_torch", 0.5, 2, True),
        ("sgd", 0.0, 1, True),
        ("sgd", 0.5, 1, False),
        ("sgd", 0.0, 2, False),
        ("sgd", 0.5, 2, True),
    ],
)
def test_training_equals_a_loop_on_the_sum(tmp_path, optim, clip, accumulation, frozen):
    model = build_model("llama_tied")
    plan = plan_for(model) if frozen else None
    targets = base_targets(model, ROWS, top_k=0)
    trainer = by_trainer(
        tmp_path,
        model,
        [ReferenceKLCallback(targets, weight=5.0, batch_size=4)],
        plan,
        optim=optim,
        max_grad_norm=clip,
        per_device_train_batch_size=4 // accumulation,
        gradient_accumulation_steps=accumulation,
    )
    expected = by_hand(
        build_model("llama_tied"), penalty(ROWS, 5.0, 4), plan, optim=optim, clip=clip
    )
    without = by_hand(
        build_model("llama_tied"), lambda model, step: 0.0, plan, optim=optim, clip=clip
    )
    assert largest_gap(model, expected) < 1e-6 < 20e-6 < largest_gap(model, without)
    values = [e["reference_kl_nats"] for e in trainer.state.log_history if "loss" in e]
    assert len(values) == 4 and abs(values[0]) < 1e-6 < values[-1]
    if frozen:
        assert moved(model) == {n for n, p in model.named_parameters() if p.requires_grad}


def test_at_every_other_step_it_is_twice_as_strong(tmp_path):
    model = build_model("llama_tied")
    callback = ReferenceKLCallback(
        base_targets(model, ROWS, top_k=0), weight=5.0, batch_size=4, every=2
    )
    by_trainer(tmp_path, model, [callback], optim="sgd")
    extra = penalty(ROWS, 5.0, 4, every=2)
    assert largest_gap(model, by_hand(build_model("llama_tied"), extra, optim="sgd")) < 1e-6


def test_blocks_that_rest_for_a_while_are_left_alone(tmp_path):
    """With a method that trains blocks in turn, in either order of the callbacks."""
    found = []
    for order in (1, -1):
        model = build_model("llama_tied")
        penalty = ReferenceKLCallback(base_targets(model, ROWS), weight=5.0, batch_size=4)
        turns = BAdam(period=1).callbacks(TrainContext(model, None, None, arguments(tmp_path)))
        by_trainer(tmp_path, model, [*turns, penalty][::order], plan_for(model), max_steps=2)
        found.append(model)
    assert moved(found[0]) == set(planned_parameters(found[0], plan_for(found[0])))
    assert largest_gap(*found) == 0


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path):
    straight = build_model("llama_tied")
    targets = base_targets(straight, ROWS)

    def train(model, resume=None, **changes):
        callback = ReferenceKLCallback(targets, weight=5.0, batch_size=4)
        return by_trainer(tmp_path, model, [callback], plan_for(model), resume, **changes)

    train(straight, save_strategy="steps", save_steps=2)
    again = build_model("llama_tied")
    train(again, resume=str(tmp_path / "checkpoint-2"))
    assert largest_gap(straight, again) == 0


def test_the_order_visits_every_text_before_any_again():
    order = shuffled(5, 0, 25, seed=1)
    assert all(sorted(order[e : e + 5]) == list(range(5)) for e in range(0, 25, 5))
    assert len({tuple(order[e : e + 5]) for e in range(0, 25, 5)}) > 1
    assert shuffled(5, 7, 6, seed=1) == order[7:13]
    assert shuffled(5, 0, 25, seed=2) != order


# --- from texts ------------------------------------------------------------------------------


@pytest.mark.slow
def test_from_texts_it_trains_against_what_the_model_predicted_at_the_start(
    tmp_path, character_tokenizer
):
    """As with targets recorded by hand; resumed as well, where the weights have moved."""

    def train(model, callback, resume=None, **changes):
        plan = plan_for(model)
        by_trainer(tmp_path, model, [callback], plan, resume, character_tokenizer, **changes)

    def asked():
        options = dict(weight=5.0, batch_size=2, top_k=8, max_length=16, seed=3)
        return ReferenceKLCallback.from_texts(TEXTS, **options)

    by_hand = build_model("llama_tied")
    drawn = random.Random(3).sample(TEXTS, len(TEXTS))
    rows = [tuple(character_tokenizer(text)["input_ids"][:16]) for text in drawn]
    targets = base_targets(by_hand, [row for row in rows if len(row) > 1], top_k=8)
    train(by_hand, ReferenceKLCallback(targets, weight=5.0, batch_size=2, seed=3))
    straight, resumed = build_model("llama_tied"), build_model("llama_tied")
    train(straight, asked(), save_strategy="steps", save_steps=2)
    checkpoint = (tmp_path / "checkpoint-2").rename(tmp_path / "kept")
    train(resumed, asked(), resume=str(checkpoint))
    assert largest_gap(straight, by_hand) == 0
    assert largest_gap(straight, resumed) == 0
    (checkpoint / "reference_kl.safetensors").unlink()
    with pytest.raises(MethodError, match="what the base model predicted"):
        train(build_model("llama_tied"), asked(), resume=str(checkpoint))


def test_without_texts_it_holds_to_the_shipped_facts(tmp_path, character_tokenizer):
    model = build_model("llama_tied")
    callback = ReferenceKLCallback.from_texts(batch_size=2, top_k=4, max_length=12, n_texts=5)
    by_trainer(tmp_path, model, [callback], tokenizer=character_tokenizer, max_steps=1)
    shipped = {tuple(character_tokenizer(p.text)["input_ids"][:12]) for p in fact_passages()}
    assert len(callback.targets.rows) == 5 and set(callback.targets.rows) <= shipped


def test_what_cannot_be_recorded_is_refused(tmp_path):
    for wrong in ("one text", []):
        with pytest.raises(MethodError, match="list of texts"):
            ReferenceKLCallback.from_texts(wrong)
    with pytest.raises(MethodError, match="n_texts"):
        ReferenceKLCallback.from_texts(n_texts=0)
    with pytest.raises(MethodError, match="processing_class"):
        by_trainer(tmp_path, build_model("llama_tied"), [ReferenceKLCallback.from_texts()])


# --- as a method ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("source", ["reference", "facts"])
def test_the_method_records_the_base_and_trains_against_it(tmp_path, character_tokenizer, source):
    options = {"source": source, "n_texts": 5, "top_k": 8, "batch_size": 2, "weight": 2.0}
    method = build_method("reference_kl", options)
    context = context_for(tmp_path, character_tokenizer)
    method.prepare(context)
    (callback,) = method.callbacks(context)
    assert (callback.weight, callback.batch_size, callback.seed) == (2.0, 2, 0)
    assert callback.targets.log_probs.shape[1] == 8
    if source == "reference":
        # One token a character; the text of one token has nothing to predict.
        expected = {tuple(ord(c) - 32 for c in text[:16]) for text in TEXTS if len(text) > 1}
        assert set(callback.targets.rows) == expected and len(expected) == 3
    else:
        assert [len(row) for row in callback.targets.rows] == [16] * 5
    by_trainer(tmp_path, context.model, [callback], context.plan, max_steps=2)
    # What a resumed training records, on the same base, is the same.
    fresh = context_for(tmp_path, character_tokenizer)
    method.prepare(fresh)
    assert torch.equal(method.callbacks(fresh)[0].targets.log_probs, callback.targets.log_probs)


@pytest.mark.parametrize(
    "wrong",
    [{"weight": 0}, {"batch_size": 0}, {"source": "web"}, {"top_k": -1}, {"every": 0}],
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(MethodError, match=next(iter(wrong))):
        build_method("reference_kl", wrong)


def test_no_texts_and_too_large_targets_are_refused(
    tmp_path, character_tokenizer, llama, monkeypatch
):
    with pytest.raises(MethodError, match="source: facts"):
        ReferenceKL().prepare(context_for(tmp_path, character_tokenizer, reference=()))
    with pytest.raises(MethodError, match="no token rows"):
        base_targets(llama, [])
    monkeypatch.setattr(base_targets_module, "EXACT_BYTES", 1000)
    with pytest.raises(MethodError, match="Give a top_k"):
        base_targets(llama, ROWS, top_k=0)
    base_targets(llama, ROWS, top_k=2)


TWO_PROCESSES = """
import sys, torch
sys.path.insert(0, {tests!r})
import hand_training
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from conftest import build_model
from conftest import plan_for
from hand_training import by_trainer, token_rows
from gradloc.training.methods.base_targets import base_targets
from gradloc.training.methods.method_table import build_method
from gradloc.training.methods.reference_kl import ReferenceKLCallback

if {sharded}:
    arguments = hand_training.arguments

    def sharding_arguments(*args, **kwargs):
        found = arguments(*args, **kwargs)
        assert found.device.type == "cpu"  # looking makes the state that is changed now
        # accelerate shards on accelerators alone, but FSDP2 over gloo does so on CPUs as well.
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        return found

    hand_training.arguments = sharding_arguments
model = build_model("llama_tied").train()
targets = base_targets(model, token_rows(*[6] * 8), top_k=0)
callback = ReferenceKLCallback(targets, weight=5.0, batch_size=2)
trainer = by_trainer({folder!r}, model, [callback], plan_for(model), optim="sgd",
                     per_device_train_batch_size=2 // {accumulation},
                     gradient_accumulation_steps={accumulation}, ddp_backend="gloo", **{settings})
assert torch.distributed.get_world_size() == 2
parameters = dict(model.named_parameters())
assert all(hasattr(p, "full_tensor") for p in parameters.values()) is {sharded}
weights = {{n: p.full_tensor() if {sharded} else p.detach() for n, p in parameters.items()}}
mine = torch.cat([weight.flatten() for weight in weights.values()])
theirs = [torch.empty_like(mine) for _ in range(2)]
torch.distributed.all_gather(theirs, mine)
assert torch.equal(*theirs), "ranks diverged"
if trainer.is_world_process_zero():
    torch.save(weights, {folder!r} + "/weights.pt")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sharded", "settings", "accumulation"), [(False, DDP, 1), (True, FSDP2, 1), (True, FSDP2, 2)]
)
def test_two_processes_train_as_one_on_all_their_texts(tmp_path, sharded, settings, accumulation):
    """DDP and FSDP2 average the penalty's gradients; each process takes other texts."""
    script, folder = tmp_path / "script.py", tmp_path / "two"
    folder.mkdir()
    script.write_text(
        TWO_PROCESSES.format(
            tests=str(Path(__file__).parent),
            folder=str(folder),
            sharded=sharded,
            settings=settings,
            accumulation=accumulation,
        )
    )
    run_on_two_processes(script)
    single = build_model("llama_tied")
    targets = base_targets(single, token_rows(*[6] * 8), top_k=0)
    callback = ReferenceKLCallback(targets, weight=5.0, batch_size=4)
    changes = dict(
        per_device_train_batch_size=4 // accumulation, gradient_accumulation_steps=accumulation
    )
    by_trainer(tmp_path / "one", single, [callback], plan_for(single), optim="sgd", **changes)
    together = build_model("llama_tied")
    with torch.no_grad():
        for name, weight in torch.load(folder / "weights.pt").items():
            together.get_parameter(name).copy_(weight)
    without = by_trainer(
        tmp_path / "without", build_model("llama_tied"), [], plan_for(single), optim="sgd"
    ).model
    assert largest_gap(together, single) < 1e-6 < 20e-6 < largest_gap(together, without)


def test_without_preparation_the_callback_records_the_texts_of_its_source(
    tmp_path, character_tokenizer
):
    context = context_for(tmp_path, character_tokenizer)
    method = build_method("reference_kl", {"source": "reference", "n_texts": 5, "every": 2})
    (late,) = method.callbacks(context)
    assert late.targets is None and late.every == 2
    late.record(context.model)
    method.prepare(context)
    (early,) = method.callbacks(context)
    assert late.targets.rows == early.targets.rows
    assert torch.equal(late.targets.log_probs, early.targets.log_probs)
