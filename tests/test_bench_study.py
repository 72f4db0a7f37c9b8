"""Arms of the benchmark's study (evaluation/studies/bench.py) train what they say."""

import copy
import json
import sys
from dataclasses import replace

import bench
import pytest
import torch
from conftest import training_arguments
from test_bench import changed, config_of, folder, model  # noqa: F401  (two fixtures)
from transformers import TrainerCallback

from gradloc import GradLocCallback
from gradloc.errors import GradlocError
from gradloc.experiments.bench_runs import fill_cache, run_arm

ARMS = (
    "full", "full_bf16", "top1", "top1_cached", "top1_cached_bf16", "top1_cached_bf16_frozen",
    "middle1", "middle1_cached", "scattered1", "bottom1", "lora_r16", "masking",
    "callback_overhead",
)  # fmt: skip


@pytest.mark.slow
def test_every_arm_runs(folder, tmp_path, capsys):  # noqa: F811
    sizes = "--k 1 --batch-size 2 --sequence-length 8 --turns 1 --steps 1 --memory-repeats 0"
    out = tmp_path / "bench.json"
    bench.main([str(folder), "--arms", *ARMS, *sizes.split(), "--out", str(out)])
    result = json.loads(out.read_text())
    assert tuple(result["arms"]) == ARMS
    assert "top1_cached_bf16_frozen" in capsys.readouterr().out
    predicted = {name: arm["predicted"]["time_ratio"] for name, arm in result["arms"].items()}
    assert {name for name, value in predicted.items() if value is None} == {
        "full_bf16", "top1_cached_bf16", "top1_cached_bf16_frozen", "lora_r16", "masking",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("top1", "model.layers.3."),
        ("middle1", "model.layers.1."),
        ("bottom1", "model.layers.0."),
        ("scattered1", "model.layers.2."),
        ("top1_cached_bf16", "model.layers.3."),
        ("callback_overhead", "model."),
    ],
)
def test_an_arm_changes_what_it_trains(folder, model, tmp_path, name, trained):  # noqa: F811
    config, mine = config_of(folder), copy.deepcopy(model)
    arm = bench.research_arms(1, (name,), model, tmp_path)[name]
    if arm.cached:
        fill_cache(arm, copy.deepcopy(model), config)
    run_arm(arm, mine, config, seed=0)
    assert changed(model, mine) == {n for n, _ in model.named_parameters() if n.startswith(trained)}


@pytest.mark.slow
def test_masking_computes_all_gradients_and_moves_the_top_only(folder, model, tmp_path):  # noqa: F811
    arm = bench.research_arms(1, ("masking",), model, tmp_path)["masking"]
    states, mine = [], copy.deepcopy(model)

    class Count(TrainerCallback):
        def on_step_end(self, args, state, control, optimizer=None, **kwargs):
            states.append(len(optimizer.optimizer.state))

    def counted(**given):
        trainer = arm.trainer(**given)
        trainer.add_callback(Count())
        return trainer

    run_arm(replace(arm, trainer=counted), mine, config_of(folder), seed=0)
    assert states[-1] == len(list(model.parameters())), "Adam's state exists for everything"
    # no weight decay by default, and a zero gradient moves nothing
    assert changed(model, mine) == {n for n, _ in model.named_parameters() if ".layers.3." in n}


@pytest.mark.slow
def test_only_bf16_arms_compute_in_bfloat16(folder, model, tmp_path):  # noqa: F811
    arms, seen = bench.research_arms(1, ARMS, model, tmp_path), {}
    for name in ("full", "full_bf16", "full"):
        mine = copy.deepcopy(model)
        projection = mine.model.layers[0].mlp.up_proj
        projection.register_forward_hook(lambda m, a, out, n=name: seen.update({n: out.dtype}))
        run_arm(arms[name], mine, config_of(folder), seed=0)
    assert seen == {"full": torch.float32, "full_bf16": torch.bfloat16}
    for name, whole, parts in (
        ("top1_cached_bf16", True, None),
        ("top1_cached_bf16_frozen", False, ["prefix", "head"]),
    ):
        args = training_arguments(tmp_path)
        trainer = arms[name].trainer(model=copy.deepcopy(model), args=args)
        (callback,) = [
            c for c in trainer.callback_handler.callbacks if isinstance(c, GradLocCallback)
        ]
        assert (trainer.args.bf16, callback.config.bfloat16) == (whole, parts)


def test_what_cannot_run_is_named(folder, model, tmp_path, monkeypatch):  # noqa: F811
    with pytest.raises(GradlocError, match="unknown arm 'topp1'. Did you mean 'top1'?"):
        bench.research_arms(1, ("topp1",), model, tmp_path)
    with pytest.raises(GradlocError, match="no room for 4 trained ones.*Choose --k 3 or less"):
        bench.research_arms(4, (), model, tmp_path)
    arms = bench.research_arms(1, ("lisa", "badam"), model, tmp_path)
    for name, module, package in (("lisa", "swift", "ms-swift"), ("badam", "badam", "badam")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(GradlocError, match=f"pip install {package}"):
            run_arm(arms[name], copy.deepcopy(model), config_of(folder), seed=0)


def test_blocks_are_chosen_by_place():
    assert bench.block_choices(30, 4) == {
        "top4": (26, 27, 28, 29),
        "middle4": (13, 14, 15, 16),
        "scattered4": (3, 11, 18, 26),
        "bottom4": (0, 1, 2, 3),
    }
    for n_blocks in range(12, 100):
        blocks = bench.ten_mlp_blocks(n_blocks)
        assert len(set(blocks)) == 10 and min(blocks) >= 0 and max(blocks) < n_blocks
