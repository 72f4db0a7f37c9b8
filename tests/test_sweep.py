import json
import re
import shutil

import numpy as np
import pytest
from conftest import INVENTED_WORLD

from gradloc import EvalResult
from gradloc.cli.validation import validate_file
from gradloc.config.yaml_source import dump_yaml
from gradloc.errors import GradlocError, RecipeError
from gradloc.evaluation.score_record import ItemScores
from gradloc.experiments.sweep.run_sweep import make_shared, run_one, run_sweep, shared_recipe
from gradloc.experiments.sweep.sweep_config import load_sweep
from gradloc.experiments.sweep.sweep_record import RunRecord, SweepRecord
from gradloc.experiments.sweep.sweep_runs import sweep_runs
from gradloc.utils.io import read_json


@pytest.fixture
def sweep_file(tmp_path, tiny_checkpoint):
    (tmp_path / "short.txt").write_text("The sea is wide.\n\nRain falls on the hills.\n")
    recipe = {
        "name": "tiny",
        "model": str(tiny_checkpoint),
        "corpus": {
            "source": INVENTED_WORLD,
            "cutoff": "2010-12-31",
            "max_length": 64,
            "options": {"n_entities": 12, "n_phrasings": 2},
        },
        "probes": {"max_evaluation": 8, "max_localization": 6, "screen_invariant": False},
        "measure": {"n_probes": 4, "n_reference": 4, "max_length": 64, "reference": "general"},
        "training": {
            "max_steps": 2,
            "per_device_train_batch_size": 2,
            "use_cpu": True,
            "disable_tqdm": True,
        },
        "evaluation": {
            "n_curve_points": 0,
            "n_examples": 1,
            "n_bootstrap": 20,
            "general_text": [{"name": "short", "path": str(tmp_path / "short.txt")}],
        },
    }
    (tmp_path / "tiny.yaml").write_text(dump_yaml(recipe))
    sweep = {
        "name": "small",
        "output_dir": str(tmp_path / "runs"),
        "corpora": {"invented": {"recipe": str(tmp_path / "tiny.yaml")}},
        "seeds": [0, 1],
        "arms": {
            "full": {"policy": "all", "rates": [0.001, 0.01]},
            "ours": {"options": {"k": 2}, "rates": [0.01]},
        },
    }
    path = tmp_path / "small.yaml"
    path.write_text(dump_yaml(sweep))
    return path


def test_cells_are_every_arm_rate_and_seed_and_the_first_seed_comes_first(sweep_file):
    sweep = load_sweep(sweep_file)
    runs = sweep_runs(sweep)
    found = [(run.arm, run.rate, run.seed) for run in runs]
    once = [("full", 0.001), ("full", 0.01), ("ours", 0.01)]
    assert found == [(*pair, seed) for seed in (0, 1) for pair in once]
    assert len({run.recipe.run_dir for run in runs}) == len(runs)
    for run in runs:
        assert list(run.recipe.arms) == [run.arm]
        assert run.recipe.arms[run.arm].training["learning_rate"] == run.rate
        assert run.recipe.seed == run.seed


def test_an_arm_that_is_not_there_is_told(sweep_file):
    with pytest.raises(GradlocError, match="Did you mean 'full'"):
        sweep_runs(load_sweep(sweep_file), arms=["ful"])


def test_an_arm_can_have_its_own_corpora(sweep_file):
    recipe = load_sweep(sweep_file).corpora["invented"].recipe
    overrides = [
        f"corpora.other={{recipe: '{recipe}'}}",
        "arms.weights={policy: 'evaluation.studies.rivals.spectrum:spectrum', rates: [0.01]}",
        "arms.weights.corpora=[other]",
    ]
    found = {(run.corpus, run.arm) for run in sweep_runs(load_sweep(sweep_file, overrides))}
    assert ("other", "weights") in found
    assert ("invented", "weights") not in found


def test_validate_knows_a_sweep(sweep_file):
    assert validate_file(sweep_file) == "sweep small of invented, arms full, ours"
    text = sweep_file.read_text().replace("policy: all", "policy: al")
    sweep_file.write_text(text)
    with pytest.raises(RecipeError, match=r"arms.full.policy: .*Did you mean 'all'"):
        validate_file(sweep_file)


def test_all_problems_of_a_sweep_are_reported_at_once(sweep_file):
    overrides = [
        "line=fulll",
        "arms.ours.policy=interference",
        "arms.ours.rates=[]",
        "corpora.invented.set={measure.n_probess: 3}",
    ]
    with pytest.raises(RecipeError) as caught:
        load_sweep(sweep_file, overrides)
    text = str(caught.value)
    for word in ("fulll", "arms.ours.policy", "rates", "n_probess"):
        assert word in text


@pytest.mark.slow
def test_a_sweep_runs_resumes_and_keeps_what_it_has(sweep_file, monkeypatch):
    sweep = load_sweep(sweep_file, ["seeds=[0]"])
    runs = sweep_runs(sweep)
    path, failed = run_sweep(sweep, runs[:1])
    assert failed == {}
    first = SweepRecord.load(path)
    assert [(c.arm, c.learning_rate) for c in first.runs] == [("full", 0.001)]

    before = (runs[0].recipe.run_dir / "results.json").stat().st_mtime_ns
    path, failed = run_sweep(sweep, runs)
    record = SweepRecord.load(path)
    assert failed == {} and len(record.runs) == 3
    assert (runs[0].recipe.run_dir / "results.json").stat().st_mtime_ns == before
    assert not list(sweep.folder.rglob("*.safetensors")), "weights go once they are scored"

    # An arm added later is all that runs.
    more = load_sweep(sweep_file, ["seeds=[0]", "arms.last={policy: top_k, rates: [0.01]}"])
    more_cells = sweep_runs(more)
    assert [run.arm for run in more_cells if run.state == "open"] == ["last"]
    # What a seed's runs share is the same in each of them.
    start = shared_recipe(runs[0]).run_dir
    for run in runs:
        for name in ("probes.jsonl", "profile.json"):
            assert (run.recipe.run_dir / name).read_bytes() == (start / name).read_bytes()


@pytest.mark.slow
def test_records_hold_the_changes_that_the_run_itself_reports(sweep_file):
    """The record's mean over items is the figure that results.json gives for the same run."""
    sweep = load_sweep(sweep_file, ["seeds=[0]", "arms.full.rates=[0.01]"])
    run = sweep_runs(sweep)[0]
    path, _ = run_sweep(sweep, [run])
    (record,) = SweepRecord.load(path).runs
    arm = EvalResult.load(run.recipe.run_dir / "results.json").arms["full"]
    reported = {**arm.uptake, **arm.forgetting}
    compared = 0
    for name, measure in record.metrics.items():
        mean = np.average(measure.values, weights=measure.weights)
        assert mean == pytest.approx(reported[name].value, abs=2e-4), name
        compared += 1
    assert {"new_paraphrase_nll", "known_facts", "known_facts_nll", "general_text"} <= set(
        record.metrics
    )
    assert compared >= 5 and any(abs(v) > 1e-3 for v in record.metrics["general_text"].values)


@pytest.mark.slow
def test_a_cell_that_fails_stops_no_other(sweep_file):
    sweep = load_sweep(sweep_file, ["seeds=[0]"])
    runs = sweep_runs(sweep)
    # A folder of another recipe where the first run wants to be.
    make_shared(runs[0])
    folder = runs[0].recipe.run_dir
    shutil.copytree(shared_recipe(runs[0]).run_dir, folder)
    path, failed = run_sweep(sweep, runs)
    assert list(failed) == [runs[0].label] and "another recipe" in failed[runs[0].label]
    assert len(SweepRecord.load(path).runs) == 2


@pytest.mark.slow
def test_a_run_of_another_recipe_is_stale_and_says_so(gradloc, sweep_file):
    small = ["seeds=[0]", "arms.full.rates=[0.01]"]
    sweep = load_sweep(sweep_file, small)
    run_sweep(sweep, sweep_runs(sweep))
    changed = load_sweep(sweep_file, [*small, "arms.ours.options.k=1"])
    assert [run.state for run in sweep_runs(changed)] == ["done", "stale"]
    path, failed = run_sweep(changed, sweep_runs(changed))
    ((label, reason),) = failed.items()
    assert "ours" in label and "another recipe (differs in arms)" in reason
    assert [run.arm for run in SweepRecord.load(path).runs] == ["full"]


def test_files_that_are_missing_are_named_before_anything_runs(gradloc, sweep_file):
    paths = "[{path: nowhere/facts.jsonl}, {path: nowhere/more.jsonl}]"
    text = "[{name: t, path: nowhere/text.txt}]"
    lacking = f"{{probes.sources: {paths}, evaluation.general_text: {text}}}"
    arguments = ["sweep", str(sweep_file), "--set", f"corpora.invented.set={lacking}"]
    code, out, err = gradloc(*arguments)
    assert code == 2
    words = ("nowhere/facts.jsonl", "nowhere/more.jsonl", "nowhere/text.txt", "relative to")
    assert all(err.count(word) == 1 for word in words)
    assert out == "" and not (sweep_file.parent / "runs").exists()
    code, out, _ = gradloc(*arguments, "--list")
    assert code == 0 and out.count("open") == 6


def test_where_every_run_fails_the_first_reason_is_given(gradloc, sweep_file):
    arguments = ["sweep", str(sweep_file), "--set", "corpora.invented.set={model: ./nowhere}"]
    code, _, err = gradloc(*arguments, "--arm", "full", "--seed", "0")
    words = r"2 failed; .*\n  invented · full at 0\.001 · seed 0: \./nowhere"
    assert code == 2 and re.search(words, err)


@pytest.mark.slow
def test_two_processes_give_what_one_gives(sweep_file, tmp_path):
    one = load_sweep(sweep_file, ["seeds=[0]", f"output_dir={tmp_path / 'one'}"])
    two = load_sweep(sweep_file, ["seeds=[0]", f"output_dir={tmp_path / 'two'}"])
    records = []
    for sweep, jobs in ((one, 1), (two, 2)):
        path, failed = run_sweep(sweep, sweep_runs(sweep), jobs=jobs)
        assert failed == {}
        records.append(SweepRecord.load(path))
    for a, b in zip(*(record.runs for record in records), strict=True):
        assert (a.arm, a.learning_rate) == (b.arm, b.learning_rate)
        for name, measure in a.metrics.items():
            np.testing.assert_allclose(measure.values, b.metrics[name].values, atol=2e-3)


@pytest.mark.slow
def test_a_killed_cell_continues(sweep_file, monkeypatch):
    import gradloc.experiments.run as pipeline

    sweep = load_sweep(sweep_file, ["seeds=[0]"])
    run = sweep_runs(sweep)[0]

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            run_one(run)
    assert run.state == "open"
    trained = run.recipe.run_dir / "checkpoint" / "training.json"
    before = trained.stat().st_mtime_ns
    run_one(run)
    assert run.state == "done"
    assert trained.stat().st_mtime_ns == before, "the training is not done twice"


def test_a_record_reads_back_equal(tmp_path):
    measure = ItemScores("uptake", "nats", (0.5, -0.25), (0, 1), None)
    run = RunRecord("c", "full", "all", {"ema": {}}, 1e-4, 0, 1.0, 2.0, 1.0, 3, 3, {"m": measure})
    earlier = ({"command": "gradloc sweep s", "environment": {"a": 0}},)
    record = SweepRecord("s", "full", "m", (run,), "gradloc sweep", {"a": 1}, earlier)
    assert SweepRecord.load(record.save(tmp_path / "sweep.json")) == record
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(GradlocError, match="record of a sweep"):
        SweepRecord.load(tmp_path / "other.json")


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", ["methods={l2_to_start: {}}", "training={adam_beta1: 0.5}", "options={only: mlp}"]
)
def test_a_sweep_goes_on_elsewhere_from_its_record_alone(sweep_file, tmp_path, change):
    """What an earlier session ran is kept; a changed arm and what is missing are run."""
    sweep = load_sweep(sweep_file, ["seeds=[0]", "arms.full.rates=[0.01]"])
    first, _ = run_sweep(sweep, sweep_runs(sweep), command="first")
    earlier = SweepRecord.load(shutil.copy(first, tmp_path / "earlier.json"))
    shutil.rmtree(sweep.folder)

    changes = ["seeds=[0]", f"arms.ours.{change}"]
    again = load_sweep(sweep_file, changes)
    path, failed = run_sweep(again, sweep_runs(again), command="second", earlier=earlier)
    assert not failed
    assert [run.state for run in sweep_runs(again)] == ["done", "open", "done"]
    record = SweepRecord.load(path)
    places = [(run.arm, run.learning_rate, run.session) for run in record.runs]
    assert places == [("full", 0.001, 1), ("full", 0.01, 0), ("ours", 0.01, 1)]
    assert record.runs[1] == earlier.runs[0]
    assert [session["command"] for session in record.sessions] == ["first", "second"]


@pytest.mark.slow
def test_the_command_lists_runs_and_draws(gradloc, sweep_file):
    small = ["--set", "seeds=[0]", "--set", "arms.full.rates=[0.01]"]
    code, out, _ = gradloc("sweep", sweep_file, *small, "--list")
    assert code == 0 and out.count("open") == 2
    code, _, err = gradloc("sweep", sweep_file, *small)
    assert code == 0, err
    folder = sweep_file.parent / "runs" / "small"
    assert (folder / "frontier.html").stat().st_size > 10_000
    assert {run["arm"] for run in read_json(folder / "sweep.json", "record")["runs"]} == {
        "full",
        "ours",
    }
    kept = shutil.copy(folder / "sweep.json", sweep_file.parent / "kept.json")
    elsewhere = ["--set", f"output_dir={sweep_file.parent / 'elsewhere'}", "--earlier", str(kept)]
    code, out, _ = gradloc("sweep", sweep_file, *small, *elsewhere, "--list")
    assert code == 0 and out.count("done") == 2
    code, out, err = gradloc("sweep", folder / "sweep.json", "--json")
    assert code == 0, err
    assert json.loads(out)
