"""Merging folders: what is written, what is refused, and in how much memory."""

import json
import re

import psutil
import pytest
import torch
from conftest import build_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from gradloc.errors import ModelError, PlanMismatchError
from gradloc.localization.plan import LayerPlan
from gradloc.models.units import find_units
from gradloc.training.merging import Checkpoint, merge_checkpoints
from gradloc.utils.memory import PeakMemory


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


def merged_tensors(folder):
    return {name: t for file in folder.glob("*.safetensors") for name, t in load_file(file).items()}


SCALES = {"model.layers.0.mlp": 1.0, "model.layers.2.self_attn": 0.25}


@pytest.mark.parametrize("shard_bytes", [2**31, 20_000])
def test_each_unit_keeps_its_share_of_the_change(pair, shard_bytes):
    base, tuned, folder = pair
    plan = plan_with(base, SCALES)
    merge_checkpoints(
        folder / "base", folder / "tuned", plan, folder / "out", shard_bytes=shard_bytes
    )
    merged = AutoModelForCausalLM.from_pretrained(folder / "out")
    theirs = [dict(m.named_parameters()) for m in (base, tuned, merged)]
    for unit in find_units(base):
        scale = SCALES.get(unit.name, 0.0)
        for name in unit.parameters:
            old, new, got = (parameters[name] for parameters in theirs)
            torch.testing.assert_close(got, old + scale * (new - old))
            if scale in (0, 1):
                assert torch.equal(got, new if scale else old)
    assert not (folder / "out" / "training.json").exists()
    assert LayerPlan.load(folder / "out" / "plan.json") == plan
    assert [path.name for path in folder.glob(".*")] == [], "nothing temporary is left"


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
    with pytest.raises(PlanMismatchError, match="says nothing of tensor"):
        other = plan_with(build_model("neox"), {})
        merge_checkpoints(folder / "base", folder / "tuned", other, folder / "o1")
    build_model("neox").save_pretrained(folder / "neox")
    with pytest.raises(ModelError, match="different tensors"):
        merge_checkpoints(folder / "base", folder / "neox", plan, folder / "o2")
    with pytest.raises(ModelError, match="holds files already"):
        merge_checkpoints(folder / "base", folder / "tuned", plan, folder / "base")
    with pytest.raises(ModelError, match="no safetensors"):
        merge_checkpoints(folder, folder / "tuned", plan, folder / "o3")
    for bad in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ModelError, match="finite number"):
            merge_checkpoints(folder / "base", folder / "tuned", bad, folder / "o4")
        with pytest.raises(ModelError, match="finite number"):
            merge_checkpoints(
                folder / "base", folder / "tuned", plan, folder / "o4", default_scale=bad
            )
    assert not any((folder / f"o{i}").exists() for i in range(1, 5))


def test_one_number_scales_everything_and_leaves_no_plan(pair):
    base, tuned, folder = pair
    plan_with(base, {}).save(folder / "tuned" / "plan.json")  # the plan it was trained under
    merge_checkpoints(folder / "base", folder / "tuned", 0.7, folder / "out")
    merged = AutoModelForCausalLM.from_pretrained(folder / "out")
    for old, new, got in zip(*(m.parameters() for m in (base, tuned, merged)), strict=True):
        torch.testing.assert_close(got, 0.3 * old + 0.7 * new)
    assert not (folder / "out" / "plan.json").exists()


def test_what_a_short_plan_leaves_out_gets_the_default(pair):
    base, tuned, folder = pair
    plan = LayerPlan(scale={"model.layers.1.mlp": 0.5})
    arguments = (folder / "base", folder / "tuned", plan)
    with pytest.raises(PlanMismatchError, match="default scale"):
        merge_checkpoints(*arguments, folder / "o1")
    merge_checkpoints(*arguments, folder / "o2", default_scale=1)
    got = merged_tensors(folder / "o2")
    for name, new in tuned.named_parameters():
        old = dict(base.named_parameters())[name]
        # A plan by hand knows no members, so the norm before the MLP is not in it.
        expected = (old + new) / 2 if name.startswith("model.layers.1.mlp.") else new
        torch.testing.assert_close(got[name], expected.data)


def test_a_failure_half_way_leaves_no_folder(pair, monkeypatch):
    base, _, folder = pair
    arguments = (folder / "base", folder / "tuned", plan_with(base, {}), folder / "out")
    read, calls = Checkpoint.__getitem__, []

    def breaking(self, name):
        calls.append(name)
        if len(calls) > 5:
            raise OSError(28, "No space left on device")
        return read(self, name)

    monkeypatch.setattr(Checkpoint, "__getitem__", breaking)
    with pytest.raises(OSError):
        merge_checkpoints(*arguments)
    assert sorted(path.name for path in folder.iterdir()) == ["base", "tuned"]
    monkeypatch.undo()
    (folder / ".out.partial").mkdir()  # as a killed merge leaves it
    (folder / ".out.partial" / "model.safetensors").write_bytes(b"half")
    merge_checkpoints(*arguments)
    assert sorted(path.name for path in folder.iterdir()) == ["base", "out", "tuned"]


def test_a_trainers_state_stays_behind(pair):
    base, _, folder = pair
    for name in ("optimizer.pt", "training_args.bin", "trainer_state.json", "chat_template.jinja"):
        (folder / "tuned" / name).write_text("")
    merge_checkpoints(folder / "base", folder / "tuned", 1, folder / "out")
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize("sharded", ["base", "tuned"])
def test_shards_are_read(pair, sharded):
    base, tuned, folder = pair
    merge_checkpoints(folder / "base", folder / "tuned", 0.25, folder / "whole")
    model = base if sharded == "base" else tuned
    model.save_pretrained(folder / "shards", max_shard_size="20KB")
    assert len(list((folder / "shards").glob("*.safetensors"))) > 1
    sides = {"base": folder / "base", "tuned": folder / "tuned"} | {sharded: folder / "shards"}
    merge_checkpoints(sides["base"], sides["tuned"], 0.25, folder / "out")
    expected, got = merged_tensors(folder / "whole"), merged_tensors(folder / "out")
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


@pytest.mark.parametrize("stored_in", [("base",), ("tuned",), ("base", "tuned")])
def test_a_tied_head_that_was_stored_is_left_out(pair, stored_in):
    base, tuned, folder = pair
    for side in stored_in:
        file = folder / side / "model.safetensors"
        tensors = load_file(file)
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, file, metadata={"format": "pt"})
    plan = plan_with(base, {"model.embed_tokens": 0.5})
    merge_checkpoints(folder / "base", folder / "tuned", plan, folder / "out")
    merged = AutoModelForCausalLM.from_pretrained(folder / "out")
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    old, new = base.lm_head.weight, tuned.lm_head.weight
    torch.testing.assert_close(merged.lm_head.weight, (old + new) / 2)


def test_a_head_of_its_own_is_not_taken_for_a_tied_one(pair):
    base, _, folder = pair
    file = folder / "tuned" / "model.safetensors"
    tensors = load_file(file)
    head = tensors["model.embed_tokens.weight"].clone()
    head[-1, -1] += 1e-3
    save_file(tensors | {"lm_head.weight": head}, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=re.escape("lm_head.weight, 1 in all")):
        merge_checkpoints(folder / "base", folder / "tuned", plan_with(base, {}), folder / "out")
    untied = build_model("llama")
    with torch.no_grad():
        untied.lm_head.weight.copy_(untied.model.embed_tokens.weight)
    untied.save_pretrained(folder / "untied")
    merge_checkpoints(folder / "untied", folder / "untied", plan_with(untied, {}), folder / "out")
    assert "lm_head.weight" in merged_tensors(folder / "out")


def test_a_bfloat16_sum_is_rounded_once(pair):
    """A float32 base under a bfloat16 tuned model is not rounded before the sum."""
    base, tuned, folder = pair
    tuned.bfloat16().save_pretrained(folder / "half")
    merge_checkpoints(folder / "base", folder / "half", 0.3, folder / "out")
    got = merged_tensors(folder / "out")
    for (name, old), new in zip(base.named_parameters(), tuned.parameters(), strict=True):
        exact = old.double() + 0.3 * (new.double() - old.double())
        assert got[name].dtype == torch.bfloat16
        # Half a unit in the last of eight places; float32's rounding shows where the two cancel.
        room = exact.abs() * 2**-8 + 1e-6 * (old.abs() + new.abs())
        assert ((got[name].double() - exact).abs() <= room).all()


def test_what_is_undone_or_kept_whole_takes_nothing_from_the_other_side(pair):
    """A checkpoint that diverged can be undone unit by unit: 0 times infinity is not 0."""
    base, tuned, folder = pair
    first, second = (f"model.layers.{i}.mlp.up_proj.weight" for i in (0, 1))
    with torch.no_grad():
        dict(tuned.named_parameters())[first][0, 0] = float("inf")
        dict(base.named_parameters())[second][0, 0] = float("inf")
    base.save_pretrained(folder / "base")
    tuned.save_pretrained(folder / "tuned")
    plan = plan_with(base, {"model.layers.1.mlp": 1.0})
    merge_checkpoints(folder / "base", folder / "tuned", plan, folder / "out")
    got = merged_tensors(folder / "out")
    assert torch.equal(got[first], dict(base.named_parameters())[first])
    assert torch.equal(got[second], dict(tuned.named_parameters())[second])


def test_a_base_that_is_no_folder_of_weights_is_loaded(pair):
    from peft import LoraConfig, get_peft_model

    base, _, folder = pair
    base.config._name_or_path = base.name_or_path = str(folder / "base")
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["down_proj"]))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora" in name:
                parameter.normal_()
    adapted.save_pretrained(folder / "adapter")
    merge_checkpoints(folder / "adapter", folder / "tuned", 0.5, folder / "out")
    old = adapted.merge_and_unload().state_dict()
    new, got = merged_tensors(folder / "tuned"), merged_tensors(folder / "out")
    for name in got:
        torch.testing.assert_close(got[name], (old[name] + new[name]) / 2)
    assert sorted(path.name for path in folder.iterdir()) == ["adapter", "base", "out", "tuned"]


def write_zeros(folder, rows):
    """A checkpoint of float32 tensors (rows, 1000) that takes no disk: a hole behind a header."""
    entries, at = {}, 0
    for i, n in enumerate(rows):
        end = at + 4_000 * n
        entries[f"t{i}"] = {"dtype": "F32", "shape": [n, 1_000], "data_offsets": [at, end]}
        at = end
    header = json.dumps(entries).encode()
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + at)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_model(tmp_path):
    """Two checkpoints of 300 MB, merged into files of 60 MB, need a few such files."""
    for side in ("base", "tuned"):
        write_zeros(tmp_path / side, [7_500] * 10)
        write_zeros(tmp_path / f"small_{side}", [10])
    merge_checkpoints(tmp_path / "small_base", tmp_path / "small_tuned", 0.5, tmp_path / "warm")
    with PeakMemory() as peak:
        before = psutil.Process().memory_info().rss / 2**20
        merge_checkpoints(
            tmp_path / "base", tmp_path / "tuned", 0.5, tmp_path / "out", shard_bytes=60 * 10**6
        )
    sizes = [file.stat().st_size for file in (tmp_path / "out").glob("*.safetensors")]
    assert len(sizes) == 5 and sum(sizes) > 300e6
    assert peak.mib - before < 180


def test_the_command(gradloc, pair):
    base, _, folder = pair
    sides, out = (folder / "base", folder / "tuned"), folder / "out"
    code, text, err = gradloc("merge", *sides, "--interpolation", "1.5", "--out", out)
    assert code == 0 and text.strip() == str(out), err
    plan_with(base, SCALES).save(folder / "plan.json")
    again = folder / "again"
    code, text, _ = gradloc(
        "merge", *sides, "--plan", folder / "plan.json", "--out", again, "--json"
    )
    assert code == 0 and json.loads(text) == {"checkpoint": str(again)}
    for wrong, message in (
        ((), "found neither"),
        (("--interpolation", 1, "--plan", "p"), "found both"),
        (("--interpolation", 70), "--interpolation 70 goes 70 times as far as TUNED"),
        (("--plan", "p", "--default-scale", 70), "for 70 % write 0.7"),
        (("--interpolation", 1, "--out", out), "holds files already"),
    ):
        code, _, err = gradloc("merge", *sides, "--out", folder / "no", *wrong)
        assert code == 2 and message in err, err
