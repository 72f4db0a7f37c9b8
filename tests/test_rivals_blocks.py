"""LISA and BAdam (evaluation/studies/rivals) against plain loops over the blocks awake."""

import functools

import pytest
import torch
from conftest import build_model, plan_for, training_arguments
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback

from evaluation.studies.rivals.badam import BAdamCallback
from evaluation.studies.rivals.lisa import LisaCallback
from gradloc import GradLocCallback
from gradloc.errors import MethodError


class Rows(Dataset):
    def __init__(self, n=48):
        self.ids = torch.randint(0, 97, (n, 10), generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return {"input_ids": self.ids[index], "labels": self.ids[index]}


class Watch(TrainerCallback):
    """The weights after each step, and how many parameters the optimizer holds state for."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.weights = [weights_of(model)]
        self.stateful = []

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
        self.weights.append(weights_of(model))
        self.stateful.append(len(optimizer.optimizer.state))


def weights_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


arguments = functools.partial(
    training_arguments,
    per_device_train_batch_size=2,
    max_steps=9,
    learning_rate=1e-2,
    lr_scheduler_type="constant",
    weight_decay=0.1,
    train_sampling_strategy="sequential",
    seed=3,
)


def train(folder, callbacks, model=None, resume=None, **changes):
    # Double precision: Adam's first step turns rounding of a tiny gradient into a visible step.
    model = (model or build_model("llama")).double().train()
    trainer = Trainer(
        model=model, args=arguments(folder, **changes), train_dataset=Rows(), callbacks=callbacks
    )
    trainer.train(resume_from_checkpoint=resume)
    return model


def block_of(name):
    parts = name.split(".")
    return int(parts[2]) if parts[1] == "layers" else None


def loop(turns, period, *, accumulation=1, clip=1.0, keep_state=False, trains=lambda name: True):
    """Plain AdamW over the parameters that each turn names, written by hand."""
    model = build_model("llama").double().train()
    named = {n: p for n, p in model.named_parameters() if trains(n)}
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    data, read, kept = Rows(), 0, {}
    for awake in turns:
        group = {n: p for n, p in named.items() if awake(n)}
        optimizers = {}
        for name, parameter in group.items():
            parameter.requires_grad_(True)
            decay = 0.0 if "norm" in name else 0.1
            carried = kept.get(name) if keep_state else None
            fresh = torch.optim.AdamW([parameter], lr=1e-2, weight_decay=decay)
            optimizers[name] = carried or fresh
        kept = optimizers
        for _ in range(period):
            for _ in range(accumulation):
                ids = data.ids[read : read + 2]
                (model(input_ids=ids, labels=ids).loss / accumulation).backward()
                read += 2
            torch.nn.utils.clip_grad_norm_(group.values(), clip)
            for optimizer in optimizers.values():
                optimizer.step()
                optimizer.zero_grad()
        for parameter in group.values():
            parameter.requires_grad_(False)
            parameter.grad = None
    return weights_of(model)


def assert_same(model, expected):
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("accumulation", "clip"), [(1, 1.0), (2, 0.05)])
def test_badam_is_a_fresh_adam_over_one_block_after_another(tmp_path, accumulation, clip):
    model = train(
        tmp_path,
        [BAdamCallback(period=2, order="descending")],
        max_steps=8,
        gradient_accumulation_steps=accumulation,
        max_grad_norm=clip,
    )
    turns = [lambda n, b=b: block_of(n) == b for b in (2, 1, 0, 2)]
    assert_same(model, loop(turns, 2, accumulation=accumulation, clip=clip))


def test_badam_inside_a_plan_takes_turns_among_its_blocks_only(tmp_path):
    chosen = ("layers.0.mlp", "layers.2.self_attn")
    plan = plan_for(build_model("llama"), chosen)
    callback = GradLocCallback(plan)
    model = train(
        tmp_path, [callback, BAdamCallback(period=2, order="ascending", ends=True)], max_steps=6
    )
    assert callback.n_verified > 0

    def trains(name):
        norms = ("layers.0.post_attention_layernorm", "layers.2.input_layernorm")
        return any(part in name for part in (*chosen, *norms))

    turns = [lambda n, b=b: block_of(n) == b for b in (0, 2, 0)]
    assert_same(model, loop(turns, 2, trains=trains))


def test_lisa_keeps_state_while_a_block_stays_awake_and_drops_it_at_rest(tmp_path):
    callback = LisaCallback(n_blocks=2, period=2, seed=7)
    drawn = [set(callback.choose(turn, 3, 7)) for turn in range(5)]
    # The draws must hold a block that stays awake and one that comes back after a rest.
    assert any(a & b for a, b in zip(drawn, drawn[1:], strict=False))
    assert any((a & c) - b for a, b, c in zip(drawn, drawn[1:], drawn[2:], strict=False))
    model = train(tmp_path, [callback], max_steps=10)
    turns = [lambda n, d=d: block_of(n) is None or block_of(n) in d for d in drawn]
    assert_same(model, loop(turns, 2, keep_state=True))


@pytest.mark.parametrize(
    ("callback", "ends"),
    [
        (LisaCallback(1, 3), True),
        (LisaCallback(1, 3, ends=False), False),
        (BAdamCallback(3), False),
    ],
)
def test_what_rests_keeps_every_bit_and_holds_no_state(tmp_path, callback, ends):
    watch = Watch()
    model = train(tmp_path, [callback, watch])
    assert all(p.requires_grad for p in model.parameters())
    for step in range(9):
        (awake,) = callback.choose(step // 3, 3, 3)
        before, after = watch.weights[step], watch.weights[step + 1]
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        expected = {n for n in before if block_of(n) == awake or (ends and block_of(n) is None)}
        assert changed == expected
    n_awake = len(expected)
    # BAdam drops everything at the switch after the last step of a turn.
    assert max(watch.stateful) == n_awake


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: LisaCallback(1, 3), lambda: BAdamCallback(3)])
@pytest.mark.parametrize("stop", [3, 4])  # at a switch, and within a turn
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, make, stop):
    plan = plan_for(build_model("llama"), ("layers.0", "layers.1.mlp", "layers.2", "embed"))
    saving = {"save_strategy": "steps", "save_steps": stop}
    whole = train(tmp_path, [GradLocCallback(plan), make()], **saving)
    checkpoint = str(tmp_path / f"checkpoint-{stop}")
    resumed = train(tmp_path / "b", [GradLocCallback(plan), make()], resume=checkpoint, **saving)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_choices_are_a_function_of_seed_and_turn():
    lisa, badam = LisaCallback(2), BAdamCallback()
    assert [lisa.choose(5, 9, 0) for _ in range(2)] == [lisa.choose(5, 9, 0)] * 2
    draws = [tuple(sorted(lisa.choose(turn, 9, 0))) for turn in range(200)]
    assert len(set(draws)) > 30
    assert {block for draw in draws for block in draw} == set(range(9))
    assert all(len(set(draw)) == 2 for draw in draws)
    assert draws != [tuple(sorted(lisa.choose(turn, 9, 1))) for turn in range(200)]
    rounds = [[badam.choose(r * 9 + i, 9, 0)[0] for i in range(9)] for r in range(3)]
    assert all(sorted(found) == list(range(9)) for found in rounds)
    assert len({tuple(found) for found in rounds}) == 3


@pytest.mark.slow
def test_a_plan_with_too_few_blocks_is_refused(tmp_path):
    one = plan_for(build_model("llama"), ("layers.1",))
    with pytest.raises(MethodError, match="1 block trains under this plan"):
        train(tmp_path, [GradLocCallback(one), BAdamCallback(2)])
    two = plan_for(build_model("llama"), ("layers.1", "layers.2.mlp"))
    with pytest.raises(MethodError, match="2 blocks train under this plan and n_blocks is 2"):
        train(tmp_path, [GradLocCallback(two), LisaCallback(2)])
