"""The table of methods, and each of them in a recipe from its corpus to an ordinary checkpoint."""

import dataclasses
import time

import pytest
import torch
from conftest import INVENTED_WORLD
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from gradloc import LayerPlan, load_recipe
from gradloc.config.yaml_source import dump_yaml
from gradloc.errors import MethodError, RecipeError
from gradloc.experiments.run import make_probes, make_profile
from gradloc.experiments.train import train
from gradloc.localization.layer_selection import select_layers
from gradloc.training.methods.base import Method
from gradloc.training.methods.method_table import METHODS, build_method, build_methods
from gradloc.utils.io import read_json

TOKEN_WEIGHTS = "evaluation.studies.rivals.token_weights:TokenWeights"
WEIGHT_AVERAGING = "evaluation.studies.rivals.weight_averaging:WeightAveraging"

# Options that let a method act within four steps on a tiny model.
SMALL = {
    "reference_kl": {"n_texts": 4, "batch_size": 2, "weight": 5.0},
    "replay": {"n_texts": 4},
    "l2_to_start": {"weight": 50.0},
    "ewc": {"n_texts": 4, "weight": 100.0},
    "f_learning": {"old_steps": 2},
    "context_distillation": {"n_sentences": 1, "n_tokens": 6},
}


def test_every_method_is_a_frozen_dataclass_with_sound_defaults():
    for name, method in METHODS.items():
        assert issubclass(method, Method), name
        assert dataclasses.is_dataclass(method) and method.__dataclass_params__.frozen, name
        build_method(name)


def test_unknown_names_and_options_are_refused_with_the_nearest_one():
    with pytest.raises(MethodError, match="Did you mean 'replay'"):
        build_method("reply")
    with pytest.raises(MethodError, match="Did you mean 'ratio'"):
        build_method("replay", {"ration": 0.5})
    with pytest.raises(MethodError, match="ratio must be a valid number, found 'half'"):
        build_method("replay", {"ratio": "half"})
    with pytest.raises(MethodError, match="source must be .*, found 'books'"):
        build_method("replay", {"source": "books"})
    with pytest.raises(MethodError, match="each replace the training loss"):
        build_methods({TOKEN_WEIGHTS: {}, "context_distillation": {}})


def test_a_method_can_be_named_by_its_import_path():
    method = build_method("evaluation.studies.rivals.lisa:Lisa", {"n_blocks": 3})
    assert (type(method).__name__, method.n_blocks, method.period) == ("Lisa", 3, 20)
    with pytest.raises(MethodError, match="Did you mean 'period'"):
        build_method("evaluation.studies.rivals.lisa:Lisa", {"periods": 3})
    with pytest.raises(MethodError, match="is no subclass of"):
        build_method("evaluation.studies.rivals.lisa:np")
    with pytest.raises(MethodError, match="write @dataclass"):
        build_method("gradloc.training.methods.base:Method")


@pytest.fixture
def recipe_file(tmp_path, tiny_checkpoint):
    data = {
        "name": "tiny",
        "model": str(tiny_checkpoint),
        "output_dir": str(tmp_path / "runs"),
        "corpus": {
            "source": INVENTED_WORLD,
            "cutoff": "2010-12-31",
            "max_length": 48,
            "options": {"n_entities": 12, "n_phrasings": 2},
        },
        "probes": {"max_evaluation": 8},
        "measure": {"n_probes": 4, "n_reference": 4, "max_length": 48, "reference": "general"},
        "training": {
            "max_steps": 4,
            "learning_rate": 0.01,
            "per_device_train_batch_size": 2,
            "use_cpu": True,
            "disable_tqdm": True,
        },
        "arms": {"plain": {"options": {"k": 2}}},
        "evaluation": {"n_curve_points": 0},
    }
    data["arms"] |= {
        name: {"options": {"k": 2}, "methods": {name: SMALL.get(name, {})}} for name in METHODS
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_yaml(data))
    return path


@pytest.fixture
def prepared(recipe_file):
    recipe = load_recipe(recipe_file)
    probes = make_probes(recipe, recipe.run_dir)
    profile = make_profile(recipe, recipe.run_dir, probes)
    return recipe, probes, select_layers(profile, "interference_ratio", k=2)


@pytest.fixture
def plain(prepared, tmp_path):
    recipe, probes, plan = prepared
    return load_file(
        train(recipe, plan, arm="plain", out_dir=tmp_path / "plain", probes=probes)
        / "model.safetensors"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_the_plan_alone_and_leaves_an_ordinary_checkpoint(
    name, prepared, plain, tmp_path
):
    """Frozen tensors are those of the base bit for bit, and the method did something."""
    recipe, probes, plan = prepared
    folder = train(recipe, plan, arm=name, out_dir=tmp_path / name, probes=probes)
    saved = load_file(folder / "model.safetensors")
    base = AutoModelForCausalLM.from_pretrained(recipe.model).state_dict()
    assert saved.keys() == plain.keys()
    trained = [
        member for unit in plan.units if unit.name in plan.trained for member in unit.members
    ]
    changed = 0
    for tensor, value in saved.items():
        inside = any(tensor.startswith(f"{member}.") for member in trained)
        if inside:
            changed += not torch.equal(value, base[tensor])
        else:
            assert torch.equal(value, base[tensor]), tensor
    assert changed, "nothing was trained"
    differs = any(not torch.equal(saved[tensor], plain[tensor]) for tensor in saved)
    assert differs, "the method changed nothing of plain training"
    log = read_json(folder / "training.json", "log")
    assert log["methods"] == recipe.arms[name].methods
    assert LayerPlan.load(folder / "plan.json").scale == plan.scale


@pytest.mark.slow
def test_methods_compose(prepared, plain, tmp_path, recipe_file):
    recipe, probes, plan = prepared
    methods = (
        "arms.plain.methods={replay: {ratio: 0.5}, reference_kl: {n_texts: 4, batch_size: 2}, "
        f"lora: {{r: 4}}, '{WEIGHT_AVERAGING}': {{start: 0.0}}}}"
    )
    recipe = load_recipe(recipe_file, [methods])
    folder = train(recipe, plan, arm="plain", out_dir=tmp_path / "all", probes=probes)
    assert load_file(folder / "model.safetensors").keys() == plain.keys()


def test_a_recipe_says_what_is_wrong_with_its_methods(recipe_file):
    with pytest.raises(RecipeError) as caught:
        load_recipe(
            recipe_file,
            [
                "arms.plain.methods={reply: {}, replay: {ration: 0.5}, ewc: {weight: -1.0}}",
            ],
        )
    text = str(caught.value)
    for word in ("Did you mean 'replay'", "Did you mean 'ratio'", "arms.plain.methods.ewc"):
        assert word in text


def test_a_streamed_corpus_refuses_methods_that_change_its_rows(prepared, recipe_file, tmp_path):
    _, probes, plan = prepared
    recipe = load_recipe(recipe_file, ["corpus.streaming=true"])
    with pytest.raises(MethodError, match="streaming"):
        train(recipe, plan, arm="replay", out_dir=tmp_path / "x", probes=probes)


@pytest.mark.slow
def test_training_time_counts_what_methods_do_before_and_after(prepared, recipe_file, tmp_path):
    """A projection, or texts that the model writes first, are part of what a method costs."""

    class Slow(Method):
        def callbacks(self, context):
            time.sleep(0.3)
            return []

        def finish(self, model, context):
            time.sleep(0.3)
            return model

    _, probes, plan = prepared
    recipe = load_recipe(recipe_file)
    logs = []
    for methods in ({}, {"slow": Slow()}):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "gradloc.experiments.train.build_methods", lambda given, made=methods: made
            )
            folder = train(
                recipe, plan, arm="plain", out_dir=tmp_path / f"{len(methods)}", probes=probes
            )
        logs.append(read_json(folder / "training.json", "training log"))
    assert logs[0]["method_seconds"] == 0 < 0.6 <= logs[1]["method_seconds"]
    assert logs[1]["train_seconds"] > logs[1]["method_seconds"]


@pytest.mark.slow
def test_a_method_sees_the_rows_of_a_stream(prepared, recipe_file, tmp_path):
    """It is read ahead; without new texts the default projection could not be made."""
    methods = "arms.plain.methods={input_projection: {source: new}}"
    recipe = load_recipe(recipe_file, ["corpus.streaming=true", methods])
    _, probes, plan = prepared
    folder = train(recipe, plan, arm="plain", out_dir=tmp_path / "x", probes=probes)
    log = read_json(folder / "training.json", "training log")
    assert log["methods"] == {"input_projection": {"source": "new"}} and log["n_steps"]


@pytest.mark.slow
def test_a_methods_loss_is_a_mean_over_micro_batches(prepared, recipe_file, tmp_path):
    """Two micro-batches of equal weight are one batch: the loss is divided by their number."""
    _, probes, plan = prepared
    logged = []
    for size, accumulated in ((2, 1), (1, 2)):
        recipe = load_recipe(
            recipe_file,
            [
                f"arms.plain.methods={{'{TOKEN_WEIGHTS}': {{weight: 1.0}}}}",
                f"training.per_device_train_batch_size={size}",
                f"training.gradient_accumulation_steps={accumulated}",
                "training.max_steps=1",
            ],
        )
        out = tmp_path / str(size)
        train(recipe, plan, arm="plain", out_dir=out, probes=probes)
        logged.append(read_json(out / "training.json", "log")["curve"]["loss"][0])
    # Rows of unequal length: means of means, so near and not equal; undivided it would be twice.
    assert logged[1] == pytest.approx(logged[0], rel=0.2)


@pytest.mark.slow
def test_the_curve_ends_where_the_saved_model_is(prepared, recipe_file, tmp_path):
    """What is put in place at the end of training is what its last point tells of."""
    _, probes, plan = prepared
    last = {}
    for name, methods in {
        "far": "{}",
        "back": "{interpolate_to_start: {interpolation: 0.001}}",
    }.items():
        recipe = load_recipe(
            recipe_file, [f"arms.plain.methods={methods}", "evaluation.n_curve_points=2"]
        )
        out = train(recipe, plan, arm="plain", out_dir=tmp_path / name, probes=probes)
        log = read_json(out / "training.json", "log")
        curve = log["curve"]
        assert log["curve_seconds"] > 0 and curve["step"] == [0, 1, 2, 3, 4]
        assert [value is None for value in curve["new_nll"]] == [False, True, False, True, False]
        last[name] = curve["new_nll"]
    assert last["far"][:4] == last["back"][:4]
    assert last["back"][4] == pytest.approx(last["back"][0], abs=0.002)
    assert abs(last["far"][4] - last["far"][0]) > 0.02
