import copy
import json
import math
import time
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, LlamaConfig, TrainerCallback

from gradloc.cli.bench import bench
from gradloc.errors import GradlocError
from gradloc.experiments.bench import ratios, steps
from gradloc.experiments.bench.arms import Arm, Setup, arm_table
from gradloc.experiments.bench.benchmark import run_bench
from gradloc.experiments.bench.bfloat16 import bf16_slowdown
from gradloc.experiments.bench.memory import measure_memory
from gradloc.experiments.bench.picture import bench_spec
from gradloc.experiments.bench.plans import block_choices, ten_mlp_blocks
from gradloc.experiments.bench.settings import BenchSettings
from gradloc.experiments.bench.steps import StepTime, fill_cache, run_arm
from gradloc.experiments.bench.table import bench_table
from gradloc.experiments.bench.timing import Rotation, time_arms
from gradloc.localization.plan import LayerPlan
from gradloc.models import load_model

SIZES = dict(k=1, batch_size=2, sequence_length=8, rotations=2, steps=2, memory_repeats=0)
ARMS = [
    "full", "full_bf16", "top1", "top1_cached", "top1_cached_bf16", "top1_cached_bf16_frozen",
    "middle1", "middle1_cached", "scattered1", "bottom1", "plan", "plan_cached", "plan_projected",
    "lora_r16", "masking", "callback_overhead",
]  # fmt: skip


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


def settings_of(folder, cache, **changes):
    return BenchSettings(str(folder), str(cache), **{**SIZES, **changes})


def mlp_plan(model, block):
    """A plan of the user's that trains one MLP."""
    from gradloc.models.units import find_units

    return {"scale": {u.name: float(u.name.endswith(f"{block}.mlp")) for u in find_units(model)}}


def changed(before, after):
    """Names of the parameters whose bits differ."""
    new = dict(after.named_parameters())
    return {name for name, p in before.named_parameters() if not torch.equal(p, new[name])}


def test_every_arm_runs_and_every_figure_is_there(folder, model, tmp_path):
    settings = settings_of(folder, tmp_path, arms=ARMS, plan=mlp_plan(model, 2))
    seen = []
    result = run_bench(settings, after_run=seen.append)
    assert list(result["arms"]) == ARMS
    for name, arm in result["arms"].items():
        ratio = arm["time_ratio"]
        assert 0 < ratio["low"] <= ratio["value"] <= ratio["high"], name
        assert math.isclose(sum(arm["shares"].values()), 1)
        assert all(0 < arm["shares"][part] < 1 for part in steps.PARTS), name
        assert set(arm["memory_ratio"]) == {"value", "low", "high"}
        assert len(arm["time_ratios"]) == settings.rotations
    assert result["arms"]["full"]["time_ratio"] == {"value": 1, "low": 1, "high": 1}
    assert "time_ratio_to_full_bf16" in result["arms"]["top1_cached_bf16"]
    # full runs twice in each rotation, first and last
    assert seen.count("full") == 2 * settings.rotations
    order = result["rotations"][0]["order"]
    assert order[0] == order[-1] == "full" and sorted(order[1:]) == sorted(ARMS)
    runs = result["rotations"][1]["runs"]
    assert [len(runs["full"]), len(runs["top1"]), len(runs["top1"][0])] == [2, 1, settings.steps]
    json.dumps(result, allow_nan=False)
    assert len(bench_spec(result)["hconcat"]) == 1, "no panel for memory that was not measured"
    assert bench_table(result)[0].row_count == len(ARMS)


def test_bfloat16_of_what_is_frozen_leaves_the_trained_block_in_float32(folder, model, tmp_path):
    arms = arm_table(model, settings_of(folder, tmp_path)).arms
    whole = arms["top1_cached_bf16"].build(copy.deepcopy(model))
    frozen = arms["top1_cached_bf16_frozen"].build(copy.deepcopy(model))
    assert whole.arguments == {"bf16": True} and whole.callbacks[0].bfloat16 == ()
    assert frozen.arguments == {} and frozen.callbacks[0].bfloat16 == ("prefix", "head")


@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("top1", ["model.layers.3."]),
        ("middle1", ["model.layers.1."]),
        ("bottom1", ["model.layers.0."]),
        ("scattered1", ["model.layers.2."]),
        ("plan", ["model.layers.2.mlp", "model.layers.2.post_attention_layernorm"]),
        ("top1_cached", ["model.layers.3."]),
        ("full", ["model."]),
        ("callback_overhead", ["model."]),
    ],
)
def test_an_arm_changes_what_it_trains_and_nothing_else(folder, model, tmp_path, name, trained):
    settings = settings_of(folder, tmp_path, plan=mlp_plan(model, 2))
    arm = arm_table(model, settings).arms[name]
    mine = copy.deepcopy(model)
    if arm.cached:
        fill_cache(arm, copy.deepcopy(model), settings)
    run_arm(arm, mine, settings, seed=0)
    expected = {n for n, _ in model.named_parameters() if n.startswith(tuple(trained))}
    assert changed(model, mine) == expected


def test_masking_computes_all_gradients_and_moves_the_top_only(folder, model, tmp_path):
    settings = settings_of(folder, tmp_path)
    arm = arm_table(model, settings).arms["masking"]
    states, mine = [], copy.deepcopy(model)

    class Look(TrainerCallback):
        def on_step_end(self, args, state, control, optimizer=None, **kwargs):
            states.append(len(optimizer.optimizer.state))

    def with_look(model):
        setup = arm.build(model)
        setup.callbacks.append(Look())
        return setup

    run_arm(replace(arm, build=with_look), mine, settings, seed=0)
    assert states[-1] == len(list(model.parameters())), "Adam's state exists for everything"
    # no weight decay by default, and a zero gradient moves nothing
    assert changed(model, mine) == {n for n, _ in model.named_parameters() if ".layers.3." in n}


def test_bf16_arms_compute_in_bfloat16_and_others_do_not(folder, model, tmp_path):
    settings, seen = settings_of(folder, tmp_path), {}
    table = arm_table(model, settings)
    for name in ("full", "full_bf16", "full"):
        mine = copy.deepcopy(model)
        projection = mine.model.layers[0].mlp.up_proj
        projection.register_forward_hook(lambda m, a, out, n=name: seen.update({n: out.dtype}))
        run_arm(table.arms[name], mine, settings, seed=0)
    assert seen == {"full": torch.float32, "full_bf16": torch.bfloat16}


def test_a_cached_arm_skips_the_frozen_blocks_and_refuses_an_empty_cache(folder, model, tmp_path):
    settings = settings_of(folder, tmp_path)
    arm = arm_table(model, settings).arms["top1_cached"]
    with pytest.raises(GradlocError, match="found 0 of 3 batches"):
        run_arm(arm, copy.deepcopy(model), settings, seed=0)
    fill_cache(arm, copy.deepcopy(model), settings)
    calls, mine = [], copy.deepcopy(model)
    for index, block in enumerate(mine.model.layers):
        block.mlp.register_forward_hook(lambda m, a, out, index=index: calls.append(index))

    class Forget(TrainerCallback):
        def on_train_begin(self, *args, **kwargs):
            calls.clear()  # what the callback's own checks ran

    def with_forget(model):
        setup = arm.build(model)
        setup.callbacks.append(Forget())
        return setup

    run_arm(replace(arm, build=with_forget), mine, settings, seed=1)
    assert calls == [3] * settings.steps_a_run


def test_a_slower_arm_has_the_larger_ratio_and_the_time_is_in_its_part(folder, model, tmp_path):
    class Sleep(TrainerCallback):
        def on_step_begin(self, *args, **kwargs):
            time.sleep(0.4)  # long beside what a busy machine adds

    def slow_backward(model):
        def hook(grad):
            time.sleep(0.4)  # long beside what a busy machine adds
            return grad

        next(model.parameters()).register_hook(hook)
        return Setup(model)

    arms = {
        "full": Arm("full", "", Setup),
        "sleeping": Arm("sleeping", "", lambda model: Setup(model, [Sleep()])),
        "slow_backward": Arm("slow_backward", "", slow_backward),
        "same": Arm("same", "", Setup),
    }
    settings = settings_of(folder, tmp_path, rotations=2)
    rotations = time_arms(arms, model, settings)
    ratio = {n: ratios.mean_ratio(ratios.time_ratios(rotations, n))["value"] for n in arms}
    assert min(ratio["sleeping"], ratio["slow_backward"]) > 1.5 * ratio["same"]
    assert ratios.step_seconds(rotations[0], "sleeping") > 0.4
    assert ratios.shares(rotations, "sleeping")["other"] > 0.6
    assert ratios.shares(rotations, "slow_backward")["backward"] > 0.6


def test_the_model_is_left_as_it_was(folder, model, tmp_path):
    before = copy.deepcopy(model)
    settings = settings_of(folder, tmp_path, rotations=1)
    table = arm_table(model, settings)
    time_arms({n: table.arms[n] for n in ("full", "lora_r16", "top1")}, model, settings)
    assert changed(before, model) == set()
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in before.named_parameters()]
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def rotation(**seconds):
    runs = {
        name: [[StepTime(total / 2, total / 4, total / 8, total / 8) for total in run] for run in r]
        for name, r in seconds.items()
    }
    return Rotation(("full", "x", "full"), runs)


def test_ratios_are_paired_within_rotations_and_ignore_a_disturbed_step():
    rotations = [
        rotation(full=[[2, 2, 9], [4, 4, 4]], x=[[1.5, 1.5, 30]]),  # medians 2 and 4, mean 3
        rotation(full=[[20, 20, 20], [20, 20, 20]], x=[[10, 11, 10]]),
    ]
    assert ratios.time_ratios(rotations, "x") == [0.5, 0.5]
    assert ratios.time_ratios(rotations, "full") == [1, 1]
    assert ratios.mean_ratio([0.5, 0.5]) == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert ratios.drift(rotations) == pytest.approx(math.log(2) / 2)
    shares = ratios.shares(rotations, "x")
    assert shares == {"forward": 0.5, "backward": 0.25, "optimizer": 0.125, "other": 0.125}


def test_the_interval_covers_the_true_ratio_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    draws = (0.1 * torch.randn(1000, 5, generator=generator)).exp() * 0.4
    found = [ratios.mean_ratio(row.tolist()) for row in draws]
    assert 0.93 < sum(f["low"] < 0.4 < f["high"] for f in found) / len(found) < 0.97
    assert ratios.mean_ratio([0.4]) == {"value": pytest.approx(0.4), "low": None, "high": None}


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own(folder, model, tmp_path):
    # Long enough for logits and activations to stand out: 64 x 64 x 97 floats are 1.5 MiB.
    settings = settings_of(
        folder, tmp_path, batch_size=64, sequence_length=64, steps=1, memory_repeats=1
    )
    found = measure_memory(["full", "top1"], settings)
    assert set(found) == {"full", "top1"}
    assert all(len(values) == 1 and values[0] > 5 for values in found.values())
    assert found["top1"][0] < found["full"][0]


def test_a_process_that_fails_is_an_error_with_its_reason(folder, tmp_path):
    settings = settings_of(tmp_path / "absent", tmp_path, memory_repeats=1)
    with pytest.raises(GradlocError, match="memory of full was not measured.*absent"):
        measure_memory(["full"], settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ["topp1"]}, "unknown arm 'topp1'. Did you mean 'top1'?"),
        ({"arms": ["top2"]}, "unknown arm 'top2'. Did you mean 'top1'?"),
        ({"arms": ["ten_mlps"]}, "the model has 4 blocks, and ten MLPs in two groups need 12"),
        ({"arms": ["ten_mlps_projected"]}, "the model has 4 blocks, and ten MLPs in two groups"),
        ({"arms": ["plan"]}, "no --plan was given"),
        ({"k": 4}, "no room for 4 trained ones beside frozen ones. Choose --k 3 or less"),
        ({"sequence_length": 65}, "takes 64 at most"),
        ({"dtype": "bfloat16", "arms": ["full_bf16"]}, "the weights are bfloat16 already"),
        ({"rotations": 0}, "too small: rotations = 0"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_runs(folder, tmp_path, changes, message):
    ran = []
    with pytest.raises(GradlocError) as error:
        run_bench(settings_of(folder, tmp_path, **changes), after_run=ran.append)
    assert message in str(error.value) and not ran


def test_a_plan_that_trains_the_lowest_block_has_no_cached_arm(folder, model, tmp_path):
    settings = settings_of(folder, tmp_path, plan=mlp_plan(model, 0), arms=["plan_cached"])
    with pytest.raises(GradlocError, match="trains block 0 or the embeddings"):
        run_bench(settings)
    assert "plan" in arm_table(model, settings).arms


def test_a_full_disk_is_seen_before_anything_runs(folder, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr("gradloc.experiments.bench.benchmark.shutil.disk_usage", lambda path: usage)
    with pytest.raises(GradlocError, match="the caches need .* MiB free"):
        run_bench(settings_of(folder, tmp_path, arms=["top1_cached"]))


def test_bf16_arms_are_set_aside_where_bfloat16_is_emulated(folder, model, tmp_path, monkeypatch):
    settings = settings_of(folder, tmp_path)
    assert 0.01 < bf16_slowdown() < 1000
    for slowdown, is_usual in ((13.0, False), (0.6, True)):
        monkeypatch.setattr("gradloc.experiments.bench.arms.bf16_slowdown", lambda s=slowdown: s)
        table = arm_table(model, settings)
        assert ("full_bf16" in table.choose(())) is is_usual
        assert ("top1_cached_bf16" in table.choose(())) is is_usual
        assert "full_bf16" in table.choose(("full_bf16",)), "it runs where it is named"
        assert ("13 times" in table.set_aside.get("full_bf16", "")) is not is_usual


def test_a_wide_interval_does_not_squeeze_the_picture(folder, tmp_path):
    result = run_bench(settings_of(folder, tmp_path, arms=["top1"], rotations=2, steps=1))
    result["arms"]["top1"]["time_ratio"] = {"value": 0.5, "low": 0.001, "high": 3000.0}
    text = json.dumps(bench_spec(result))
    assert "3000" not in text
    (panel,) = bench_spec(result)["hconcat"]
    assert panel["layer"][0]["encoding"]["x"]["scale"]["domain"][1] < 2


def test_blocks_are_chosen_by_place():
    assert block_choices(30, 4) == {
        "top4": (26, 27, 28, 29),
        "middle4": (13, 14, 15, 16),
        "scattered4": (3, 11, 18, 26),
        "bottom4": (0, 1, 2, 3),
    }
    assert ten_mlp_blocks(30) == (3, 4, 5, 6, 22, 23, 24, 25, 26, 27)
    for n_blocks in range(12, 100):
        blocks = ten_mlp_blocks(n_blocks)
        assert len(set(blocks)) == 10 and min(blocks) >= 0 and max(blocks) < n_blocks


def test_the_command_writes_result_and_pictures_and_prints_json(folder, tmp_path):
    out = tmp_path / "bench.json"
    command = [str(folder), "--arms", "top1,top1_cached", "--k", "1", "--batch-size", "2"]
    command += ["--sequence-length", "8", "--rotations", "2", "--steps", "1", "--out", str(out)]
    command += ["--memory-repeats", "0", "--json"]
    done = CliRunner().invoke(bench, command)
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed == json.loads(out.read_text())
    assert list(printed["arms"]) == ["full", "top1", "top1_cached"]
    assert printed["settings"]["seed"] == 0 and printed["machine"]["cpu"]
    assert "torch" in printed["environment"]["versions"]
    svg = out.with_suffix(".svg").read_text()
    assert "top1_cached" in svg and "var(--" not in svg
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    again = CliRunner().invoke(bench, ["./nowhere", "--out", str(tmp_path / "other.json")])
    assert isinstance(again.exception, GradlocError) and again.output == "", "no bar before it"
    again = CliRunner().invoke(bench, command)
    assert isinstance(again.exception, GradlocError) and "--force" in str(again.exception)


@pytest.mark.parametrize(("name", "module"), [("badam", "badam"), ("lisa", "swift")])
def test_an_arm_whose_package_is_missing_is_left_out_and_says_so(
    folder, model, tmp_path, monkeypatch, name, module
):
    import sys

    monkeypatch.setitem(sys.modules, module, None)
    settings = settings_of(folder, tmp_path)
    table = arm_table(model, settings)
    assert name not in table.arms and "pip install" in table.missing[name]
    with pytest.raises(GradlocError, match=f"arm '{name}' cannot run: .*pip install"):
        table.choose((name,))


@pytest.mark.parametrize(("name", "module"), [("badam", "badam"), ("lisa", "swift")])
def test_an_arm_whose_package_is_there_trains_some_blocks(folder, model, tmp_path, name, module):
    settings = settings_of(folder, tmp_path)
    table = arm_table(model, settings)
    if name not in table.arms:
        pytest.skip(table.missing[name])
    mine = copy.deepcopy(model)
    run_arm(table.arms[name], mine, settings, seed=0)
    blocks = {n.split(".")[2] for n in changed(model, mine) if ".layers." in n}
    # LISA of ms-swift draws at the first and at the second step.
    assert 1 <= len(blocks) <= 2


def test_a_users_plan_without_units_is_given_those_of_the_model(folder, model, tmp_path):
    settings = settings_of(folder, tmp_path, plan=mlp_plan(model, 2))
    plan = arm_table(model, settings).arms["plan"].plan
    assert isinstance(plan, LayerPlan) and 0 < plan.trainable_fraction < 1
