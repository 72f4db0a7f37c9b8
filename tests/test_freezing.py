import copy

import pytest
import torch
from conftest import build_model, plan_for
from peft import LoraConfig, get_peft_model

from gradloc import freeze_layers
from gradloc.errors import (
    FrozenParametersChangedError,
    GradlocError,
    PlanMismatchError,
    SelectionError,
)
from gradloc.models.units import find_units
from gradloc.training.freezing import check_trains_something, scale_learning_rates

CHOSEN = "model.layers.1.mlp"


def train(model, optimizer, steps=3, before_step=lambda: None):
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        for _ in range(2):  # accumulation
            ids = torch.randint(0, 97, (2, 8), generator=generator)
            model(input_ids=ids, labels=ids).loss.backward()
        before_step()
        optimizer.step()
        optimizer.zero_grad()


def changed(model, before):
    now = model.state_dict()
    return {name for name in before if not torch.equal(before[name], now[name])}


def parameters_of(model, unit):
    return set(next(u for u in find_units(model) if u.name == unit).parameters)


def test_frozen_stays_frozen_under_decay_momentum_accumulation_and_tied_weights(llama):
    before = copy.deepcopy(llama.state_dict())
    optimizer = torch.optim.AdamW(llama.parameters(), lr=1e-2, weight_decay=0.1)
    train(llama, optimizer, steps=1)  # momentum for every parameter
    before = copy.deepcopy(llama.state_dict())
    optimizer.zero_grad()
    with freeze_layers(llama, plan_for(llama, (CHOSEN,))) as frozen:
        train(llama, optimizer)
        frozen.verify()
        assert changed(llama, before) == parameters_of(llama, CHOSEN)
    assert all(p.requires_grad for p in llama.parameters())


def test_the_same_check_fails_for_zeroed_gradients(llama):
    frozen = freeze_layers(llama, plan_for(llama, (CHOSEN,)))
    optimizer = torch.optim.AdamW(llama.parameters(), lr=1e-2, weight_decay=0.1)
    keep = {id(p) for n, p in llama.named_parameters() if n in parameters_of(llama, CHOSEN)}
    for p in llama.parameters():
        p.requires_grad_(True)

    def zero_the_rest():
        for p in llama.parameters():
            if id(p) not in keep:
                p.grad.zero_()

    train(llama, optimizer, before_step=zero_the_rest)
    with pytest.raises(FrozenParametersChangedError, match="frozen parameters changed"):
        frozen.verify()


def test_no_optimizer_state_and_no_gradient_for_frozen_parameters(llama):
    optimizer = torch.optim.AdamW(llama.parameters(), lr=1e-2)
    freeze_layers(llama, plan_for(llama, (CHOSEN,)))
    train(llama, optimizer)
    names = {n for n, p in llama.named_parameters() if p in optimizer.state}
    assert names == parameters_of(llama, CHOSEN)


def test_a_single_flipped_bit_is_seen(llama):
    frozen = freeze_layers(llama, plan_for(llama, (CHOSEN,)))
    frozen.verify()
    llama.model.norm.weight.data.view(torch.int32)[3] ^= 1
    with pytest.raises(FrozenParametersChangedError, match=r"1 frozen.*model\.norm\.weight"):
        frozen.verify()


def test_restore_gives_the_flags_back_as_they_were(llama):
    llama.model.norm.weight.requires_grad_(False)
    flags = [p.requires_grad for p in llama.parameters()]
    frozen = freeze_layers(llama, plan_for(llama, chosen=(CHOSEN, "model.norm")))
    assert not llama.model.norm.weight.requires_grad  # a plan never unfreezes
    frozen.restore()
    assert [p.requires_grad for p in llama.parameters()] == flags


def test_adapters_follow_the_unit_they_sit_in():
    model = get_peft_model(
        build_model("llama_tied"), LoraConfig(r=2, target_modules=["q_proj", "up_proj"])
    )
    freeze_layers(model, plan_for(model, (CHOSEN,)))
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2
    assert all("layers.1.mlp" in n and "lora_" in n for n in trained)


def test_a_plan_for_another_model_is_refused_before_anything_changes(llama):
    with pytest.raises(PlanMismatchError, match="no unit gpt_neox"):
        freeze_layers(llama, plan_for(build_model("neox"), chosen=()))
    assert all(p.requires_grad for p in llama.parameters())


def test_a_plan_that_trains_nothing_is_refused_for_training(llama):
    with pytest.raises(SelectionError, match="freezes everything"):
        check_trains_something(plan_for(llama, chosen=()))


class Derived(torch.optim.SGD):
    """Its step calls its parent's, which has hooks too once a plain one has been made."""

    def step(self, closure=None):
        return super().step(closure)


class Counting(Derived):
    """It counts its steps in the groups, as schedule-free optimizers do."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["k"] = group.get("k", 0) + 1
        return super().step(closure)


def test_a_step_within_a_step_is_scaled_once():
    ends = []
    for rate, scale in ((1e-2, 0.5), (5e-3, 1.0)):
        model = build_model("llama_tied")
        torch.optim.SGD(model.parameters())
        optimizer = Derived(model.parameters(), lr=rate)
        scale_learning_rates(optimizer, dict.fromkeys(model.parameters(), scale))
        train(model, optimizer)
        ends.append(model)
    for a, b in zip(ends[0].parameters(), ends[1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_optimizer_that_counts_in_its_groups_cannot_be_scaled():
    model = build_model("llama_tied")
    optimizer = Counting(model.parameters(), lr=1e-2)
    scale_learning_rates(optimizer, {p: 0.5 for p in model.model.layers[0].parameters()})
    with pytest.raises(GradlocError, match="Counting counts in its parameter groups"):
        train(model, optimizer)


@pytest.mark.parametrize("fused", [False, True])
def test_scaled_rates_equal_real_parameter_groups(fused):
    models = [build_model("llama_tied"), build_model("llama_tied")]
    half = parameters_of(models[0], "model.layers.0.mlp")
    groups = [
        {"params": [p for n, p in models[0].named_parameters() if n in half], "lr": 0.5e-2},
        {"params": [p for n, p in models[0].named_parameters() if n not in half]},
    ]
    real = torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.1, fused=fused)
    virtual = torch.optim.AdamW(models[1].parameters(), lr=1e-2, weight_decay=0.1, fused=fused)
    scales = {p: 0.5 for n, p in models[1].named_parameters() if n in half}
    hooks = scale_learning_rates(virtual, scales)
    for model, optimizer in zip(models, (real, virtual), strict=True):
        train(model, optimizer)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)
    assert len(virtual.param_groups) == 1
    assert virtual.param_groups[0]["lr"] == 1e-2
    for hook in hooks:
        hook.remove()
