import json

import pytest
import torch
from conftest import build_model, plan_for
from peft import LoraConfig, get_peft_model
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from gradloc import GradLocCallback
from gradloc.errors import MethodError
from gradloc.models.units import find_units
from gradloc.models.wrappers import canonical_name
from gradloc.training.methods.base import TrainContext
from gradloc.training.methods.lora import Lora, linear_layers
from gradloc.training.methods.method_table import build_method

CHOSEN = ("layers.1.mlp", "layers.2.self_attn")


class Rows(Dataset):
    def __init__(self, n=24):
        self.ids = torch.randint(0, 97, (n, 10), generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return {"input_ids": self.ids[index], "labels": self.ids[index]}


def context_for(model, plan, folder, **changes):
    defaults = dict(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        max_steps=6,
        learning_rate=1e-2,
        weight_decay=0.1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )
    return TrainContext(model, None, plan, TrainingArguments(**defaults | changes))


def train(method, context, resume=None):
    """The steps that training takes with a method that wraps."""
    model = method.wrap(context.model.train(), context)
    callback = GradLocCallback(context.plan)
    trainer = Trainer(
        model=model, args=context.arguments, train_dataset=Rows(), callbacks=[callback]
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer.model, callback


def places_of_adapters(model):
    return {
        canonical_name(name.split(".lora_")[0])
        for name, _ in model.named_parameters()
        if ".lora_" in name
    }


def test_adapters_sit_on_the_linear_layers_of_the_plans_units_and_nowhere_else(tmp_path):
    model = build_model("llama_tied")
    wrapped = Lora(r=2).wrap(model, context_for(model, plan_for(model), tmp_path))
    assert places_of_adapters(wrapped) == {
        *(f"model.layers.1.mlp.{part}_proj" for part in ("gate", "up", "down")),
        *(f"model.layers.2.self_attn.{part}_proj" for part in "qkvo"),
    }
    assert {n for n, p in wrapped.named_parameters() if p.requires_grad} == {
        n for n, _ in wrapped.named_parameters() if ".lora_" in n
    }


def test_names_of_one_block_do_not_match_another_block(tmp_path):
    """PEFT compares ends of names and shortens long lists: block 1 must not bring in block 11."""
    from transformers import LlamaConfig

    config = LlamaConfig(
        vocab_size=97, hidden_size=16, intermediate_size=16, num_attention_heads=2,
        num_key_value_heads=2, num_hidden_layers=12,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    plan = plan_for(model, tuple(f"layers.{i}." for i in (1, 3, 4, 7, 10)))
    expected = set(linear_layers(model, plan))
    assert len(expected) == 5 * 7
    wrapped = Lora(r=2).wrap(model, context_for(model, plan, tmp_path))
    assert places_of_adapters(wrapped) == expected


@pytest.mark.parametrize("kind", ["llama", "gpt2", "neox", "gemma", "qwen"])
def test_on_every_architecture_the_targets_are_its_linear_layers(kind):
    model = build_model(kind)
    found = linear_layers(model, plan_for(model, ("",)))
    units = [u for u in find_units(model) if u.info.in_stack]
    expected = {
        name.removesuffix(".weight")
        for unit in units
        for name, parameter in unit.parameters.items()
        if parameter.dim() == 2
    }
    assert set(found) == expected
    assert len(found) == len(expected)


@pytest.mark.slow
def test_under_the_policy_all_it_is_pefts_own_all_linear(tmp_path):
    model = build_model("llama_tied")
    context = context_for(model, plan_for(model, ("",)), tmp_path)
    trained, _ = train(Lora(r=2, alpha=4), context)
    base = build_model("llama_tied").train()
    torch.manual_seed(0)
    plain = get_peft_model(
        base,
        LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    Trainer(model=plain, args=context.arguments, train_dataset=Rows()).train()
    expected = dict(plain.named_parameters())
    for name, parameter in trained.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"rslora": True}, {"dora": True}, {"dropout": 0.2}])
@pytest.mark.parametrize("kind", ["llama_tied", "gpt2"])
def test_training_moves_adapters_only_and_the_merge_keeps_what_was_learned(tmp_path, kind, options):
    model = build_model(kind)
    parts = CHOSEN if kind == "llama_tied" else ("h.1.mlp", "h.2.attn")
    plan = plan_for(model, parts)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    ids = torch.arange(12)[None]
    context = context_for(model, plan, tmp_path)
    method = Lora(r=2, **options)
    trained, callback = train(method, context)
    assert callback.n_verified >= len(before)
    for name, parameter in trained.named_parameters():
        if "lora_" not in name:
            assert torch.equal(parameter, before[canonical_name(name)])
    with torch.no_grad():
        learned = trained.eval()(ids).logits
        merged = method.finish(trained, context)
        torch.testing.assert_close(merged.eval()(ids).logits, learned, rtol=1e-4, atol=1e-4)
    assert type(merged).__module__.startswith("transformers.")
    # What is saved is an ordinary checkpoint, changed in the plan's units alone.
    merged.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, learned, rtol=1e-4, atol=1e-4)
    changed = {n for n, p in loaded.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert all(any(part in name for part in parts) for name in changed)
    assert all(before[name].dim() == 2 for name in changed)


def test_the_scale_is_alpha_over_r_and_at_rank_stabilised_over_its_root(tmp_path):
    model = build_model("llama")
    for rslora, scale in ((False, 8 / 4), (True, 8 / 4**0.5)):
        method = Lora(r=4, alpha=8, rslora=rslora)
        base = build_model("llama")
        context = context_for(base, plan_for(model, ("layers.1.mlp",)), tmp_path)
        wrapped = method.wrap(base, context)
        layer = wrapped.base_model.model.model.layers[1].mlp.up_proj
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        with torch.no_grad():
            b.normal_()
        expected = layer.base_layer.weight + scale * b @ a
        merged = method.finish(wrapped, context)
        torch.testing.assert_close(merged.model.layers[1].mlp.up_proj.weight, expected)


def test_scales_of_the_plan_act_on_the_adapters_rate(tmp_path):
    """One AdamW step moves B (which starts at 0) by the learning rate times the unit's scale."""
    model = build_model("llama")
    plan = plan_for(model, ("layers.1.mlp",), scale=0.5)
    trained, _ = train(Lora(r=2), context_for(model, plan, tmp_path, max_steps=1))
    b = [p for n, p in trained.named_parameters() if "layers.1.mlp" in n and "lora_B" in n]
    assert len(b) == 3
    for parameter in b:
        assert parameter.abs().max().item() == pytest.approx(0.5e-2, rel=1e-3)


def test_adapters_are_drawn_from_the_trainings_seed_and_leave_random_state_alone(tmp_path):
    drawn = []
    for seed in (0, 0, 1):
        model = build_model("llama")
        torch.manual_seed(99 + len(drawn))
        state = torch.get_rng_state()
        wrapped = Lora(r=2).wrap(model, context_for(model, plan_for(model), tmp_path, seed=seed))
        assert torch.equal(torch.get_rng_state(), state)
        drawn.append(next(p for n, p in wrapped.named_parameters() if "lora_A" in n).clone())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 3}
    results = []
    for folder, resume in (("a", None), ("b", str(tmp_path / "a" / "checkpoint-3"))):
        model = build_model("llama_tied")
        context = context_for(model, plan_for(model), tmp_path / folder, **saving)
        trained, _ = train(Lora(r=2, dropout=0.1), context, resume)
        results.append(Lora(r=2).finish(trained, context))
    saved = json.loads((tmp_path / "a/checkpoint-3/adapter_config.json").read_text())
    assert saved["r"] == 2
    for a, b in zip(*(model.parameters() for model in results), strict=True):
        assert torch.equal(a, b)


def test_a_plan_without_a_place_for_adapters_is_refused():
    model = build_model("llama")
    with pytest.raises(MethodError, match="trains no unit inside the blocks"):
        linear_layers(model, plan_for(model, ("embed_tokens",)))


def test_a_unit_whose_weights_are_no_linear_layer_is_named():
    model = build_model("llama")

    class Product(torch.nn.Module):
        def __init__(self, linear):
            super().__init__()
            self.weight = linear.weight

        def forward(self, hidden):
            return hidden @ self.weight.T

    mlp = model.model.layers[1].mlp
    for part in ("gate_proj", "up_proj", "down_proj"):
        setattr(mlp, part, Product(getattr(mlp, part)))
    with pytest.raises(MethodError, match=r"model\.layers\.1\.mlp has no linear layer"):
        linear_layers(model, plan_for(model))


def test_weights_that_are_not_finite_are_not_merged(tmp_path):
    model = build_model("llama")
    context = context_for(model, plan_for(model), tmp_path)
    wrapped = Lora(r=2).wrap(model, context)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.fill_(float("nan"))
    with pytest.raises(MethodError, match="Lower the learning rate"):
        Lora(r=2).finish(wrapped, context)


@pytest.mark.parametrize(
    ("option", "value"),
    [("r", 0), ("alpha", 0), ("dropout", 1.0)],
)
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(MethodError, match=f"{option} must be"):
        build_method("lora", {option: value})
