import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import INVENTED_WORLD
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import gradloc.experiments.run
from gradloc import EvalResult, LayerPlan, load_probes, load_recipe
from gradloc.config.yaml_source import dump_yaml
from gradloc.errors import PlanMismatchError, RecipeError, RunError
from gradloc.experiments.run import STAGE_FILES, arm_dir, run, train_stage
from gradloc.models.units import find_units
from gradloc.utils.io import read_json


@pytest.fixture
def recipe_file(tmp_path, tiny_checkpoint):
    data = {
        "name": "tiny",
        "model": str(tiny_checkpoint),
        "output_dir": str(tmp_path / "runs"),
        "corpus": {
            "source": INVENTED_WORLD,
            "cutoff": "2010-12-31",
            "max_length": 64,
            "options": {"n_entities": 12, "n_phrasings": 2},
        },
        "probes": {"max_evaluation": 8, "max_localization": 6},
        "measure": {"n_probes": 4, "n_reference": 4, "max_length": 64, "reference": "general"},
        "training": {
            "max_steps": 2,
            "per_device_train_batch_size": 2,
            "use_cpu": True,
            "disable_tqdm": True,
        },
        "arms": {
            "ours": {"policy": "interference_ratio", "options": {"k": 2}},
            "full": {"policy": "all"},
        },
        "evaluation": {
            "n_curve_points": 1,
            "n_curve_probes": 2,
            "n_examples": 2,
            "n_bootstrap": 50,
            "general_text": [{"name": "short", "path": str(tmp_path / "short.txt")}],
        },
    }
    (tmp_path / "short.txt").write_text("The sea is wide.\n\nRain falls on the hills.\n")
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_yaml(data))
    return path


def snapshot(folder):
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def finished(recipe_file):
    recipe = load_recipe(recipe_file)
    return recipe, run(recipe)


@pytest.mark.slow
def test_a_run_leaves_exactly_the_files_of_the_line(finished):
    recipe, run_dir = finished
    assert sorted(p.name for p in run_dir.iterdir()) == sorted(STAGE_FILES)
    assert load_recipe(run_dir / "recipe.yaml") == recipe
    plan = LayerPlan.load(run_dir / "plan.json")
    for arm in recipe.arms:
        files = {p.name for p in arm_dir(recipe, arm).iterdir()}
        assert files >= {
            "model.safetensors",
            "config.json",
            "tokenizer.json",
            "README.md",
            "plan.json",
            "recipe.yaml",
            "training.json",
        }
    assert LayerPlan.load(run_dir / "checkpoint" / "plan.json") == plan

    base = AutoModelForCausalLM.from_pretrained(recipe.model)
    trained = AutoModelForCausalLM.from_pretrained(run_dir / "checkpoint")
    after = dict(trained.named_parameters())
    changed = {
        unit.name
        for unit in find_units(base)
        if any(not torch.equal(p, after[name]) for name, p in unit.parameters.items())
    }
    assert changed == set(plan.trained)


@pytest.mark.slow
def test_results_hold_every_arm_with_what_it_cost(finished):
    _, run_dir = finished
    data = json.loads((run_dir / "results.json").read_text())
    assert list(data["arms"]) == ["ours", "full"]
    for arm in data["arms"].values():
        assert arm["train_seconds"] > 0
        assert arm["peak_rss_mib"] > 100
        for kind in ("uptake", "forgetting"):
            for figure in arm[kind].values():
                assert set(figure) >= {"value", "low", "high", "n", "unit", "higher_is_better"}
    assert data["arms"]["full"]["trainable_fraction"] == 1
    assert 0 < data["arms"]["ours"]["trainable_fraction"] < 1
    result = EvalResult.load(run_dir / "results.json")
    assert result.reference_arms == ("full",)
    assert result.arms["ours"].curve["step"] == [0, 1, 2]
    assert None not in result.arms["ours"].curve["loss"][1:]


@pytest.mark.slow
def test_no_entity_both_chooses_and_judges(finished):
    _, run_dir = finished
    sides = {"localization": set(), "evaluation": set()}
    for probe in load_probes(run_dir / "probes.jsonl"):
        sides[probe.split].add(probe.entity)
    assert sides["localization"]
    assert sides["localization"].isdisjoint(sides["evaluation"])


@pytest.mark.slow
def test_a_second_run_does_nothing(finished):
    recipe, run_dir = finished
    before = snapshot(run_dir)
    run(recipe)
    assert snapshot(run_dir) == before


STAGES = ["make_probes", "make_profile", "_plans", "train_stage", "_evaluate"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_that_is_killed_is_completed_by_the_next(recipe_file, stage, monkeypatch):
    recipe = load_recipe(recipe_file)
    real, calls = getattr(gradloc.experiments.run, stage), []

    def killed(*args, **kwargs):
        calls.append(stage)
        if stage != "train_stage" or len(calls) == 2:  # the second arm
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(gradloc.experiments.run, stage, killed)
        with pytest.raises(KeyboardInterrupt):
            run(recipe)
    before = snapshot(recipe.run_dir)
    run_dir = run(recipe)
    assert sorted(p.name for p in run_dir.iterdir()) == sorted(STAGE_FILES)
    after = snapshot(run_dir)
    kept = {name: time for name, time in before.items() if not name.endswith("README.md")}
    if stage == "make_probes":
        kept.pop("recipe.yaml")  # nothing was made with it yet
    assert {name: after[name] for name in kept} == kept


@pytest.mark.slow
def test_a_training_that_is_killed_continues_from_its_last_checkpoint(recipe_file, monkeypatch):
    overrides = ["training.max_steps=4", "training.save_steps=2"]
    whole = load_recipe(recipe_file, [*overrides, "name=whole"])
    run(whole)
    recipe = load_recipe(recipe_file, overrides)
    from gradloc.training.monitoring import Progress

    def kill(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "on_step_end", kill)
        with pytest.raises(KeyboardInterrupt):
            run(recipe)
    assert (recipe.run_dir / "checkpoint" / "checkpoint-2").is_dir()
    run(recipe)
    weights = [r.run_dir / "checkpoint" / "model.safetensors" for r in (whole, recipe)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.slow
def test_a_prefix_cache_changes_what_a_run_costs_and_not_what_it_gives(recipe_file):
    overrides = [
        "arms.ours={policy: top_k, options: {k: 1}}",
        "training.max_steps=8",
        "corpus.max_update_documents=4",
        "corpus.packing=true",  # rows of one width, which are found again in any batch
    ]
    plain = load_recipe(recipe_file, [*overrides, "name=plain"])
    cached = load_recipe(recipe_file, [*overrides, "name=cached", "prefix_cache.enabled=true"])
    results = [EvalResult.load(run(recipe) / "results.json") for recipe in (plain, cached)]
    for arm in ("ours", "full"):
        one, other = (
            load_file(arm_dir(recipe, arm) / "model.safetensors") for recipe in (plain, cached)
        )
        assert all(torch.equal(one[name], other[name]) for name in one)
    logs = [read_json(arm_dir(cached, arm) / "training.json", "log") for arm in ("ours", "full")]
    assert logs[0]["n_passes_from_cache"] >= 4
    assert logs[1]["n_passes_from_cache"] == 0  # full training leaves nothing to skip
    assert logs[0]["curve"]["new_nll"][-1] == pytest.approx(
        read_json(arm_dir(plain, "ours") / "training.json", "log")["curve"]["new_nll"][-1], abs=1e-6
    )
    assert results[0].arms.keys() == results[1].arms.keys()


@pytest.mark.slow
def test_a_recipe_trains_parts_in_bfloat16_where_its_arms_have_them(recipe_file):
    overrides = ["arms.ours={policy: top_k, options: {k: 1}}", "training.max_steps=2"]
    plain = load_recipe(recipe_file, [*overrides, "name=plain"])
    rough = load_recipe(recipe_file, [*overrides, "name=rough", "bfloat16=[prefix]"])
    for recipe in (plain, rough):
        run(recipe)

    def same(arm):
        return (
            (arm_dir(plain, arm) / "model.safetensors").read_bytes()
            == (arm_dir(rough, arm) / "model.safetensors").read_bytes()
        )  # fmt: skip

    assert not same("ours")
    assert same("full"), "full training has no frozen prefix"


@pytest.mark.slow
def test_a_plans_predicted_cost_counts_what_its_arms_methods_add(recipe_file):
    """Old text passes forward and backward; a projection works on the step."""
    arms = {
        "plain": {},
        "projected": {"input_projection": {}},
        "held": {"reference_kl": {"source": "facts", "every": 2}},
        "held_seldom": {"reference_kl": {"source": "facts", "every": 4}},
    }
    overrides = [
        f"arms.{name}={{policy: interference_ratio, options: {{k: 2}}, methods: {methods}}}"
        for name, methods in arms.items()
    ]
    recipe = load_recipe(recipe_file, [*overrides, "training.max_steps=1"])
    run(recipe)
    cost = {name: LayerPlan.load(arm_dir(recipe, name) / "plan.json").predicted for name in arms}
    assert cost["projected"]["optimizer_ratio"] > cost["plain"]["optimizer_ratio"]
    assert cost["projected"]["forward_ratio"] == cost["plain"]["forward_ratio"]
    added = [cost[n]["forward_ratio"] - cost["plain"]["forward_ratio"] for n in arms]
    assert added[2] == pytest.approx(2 * added[3], rel=0.01) and added[3] > 0


@pytest.mark.slow
def test_another_recipe_does_not_touch_the_run(finished, recipe_file):
    _, run_dir = finished
    before = snapshot(run_dir)
    with pytest.raises(RunError, match=r"another recipe \(differs in seed\)"):
        run(load_recipe(recipe_file, ["seed=1"]))
    (run_dir / "recipe.yaml").rename(run_dir.parent / "elsewhere.yaml")
    with pytest.raises(RunError, match=r"holds probes\.jsonl.* but no recipe\.yaml"):
        run(load_recipe(recipe_file))
    (run_dir.parent / "elsewhere.yaml").rename(run_dir / "recipe.yaml")
    assert snapshot(run_dir) == before
    with pytest.raises(RunError, match="finished checkpoint"):
        train_stage(load_recipe(recipe_file), LayerPlan.load(run_dir / "plan.json"))
    assert snapshot(run_dir) == before


def test_a_plan_of_another_model_is_refused_before_anything_is_recorded(recipe_file):
    recipe = load_recipe(recipe_file, ["arms={a: {methods: {reference_kl: {source: facts}}}}"])
    with pytest.raises(PlanMismatchError):
        train_stage(recipe, LayerPlan(scale={"model.layers.9.mlp": 1.0}))
    assert not recipe.run_dir.exists()


@pytest.mark.slow
def test_force_starts_over(finished, recipe_file):
    _, run_dir = finished
    run(load_recipe(recipe_file, ["seed=1"]), force=True)
    assert load_recipe(run_dir / "recipe.yaml").seed == 1


@pytest.mark.slow
def test_a_plan_edited_by_hand_is_the_one_that_trains(finished, recipe_file):
    recipe, run_dir = finished
    plan = json.loads((run_dir / "plan.json").read_text())
    plan["scale"] = {name: float(name.endswith("layers.0.mlp")) for name in plan["scale"]}
    (run_dir / "plan.json").write_text(json.dumps(plan))
    for name in ("checkpoint", "results.json", "report.html"):
        path = run_dir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    run(recipe)
    assert LayerPlan.load(run_dir / "checkpoint" / "plan.json").trained == ("model.layers.0.mlp",)


@pytest.mark.slow
def test_a_full_disk_costs_only_the_file_being_written(finished, recipe_file):
    """A limit on the size of files stands for the disk; the kernel refuses the write alike."""
    recipe, run_dir = finished
    shutil.rmtree(run_dir / "checkpoint")
    before = snapshot(run_dir)
    done = subprocess.run(
        [
            "bash",
            "-c",
            'ulimit -f 40; exec "$0" -m gradloc.cli run "$1"',
            sys.executable,
            str(recipe_file),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "TQDM_DISABLE": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 2, done.stderr
    assert "cannot be saved" in done.stderr
    assert "Traceback" not in done.stderr
    kept = {k: v for k, v in snapshot(run_dir).items() if not k.startswith("checkpoint")}
    assert kept == before
    run(recipe)
    assert (run_dir / "checkpoint" / "training.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["corpus.streaming=true"],
        ["corpus.packing=true"],
        ["dtype=bfloat16"],
        ["training.gradient_checkpointing=true"],
        ["training.gradient_accumulation_steps=2"],
        ["arms.ours.policy=rgn_scaled", "arms.ours.options={}"],
        ["measure.granularity=block"],
        ["measure.reference=background"],
        ["measure.reference_loss=random_span"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_the_line_runs_with(recipe_file, overrides):
    run_dir = run(load_recipe(recipe_file, overrides))
    log = json.loads((run_dir / "checkpoint" / "training.json").read_text())
    assert log["n_steps"] == 2
    assert None not in log["curve"]["loss"][1:]
    assert (run_dir / "report.html").is_file()


def test_streaming_needs_a_number_of_steps(recipe_file):
    overrides = ["corpus.streaming=true", "training.max_steps=-1"]
    with pytest.raises(RecipeError, match=r"corpus\.streaming: .*training\.max_steps"):
        load_recipe(recipe_file, overrides)
