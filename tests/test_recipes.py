"""Every recipe in the repository loads, and those that need no data of the user's run."""

import json
from pathlib import Path

import pytest

from gradloc import load_recipe
from gradloc.errors import CorpusError
from gradloc.experiments.run import STAGE_FILES, run
from gradloc.experiments.sweep.sweep_config import load_sweep
from gradloc.experiments.sweep.sweep_runs import sweep_runs

FOLDER = Path(__file__).parents[1] / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))
SWEEPS = sorted((FOLDER / "sweeps").glob("*.yaml"))
DATA = Path(__file__).parents[2] / "shared" / "data"
TINY = [
    "training.max_steps=2",
    "training.per_device_train_batch_size=2",
    "training.use_cpu=true",
    "training.disable_tqdm=true",
    "corpus.max_length=64",
    "probes.max_evaluation=4",
    "measure.n_probes=4",
    "measure.n_reference=4",
    "measure.max_length=64",
    "evaluation.n_curve_points=1",
    "evaluation.n_curve_probes=2",
    "evaluation.n_examples=2",
    "evaluation.n_bootstrap=20",
]


def test_there_are_recipes():
    assert len(RECIPES) >= 2


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_has_full_training_to_compare_with(path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    full = [arm for arm in recipe.arms.values() if arm.policy == "all"]
    rates = {{**recipe.training, **arm.training}["learning_rate"] for arm in full}
    assert len(rates) >= 2, "one rate gives no line to compare with"


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_loads_and_compares_with_full_training_at_several_rates(path):
    sweep = load_sweep(path)
    assert sweep.name == path.stem
    line = sweep.arms[sweep.line]
    assert line.policy == "all" and not line.methods and len(line.rates) >= 3
    runs = sweep_runs(sweep)
    assert {run.corpus for run in runs} == set(sweep.corpora)


def short_text(folder):
    (folder / "short.txt").write_text("The sea is wide.\n\nRain falls on the hills.\n")
    return f"evaluation.general_text=[{{name: short, path: {folder / 'short.txt'}}}]"


@pytest.mark.slow
def test_the_quickstart_runs_on_a_tiny_model(tmp_path, tiny_checkpoint):
    recipe = load_recipe(
        "quickstart",
        [*TINY, f"model={tiny_checkpoint}", f"output_dir={tmp_path}", short_text(tmp_path)],
    )
    run_dir = run(recipe)
    assert sorted(path.name for path in run_dir.iterdir()) == sorted(STAGE_FILES)
    arms = json.loads((run_dir / "results.json").read_text())["arms"]
    assert list(arms) == list(recipe.arms)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="no folder shared/data beside the repository")
def test_the_news_recipe_runs_on_real_data(tmp_path, tiny_checkpoint, monkeypatch):
    (tmp_path / "data").symlink_to(DATA)
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(
        "current-events", [*TINY, f"model={tiny_checkpoint}", short_text(tmp_path)]
    )
    run_dir = run(recipe)
    counts = json.loads((run_dir / "results.json").read_text())["counts"]
    assert counts["new_paraphrase"] == 4


def test_the_news_recipe_says_which_file_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorpusError, match=r"background_2018_2024\.jsonl"):
        run(load_recipe("current-events"))
    assert [path.name for path in (tmp_path / "runs" / "current-events").iterdir()] == [
        "recipe.yaml"
    ]
