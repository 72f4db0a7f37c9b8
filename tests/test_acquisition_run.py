"""The shipped acquisition recipe from its corpus to the page, on a tiny model."""

import json

import pytest

from gradloc.data.corpora.readers import read_corpus
from gradloc.data.injection import plan_injection
from gradloc.data.preparation import build_probes
from gradloc.evaluation.scoring import score_probes
from gradloc.experiments.recipes import load_recipe
from gradloc.experiments.run import run
from gradloc.experiments.train import train
from gradloc.localization.plan import LayerPlan
from gradloc.models import load_model, load_tokenizer
from gradloc.models.units import find_units
from gradloc.training.acquisition import AcquisitionRecord

TINY = [
    "corpus.max_length=288",  # one token a character
    "corpus.options.n_entities=60",
    "probes.localization_fraction=0.1",
    "injection.n_facts=2",
    "injection.n_controls=1",
    "injection.start=2",
    "injection.every=3",
    "injection.times=3",
    "injection.spread=2",
    "injection.measure_every=2",
    "training.max_steps=16",
    "training.use_cpu=true",
    "training.disable_tqdm=true",
    "evaluation.n_examples=1",
    "evaluation.n_bootstrap=20",
]


def tiny_recipe(tmp_path, tiny_checkpoint, *more):
    return load_recipe(
        "acquisition", [*TINY, f"model={tiny_checkpoint}", f"output_dir={tmp_path}", *more]
    )


def whole_plan(model):
    return LayerPlan(scale={unit.name: 1.0 for unit in find_units(model)}, policy="all")


def test_the_recipe_has_forty_facts_in_each_scenario_and_room_for_them():
    recipe = load_recipe("acquisition")
    corpus = read_corpus(recipe.corpus, seed=recipe.seed)
    injection = plan_injection(recipe.injection, corpus.update, build_probes(recipe, corpus))
    sizes = {name: len(members) for name, members in injection.schedule.facts.items()}
    assert sizes == {"once": 40, "duplicated": 40, "paraphrased": 40}
    assert len(injection.probes) == 2 * (120 + recipe.injection.n_controls)
    n_at = {}
    for exposure in injection.schedule.exposures:
        n_at[exposure.step] = n_at.get(exposure.step, 0) + 1
    assert max(n_at.values()) <= recipe.training["per_device_train_batch_size"]
    assert recipe.training["max_steps"] - injection.schedule.last_step > 100


@pytest.mark.slow
def test_training_records_the_facts_it_injects(tmp_path, tiny_checkpoint):
    recipe = tiny_recipe(tmp_path, tiny_checkpoint)
    corpus = read_corpus(recipe.corpus, seed=recipe.seed)
    probes = build_probes(recipe, corpus)
    model, tokenizer = load_model(recipe.model), load_tokenizer(recipe.model)
    folder = train(recipe, whole_plan(model), out_dir=tmp_path / "out", probes=probes)
    record = AcquisitionRecord.load(folder / "acquisition.json")
    assert record.steps == tuple(range(0, 17, 2))
    assert sorted(record.scenarios) == [""] * 2 + sorted(["once", "duplicated", "paraphrased"] * 4)
    assert {len(steps) for steps in record.injection_steps.values()} == {1, 3}
    by_id = {probe.id: probe for probe in probes}
    asked = [by_id[name] for name in record.probe_ids]
    for weights, losses in ((model, record.nll[0]), (load_model(folder), record.nll[-1])):
        found = score_probes(weights, tokenizer, asked, progress=False)["nll"]
        assert losses == pytest.approx(found, abs=1e-4)
    log = json.loads((folder / "training.json").read_text())
    assert log["n_steps"] == 16 and log["train_seconds"] > 0


@pytest.mark.slow
def test_the_recipe_runs_to_its_page(gradloc, tmp_path, tiny_checkpoint):
    recipe = tiny_recipe(tmp_path, tiny_checkpoint, "probes.max_evaluation=24")
    run_dir = run(recipe)
    code, out, _ = gradloc("analyze", "acquisition", run_dir)
    assert code == 0 and "paraphrased" in out
    page = (run_dir / "acquisition.html").read_text()
    assert "<h1>acquisition</h1>" in page and "not injected" in page
    # The run's own evaluation asks for what was injected, not for the rest of the corpus.
    results = json.loads((run_dir / "results.json").read_text())
    assert set(AcquisitionRecord.load(run_dir / "checkpoint" / "acquisition.json").probe_ids) == {
        name for name in results["items"]["probe_ids"] if name.startswith("new-")
    }
