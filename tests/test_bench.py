"""A plan's arms train what they say, cost is measured against full training in the same turn."""

import copy
import json
import os
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Trainer, TrainerCallback

from gradloc.errors import GradlocError, SelectionError
from gradloc.experiments.bench import (
    bench_table,
    mean_ratio,
    plan_arms,
    run_bench,
    time_ratios,
)
from gradloc.experiments.bench_config import BenchConfig
from gradloc.experiments.bench_runs import (
    Arm,
    Turn,
    fill_cache,
    measure_memory,
    run_arm,
    time_arms,
)
from gradloc.localization.plan import LayerPlan
from gradloc.models import load_model
from gradloc.models.units import find_units

SIZES = dict(batch_size=2, sequence_length=8, turns=2, steps=2, memory_repeats=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_attention_heads=4,
        num_key_value_heads=2, num_hidden_layers=4, max_position_embeddings=64,
        tie_word_embeddings=True,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder)


def config_of(folder, **changes):
    return BenchConfig(str(folder), **{**SIZES, **changes})


def mlp_plan(model, block):
    """A plan written by hand that trains one MLP."""
    return LayerPlan({u.name: float(u.name.endswith(f"{block}.mlp")) for u in find_units(model)})


def changed(before, after):
    """Names of the parameters whose bits differ."""
    new = dict(after.named_parameters())
    return {name for name, p in before.named_parameters() if not torch.equal(p, new[name])}


@pytest.mark.slow
def test_full_training_plan_and_cached_plan_are_compared_beside_the_prediction(folder, model):
    config = config_of(folder)
    result = run_bench(partial(plan_arms, mlp_plan(model, 2)), config)
    assert list(result["arms"]) == ["full", "plan", "plan_cached"]
    for name, arm in result["arms"].items():
        ratio = arm["time_ratio"]
        assert 0 < ratio["low"] <= ratio["value"] <= ratio["high"], name
        assert len(arm["time_ratios"]) == config.turns
        assert 0 < arm["predicted"]["time_ratio"] <= 1 and arm["predicted"]["memory_ratio"] > 0
    assert result["arms"]["full"]["time_ratio"] == {"value": 1, "low": 1, "high": 1}
    predicted = [arm["predicted"]["time_ratio"] for arm in result["arms"].values()]
    assert predicted == sorted(predicted, reverse=True)
    assert 0 < result["arms"]["plan"]["trainable_fraction"] < 1
    turn = result["turns"][0]
    assert turn["order"][0] == turn["order"][-1] == "full"
    assert sorted(turn["order"][1:-1]) == ["plan", "plan_cached"]
    runs = turn["seconds"]
    assert [len(runs["full"]), len(runs["plan"]), len(runs["plan"][0])] == [2, 1, config.steps]
    json.dumps(result, allow_nan=False)
    assert bench_table(result).row_count == 3


@pytest.mark.parametrize("name", ["full", "plan", "plan_cached"])
def test_an_arm_changes_what_it_trains_and_nothing_else(folder, model, tmp_path, name):
    config = config_of(folder)
    arm = plan_arms(mlp_plan(model, 2), model, tmp_path)[name]
    mine = copy.deepcopy(model)
    if arm.cached:
        fill_cache(arm, copy.deepcopy(model), config)
    run_arm(arm, mine, config, seed=0)
    of_plan = ("model.layers.2.mlp", "model.layers.2.post_attention_layernorm")
    trained = ("model.",) if name == "full" else of_plan
    assert changed(model, mine) == {n for n, _ in model.named_parameters() if n.startswith(trained)}


@pytest.mark.slow
def test_a_cached_arm_skips_the_frozen_blocks_and_refuses_an_empty_cache(folder, model, tmp_path):
    config = config_of(folder)
    arm = plan_arms(mlp_plan(model, 3), model, tmp_path)["plan_cached"]
    with pytest.raises(GradlocError, match="0 of 3 batches were found"):
        run_arm(arm, copy.deepcopy(model), config, seed=0)
    fill_cache(arm, copy.deepcopy(model), config)
    calls, mine = [], copy.deepcopy(model)
    for index, block in enumerate(mine.model.layers):
        block.mlp.register_forward_hook(lambda m, a, out, index=index: calls.append(index))

    class Forget(TrainerCallback):
        def on_train_begin(self, *args, **kwargs):
            calls.clear()  # what the callback's own checks ran

    def with_forget(**given):
        trainer = arm.trainer(**given)
        trainer.add_callback(Forget())
        return trainer

    run_arm(replace(arm, trainer=with_forget), mine, config, seed=1)
    assert calls == [3] * config.steps_a_run


@pytest.mark.slow
def test_a_slower_arm_has_the_larger_ratio(folder, model):
    class Sleep(TrainerCallback):
        def on_step_begin(self, *args, **kwargs):
            time.sleep(0.4)  # long beside what a busy machine adds

    arms = {
        "full": Arm(""),
        "sleeping": Arm("", partial(Trainer, callbacks=[Sleep()])),
        "same": Arm(""),
    }
    turns = time_arms(arms, model, config_of(folder))
    ratio = {name: mean_ratio(time_ratios(turns, name))["value"] for name in arms}
    assert ratio["sleeping"] > 1.5 * ratio["same"]
    assert turns[0].step_seconds("sleeping") > 0.4


@pytest.mark.slow
def test_the_model_is_left_as_it_was(folder, model, tmp_path):
    before = copy.deepcopy(model)
    arms = plan_arms(mlp_plan(model, 0), model, tmp_path)
    time_arms(arms, model, config_of(folder, turns=1))
    assert changed(before, model) == set()
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_ratios_are_paired_within_turns_and_ignore_a_disturbed_step():
    turns = [
        Turn((), {"full": [[2, 2, 9], [4, 4, 4]], "x": [[1.5, 1.5, 30]]}),  # medians 2, 4: mean 3
        Turn((), {"full": [[20, 20, 20], [20, 20, 20]], "x": [[10, 11, 10]]}),
    ]
    assert time_ratios(turns, "x") == [0.5, 0.5]
    assert time_ratios(turns, "full") == [1, 1]


def test_the_interval_covers_the_true_ratio_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    draws = (0.1 * torch.randn(1000, 5, generator=generator)).exp() * 0.4
    found = [mean_ratio(row.tolist()) for row in draws]
    assert 0.93 < sum(f["low"] < 0.4 < f["high"] for f in found) / len(found) < 0.97
    assert mean_ratio([0.4]) == {"value": pytest.approx(0.4), "low": None, "high": None}


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own(folder, model, tmp_path):
    # Long enough for logits and activations to stand out: 64 x 64 x 97 floats are 1.5 MiB.
    config = config_of(folder, batch_size=64, sequence_length=64, steps=1, memory_repeats=1)
    arms_of = partial(plan_arms, mlp_plan(model, 3))
    found = measure_memory(arms_of, ["full", "plan"], config, tmp_path)
    assert set(found) == {"full", "plan"}
    assert all(len(values) == 1 and values[0] > 5 for values in found.values())
    assert found["plan"][0] < found["full"][0]


def end_process(model, folder):
    os._exit(1)


@pytest.mark.slow
def test_a_process_that_is_killed_is_an_error_that_names_the_arm(folder, tmp_path):
    with pytest.raises(GradlocError, match="memory of plan was killed.*smaller --batch-size"):
        measure_memory(end_process, ["plan"], config_of(folder, memory_repeats=1), tmp_path)


def test_what_cannot_be_measured_is_refused(folder, model):
    with pytest.raises(GradlocError, match=r"too small: turns 0 \(at least 1\)"):
        config_of(folder, turns=0)
    with pytest.raises(GradlocError, match="takes 64 at most"):
        run_bench(partial(plan_arms, mlp_plan(model, 2)), config_of(folder, sequence_length=65))
    with pytest.raises(SelectionError, match="freezes everything"):
        run_bench(partial(plan_arms, mlp_plan(model, 9)), config_of(folder))


def test_a_plan_that_trains_the_lowest_block_has_no_cached_arm(model, tmp_path):
    assert list(plan_arms(mlp_plan(model, 0), model, tmp_path)) == ["full", "plan"]


@pytest.mark.slow
def test_the_command_writes_the_result_and_prints_json(gradloc, folder, model, tmp_path):
    out, plan = tmp_path / "bench.json", mlp_plan(model, 2).save(tmp_path / "plan.json")
    command = [str(folder), "--plan", str(plan), "--batch-size", "2", "--sequence-length", "8"]
    command += ["--turns", "2", "--steps", "1", "--memory-repeats", "0", "--out", str(out)]
    code, text, err = gradloc("bench", *command, "--json")
    assert code == 0, err
    printed = json.loads(text)
    assert printed == json.loads(out.read_text())
    assert printed["config"]["seed"] == 0 and printed["machine"]["cpu"]
    assert "torch" in printed["environment"]["versions"]
    code, _, err = gradloc("bench", *command)
    assert code == 2 and "--force" in err
