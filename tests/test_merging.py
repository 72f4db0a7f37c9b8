import pytest
import torch
from conftest import build_model
from transformers import AutoModelForCausalLM

import gradloc.merging
from gradloc import merge_checkpoints
from gradloc.errors import ModelError, PlanMismatchError
from gradloc.layers import find_units
from gradloc.plan import LayerPlan


@pytest.fixture
def pair(tmp_path):
    base, tuned = build_model("llama_tied", seed=0), build_model("llama_tied", seed=1)
    base.save_pretrained(tmp_path / "base")
    tuned.save_pretrained(tmp_path / "tuned")
    (tmp_path / "tuned" / "training.json").write_text("{}")
    return base, tuned, tmp_path


def plan_with(model, scales):
    units = tuple(unit.info for unit in find_units(model))
    return LayerPlan(scale={u.name: scales.get(u.name, 0.0) for u in units}, units=units)


@pytest.mark.parametrize("shard_bytes", [2**31, 20_000])
def test_each_unit_keeps_its_share_of_the_change(pair, shard_bytes, monkeypatch):
    monkeypatch.setattr(gradloc.merging, "SHARD_BYTES", shard_bytes)
    base, tuned, folder = pair
    scales = {"model.layers.0.mlp": 1.0, "model.layers.2.self_attn": 0.25}
    plan = plan_with(base, scales)
    merge_checkpoints(folder / "base", folder / "tuned", plan, folder / "out")
    merged = AutoModelForCausalLM.from_pretrained(folder / "out")
    theirs = [dict(m.named_parameters()) for m in (base, tuned, merged)]
    for unit in find_units(base):
        scale = scales.get(unit.name, 0.0)
        for name in unit.parameters:
            old, new, got = (parameters[name] for parameters in theirs)
            torch.testing.assert_close(got, old + scale * (new - old))
            if scale in (0, 1):
                assert torch.equal(got, new if scale else old)
    assert not (folder / "out" / "training.json").exists()


def test_the_norm_that_feeds_a_unit_goes_with_it(pair):
    base, tuned, folder = pair
    plan = plan_with(base, {"model.layers.0.mlp": 1.0})
    merge_checkpoints(folder / "base", folder / "tuned", plan, folder / "out")
    merged = AutoModelForCausalLM.from_pretrained(folder / "out")
    layer = merged.model.layers[0]
    expected = tuned.model.layers[0].post_attention_layernorm.weight
    assert torch.equal(layer.post_attention_layernorm.weight, expected)


def test_what_cannot_be_merged_is_refused(pair):
    base, _, folder = pair
    plan = plan_with(base, {})
    with pytest.raises(PlanMismatchError, match="belongs to no unit"):
        other = plan_with(build_model("neox"), {})
        merge_checkpoints(folder / "base", folder / "tuned", other, folder / "o1")
    build_model("neox").save_pretrained(folder / "neox")
    with pytest.raises(ModelError, match="different tensors"):
        merge_checkpoints(folder / "base", folder / "neox", plan, folder / "o2")
    with pytest.raises(ModelError, match="holds files already"):
        merge_checkpoints(folder / "base", folder / "tuned", plan, folder / "base")
    with pytest.raises(ModelError, match="no safetensors"):
        merge_checkpoints(folder, folder / "tuned", plan, folder / "o3")
