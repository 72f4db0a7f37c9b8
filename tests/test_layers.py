import pytest
import torch
from conftest import CONFIGS, build_model
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    Gemma2Config,
    MixtralConfig,
    OPTConfig,
    T5Config,
)

from gradloc.errors import UnitsError
from gradloc.models.architecture import model_shape
from gradloc.models.units import find_units
from gradloc.models.wrappers import canonical_name, evaluation_mode


@pytest.mark.parametrize("granularity", ["sublayer", "block"])
def test_every_parameter_is_in_exactly_one_unit(any_model, granularity):
    units = find_units(any_model, granularity)
    members = [id(p) for unit in units for p in unit.parameters.values()]
    assert sorted(members) == sorted(id(p) for p in any_model.parameters())
    assert sum(u.info.n_parameters for u in units) == sum(p.numel() for p in any_model.parameters())


@pytest.mark.parametrize(
    ("kind", "attention", "mlp", "attention_norms", "mlp_norms"),
    [
        (
            "llama",
            "model.layers.1.self_attn",
            "model.layers.1.mlp",
            {"input_layernorm"},
            {"post_attention_layernorm"},
        ),
        ("gpt2", "transformer.h.1.attn", "transformer.h.1.mlp", {"ln_1"}, {"ln_2"}),
        (
            "neox",
            "gpt_neox.layers.1.attention",
            "gpt_neox.layers.1.mlp",
            {"input_layernorm"},
            {"post_attention_layernorm"},
        ),
        (
            "gemma",
            "model.layers.1.self_attn",
            "model.layers.1.mlp",
            {"input_layernorm", "post_attention_layernorm"},
            {"pre_feedforward_layernorm", "post_feedforward_layernorm"},
        ),
    ],
)
def test_a_norm_goes_with_the_sublayer_it_feeds(kind, attention, mlp, attention_norms, mlp_norms):
    units = {unit.name: unit for unit in find_units(build_model(kind))}

    def norms(unit):
        children = {name.split(".")[-2] for name in units[unit].parameters}
        return {child for child in children if "norm" in child or child.startswith("ln_")}

    assert norms(attention) == attention_norms
    assert norms(mlp) == mlp_norms
    assert (units[attention].info.kind, units[attention].info.block) == ("attention", 1)
    assert (units[mlp].info.kind, units[mlp].info.block) == ("mlp", 1)


def test_modules_outside_the_stack_are_units_of_their_own():
    kinds = {u.name: u.info.kind for u in find_units(build_model("llama")) if u.info.block is None}
    assert kinds == {"model.embed_tokens": "embedding", "model.norm": "norm", "lm_head": "head"}
    kinds = {u.name: u.info.kind for u in find_units(build_model("gpt2")) if u.info.block is None}
    assert kinds == {
        "transformer.wte": "embedding",
        "transformer.wpe": "embedding",
        "transformer.ln_f": "norm",
    }


def test_a_two_part_mlp_is_one_unit_that_names_both():
    config = OPTConfig(
        vocab_size=97,
        hidden_size=32,
        ffn_dim=48,
        num_attention_heads=4,
        num_hidden_layers=2,
        max_position_embeddings=64,
        word_embed_proj_dim=32,
    )
    units = {u.name: u for u in find_units(AutoModelForCausalLM.from_config(config))}
    mlp = units["model.decoder.layers.0.fc1+fc2"]
    assert {name.split(".")[-2] for name in mlp.parameters} == {"fc1", "fc2", "final_layer_norm"}


def test_experts_as_many_as_blocks_do_not_confuse_the_stack():
    config = MixtralConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_hidden_layers=4,
        num_local_experts=4,
        max_position_embeddings=64,
    )
    units = find_units(AutoModelForCausalLM.from_config(config))
    assert sum(u.info.kind == "mlp" for u in units) == 4


def test_layer_one_is_not_layer_ten():
    torch.manual_seed(0)
    config = CONFIGS["llama"].to_dict() | {"num_hidden_layers": 12}
    model = AutoModelForCausalLM.from_config(type(CONFIGS["llama"])(**config))
    units = {u.name: u for u in find_units(model, "block")}
    assert all(name.startswith("model.layers.1.") for name in units["model.layers.1"].parameters)


def test_no_unique_stack_is_refused_with_what_was_found():
    config = T5Config(vocab_size=97, d_model=32, d_ff=48, d_kv=8, num_layers=2, num_heads=4)
    with pytest.raises(UnitsError, match=r"found encoder\.block, decoder\.block"):
        find_units(AutoModelForSeq2SeqLM.from_config(config))
    with pytest.raises(UnitsError, match="no Transformers configuration"):
        find_units(nn.Linear(2, 2))


def test_peft_wrapping_changes_no_name_and_no_size():
    plain = find_units(build_model("llama"))
    wrapped = get_peft_model(
        build_model("llama"), LoraConfig(r=2, target_modules=["q_proj", "up_proj"])
    )
    units = find_units(wrapped)
    assert [u.info for u in units] == [u.info for u in plain]
    assert [list(u.parameters) for u in units] == [list(u.parameters) for u in plain]
    adapters = {name for u in units for name in u.adapters}
    assert len(adapters) == 3 * 2 * 2  # blocks x modules x (A, B)
    assert all("lora_" in name for name in adapters)


def test_looking_changes_nothing():
    model = build_model("gpt2").train()
    model.transformer.h[1].eval()
    modes = [m.training for m in model.modules()]
    before = torch.get_rng_state()
    find_units(model)
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_evaluation_mode_hides_its_random_numbers():
    model = build_model("gpt2").train()
    before = torch.get_rng_state()
    with evaluation_mode(model):
        assert not model.training
        torch.rand(3)
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_canonical_names():
    assert canonical_name("module._orig_mod.model.layers.0.mlp.w") == "model.layers.0.mlp.w"
    assert canonical_name("base_model.model.lm_head.original_module.weight") == "lm_head.weight"


def test_model_shape_uses_the_head_size_of_the_config():
    shape = model_shape(build_model("gemma"))
    assert shape["kv_size"] == 16
    assert shape["n_blocks"] == CONFIGS["gemma"].num_hidden_layers
    assert isinstance(CONFIGS["gemma"], Gemma2Config)
