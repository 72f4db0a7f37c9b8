import json
from pathlib import Path

import pytest

from gradloc.config.shipped import shipped_names
from gradloc.data.corpora import held_out_texts
from gradloc.data.corpora.readers import read_corpus
from gradloc.data.preparation import build_probes
from gradloc.data.probes import Probe
from gradloc.errors import ProbeError, SuiteError
from gradloc.evaluation.score_record import CheckpointScores
from gradloc.evaluation.suites import Suite, load_suite, recipe_suite
from gradloc.experiments.recipes import load_recipe


@pytest.fixture
def facts(tmp_path):
    rows = [
        {
            "id": f"{group}{n}",
            "group": group,
            "prompt": "It is",
            "targets": ["so"],
            "entity": str(n),
        }
        for group in ("new", "invariant")
        for n in range(5)
    ]
    rows[1]["split"] = "localization"
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write(folder, text):
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


DATA = Path(__file__).parents[2] / "shared" / "data"
SHIPPED = shipped_names("suites")
NEED_DATA = ("abilities", "fictional-knowledge", "knowledge-edits")


def test_suites_are_shipped():
    assert {"temporal", "temporal-full", *NEED_DATA} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_suite_loads(name, tmp_path, monkeypatch):
    if name in NEED_DATA:
        if not DATA.is_dir():
            pytest.skip("the data that this suite reads are not beside the checkout")
        (tmp_path / "data").symlink_to(DATA)
    monkeypatch.chdir(tmp_path)
    suite = load_suite(name)
    assert suite.name == name and suite.probes and all(suite.texts.values())
    for task in {probe.task for probe in suite.probes}:
        assert suite.metrics_of(task)


@pytest.mark.parametrize("name", NEED_DATA)
def test_suites_of_the_users_files_say_what_is_missing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SuiteError, match=r"probes.0.path: no file 'data/"):
        load_suite(name)


def test_tasks_kinds_metrics_and_groups(tmp_path, facts):
    rows = [{"query": f"Question: {n}?", "choices": ["a", "b"], "gold": 0} for n in range(3)]
    (tmp_path / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = write(
        tmp_path,
        "name: mine\nmetrics: [nll, f1]\nprobes:\n- path: facts.jsonl\n"
        "- {path: facts.jsonl, task: again, metrics: [perplexity], fields: {entity: id}}\n"
        "- {path: quiz.jsonl, format: multiple_choice, metrics: [choice_norm], max_probes: 2}\n"
        "groups: [invariant]\n",
    )
    with pytest.raises(ProbeError, match="invariant0"):  # the same ids twice
        load_suite(path)
    path.write_text(path.read_text().replace(
        "- {path: facts.jsonl, task: again, metrics: [perplexity], fields: {entity: id}}\n", ""
    ))  # fmt: skip
    suite = load_suite(path)
    assert {probe.group for probe in suite.probes} == {"invariant"}
    assert [probe.task for probe in suite.probes] == [""] * 5 + ["quiz"] * 2
    assert suite.metrics_of("") == ("nll", "f1")
    assert suite.metrics_of("quiz") == ("choice_norm",)
    requests = suite.probes_of_requests()
    assert set(requests) == {"answers", "written"}
    assert len(requests["answers"]) == 7 and len(requests["written"]) == 5


def test_usual_metrics_of_choices_are_the_choice(facts):
    suite = load_suite(facts)
    assert "choice" not in suite.metrics_of("")
    quiz = Suite("quiz", (Probe("a", "invariant", "x", ("y",), candidates=("y", "z")),), {})
    assert quiz.metrics_of("") == ("choice", "choice_norm")


def test_formats_and_metrics_are_checked(tmp_path, facts):
    path = write(
        tmp_path,
        "name: x\nmetrics: [nl]\nprobes:\n- {path: facts.jsonl, format: ecbdd}\n",
    )
    with pytest.raises(SuiteError, match="there is no metric 'nl'. Did you mean 'nll'?"):
        load_suite(path)
    path.write_text(path.read_text().replace("[nl]", "[nll]"))
    with pytest.raises(SuiteError, match="no benchmark 'ecbdd'. Did you mean 'ecbd'?"):
        load_suite(path)
    path.write_text(path.read_text().replace("ecbdd", "ecbd, fields: {id: x}"))
    with pytest.raises(SuiteError, match="fields: has no effect with 'format: ecbd'"):
        load_suite(path)


def test_temporal_asks_what_the_quickstart_asks():
    recipe = load_recipe("quickstart")
    probes = build_probes(recipe, read_corpus(recipe.corpus, seed=recipe.seed))
    temporal, quickstart = load_suite("temporal"), recipe_suite(recipe, probes)
    assert temporal.probes == quickstart.probes
    assert temporal.texts == quickstart.texts
    assert not any(probe.split == "localization" for probe in temporal.probes)
    assert {probe.group for probe in temporal.probes} == {"new", "updated", "invariant"}


def test_suite_file_names_files_beside_it(tmp_path, facts, monkeypatch):
    (tmp_path / "prose.txt").write_text("First passage.\n\nSecond passage.\n\nThird.")
    path = write(
        tmp_path,
        "name: mine\nprobes:\n- path: facts.jsonl\n"
        "general_text:\n- {name: prose, path: prose.txt, max_texts: 2}\nmax_probes: 3\n",
    )
    monkeypatch.chdir(tmp_path.parent)
    suite = load_suite(path)
    # The probe that chose layers is left out, then three of each group stay.
    assert [p.id for p in suite.probes] == [
        "new0", "new2", "new3", "invariant0", "invariant1", "invariant2",
    ]  # fmt: skip
    assert suite.texts == {"prose": ("First passage.", "Second passage.")}


def test_probe_file_is_a_suite(facts):
    suite = load_suite(str(facts))
    assert (suite.name, len(suite.probes)) == ("facts", 9)
    assert suite.texts == held_out_texts()


def test_run_folder_is_a_suite(tmp_path, facts):
    run = tmp_path / "run"
    run.mkdir()
    facts.rename(run / "probes.jsonl")
    assert load_suite(run).name == "run"
    (tmp_path / "prose.txt").write_text("A passage.")
    (run / "recipe.yaml").write_text(
        "name: other\nevaluation:\n  n_examples: 2\n  general_text:\n"
        f"  - {{name: prose, path: {tmp_path / 'prose.txt'}}}\n"
    )
    suite = load_suite(run)
    assert (suite.name, suite.n_examples, len(suite.probes)) == ("other", 2, 9)
    assert suite.texts == {"prose": ("A passage.",)}


def test_all_problems_are_reported_together(tmp_path):
    path = write(
        tmp_path,
        "nam: mine\nprobes:\n- path: gone.jsonl\n  defaults: {group: true}\nmax_probes: 0\n",
    )
    with pytest.raises(SuiteError) as caught:
        load_suite(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: 4 problems")
    for part in (
        "nam: unknown key. Did you mean 'name'?",
        "name: is missing",
        "probes.0.defaults.group: true is no text",
        "max_probes: must be greater than or equal to 1",
    ):
        assert part in text


def test_missing_files_are_reported_together(tmp_path):
    path = write(
        tmp_path,
        "name: mine\nprobes: [{path: a.jsonl}]\ngeneral_text: [{name: b, path: b.txt}]\n",
    )
    with pytest.raises(SuiteError) as caught:
        load_suite(path)
    assert len(caught.value.problems) == 2
    assert "probes.0.path: no file 'a.jsonl'" in str(caught.value)
    assert "general_text.0.path: no file 'b.txt'" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the file is empty"),
        ("- a\n", "expected a mapping"),
        ("name: mine\n", "probes: is missing; list probe files here, or name a 'recipe'"),
        ("name: mine\nrecipe: 2020\n", "recipe"),
    ],
)
def test_suites_that_cannot_be(tmp_path, text, problem):
    with pytest.raises(SuiteError) as caught:
        load_suite(write(tmp_path, text))
    assert problem in str(caught.value)


def test_unknown_suite_names_the_nearest():
    with pytest.raises(SuiteError, match="Did you mean 'temporal'"):
        load_suite("temporl")


def test_folder_without_probes(tmp_path):
    with pytest.raises(SuiteError, match="without probes.jsonl"):
        load_suite(tmp_path)


def test_same_id_in_two_files(tmp_path, facts):
    (tmp_path / "again.jsonl").write_text(facts.read_text())
    path = write(tmp_path, "name: x\nprobes: [{path: facts.jsonl}, {path: again.jsonl}]\n")
    with pytest.raises(ProbeError, match="new0"):
        load_suite(path)


def test_nothing_left_to_ask(tmp_path, facts):
    row = {"prompt": "a", "targets": ["b"], "group": "new", "split": "localization"}
    facts.write_text(json.dumps(row))
    with pytest.raises(SuiteError, match="no probe to ask"):
        load_suite(facts)


def test_screening_keeps_what_the_baseline_has_right(facts):
    suite = load_suite(facts)
    ids = tuple(probe.id for probe in suite.probes)
    exact = [identifier in ("invariant1", "invariant3") for identifier in ids]
    baseline = CheckpointScores("base", ids, {"exact": exact}, {}, {"new0": "so"})
    screened = suite.screened(baseline)
    assert [p.id for p in screened.probes] == [
        "new0", "new2", "new3", "new4", "invariant1", "invariant3",
    ]  # fmt: skip
    assert screened.n_invariant_candidates == 5
    assert screened.example_ids == ("new0",)
