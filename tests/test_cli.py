import json
import logging
import re
import subprocess
import sys
import time

import pytest
from test_callback import write_probes

from gradloc.cli.main import COMMANDS


@pytest.fixture(autouse=True)
def own_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def test_help_answers_at_once_and_imports_no_torch():
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "gradloc.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert time.perf_counter() - start < 5  # 0.1 s alone; a loaded machine gets its time
    modules = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert modules.isdisjoint({"torch", "transformers", "numpy", "pydantic", "rich"})
    for command in COMMANDS:
        assert re.search(rf"^  {command} +[A-Z]", done.stdout, flags=re.MULTILINE), command


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_each_of_its_options(gradloc, command):
    code, out, _ = gradloc(*command.split(), "--help")
    assert code == 0
    assert out.startswith(f"usage: gradloc {command}")
    text = " ".join(re.split(r"^ options *$", out, flags=re.MULTILINE)[-1].split())
    # An option without a text is followed by the next one, or by its default.
    bare = re.findall(
        r" (--[a-z][a-z-]*)(?: [A-Z=]+| \{[\w,]+\})? (?:\((?:default|required)|--)", text
    )
    assert bare == []
    assert not re.search(r"\(default:\s*(None|False|'')?\s*\)", out), "no default worth showing"
    assert "--json" in text or command in ("validate", "report")


def test_help_does_not_import_torch_for_a_single_command_either():
    code = "import sys; from gradloc.cli import evaluate, pipeline, sweep, continual, merge, plan\n"
    code += "print(*{'torch', 'transformers', 'datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_reader_that_goes_away_is_no_error():
    script = [sys.executable, "-u", "-m", "gradloc.cli", "--help"]
    with subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_progress_is_told_with_the_time(gradloc, capsys):
    gradloc("--version")
    logging.getLogger("gradloc.experiments.run").info("train      full")
    logging.getLogger("gradloc.data").warning("cut short")
    logging.getLogger("other").info("not shown")
    assert re.fullmatch(r"\[ 0:0\d\] train      full\ncut short\n", capsys.readouterr().err)


def test_a_policy_of_the_users_own_module(gradloc, tmp_path):
    (tmp_path / "my_policies.py").write_text(
        "import numpy as np\ndef first(profile):\n"
        "    return np.array([float(unit.block == 0) for unit in profile.units])\n"
    )
    (tmp_path / "r.yaml").write_text("name: x\narms: {a: {policy: 'my_policies:first'}}\n")
    code, out, err = gradloc("validate", "r.yaml")
    assert code == 0, err


def test_measure_select_on_files(gradloc, tmp_path, tiny_checkpoint):
    probes, reference = write_probes(tmp_path)
    code, out, err = gradloc(
        "measure", tiny_checkpoint, "--probes", probes, "--reference", reference
    )
    assert code == 0, err
    assert "interference ratio" in out and "relative gradient norm" in out
    code, out, _ = gradloc("select", "profile.json", "--policy", "top_rgn_k", "-o", "k=2", "--json")
    assert code == 0
    plan = json.loads(out)
    assert sum(scale > 0 for scale in plan["scale"].values()) == 2
    assert json.loads((tmp_path / "plan.json").read_text()) == plan
    code, out, _ = gradloc(
        "select", "profile.json", "--policy", "interference_ratio", "--out", "other.json"
    )
    assert code == 0
    assert "●" in out and "Predicted time" in out and "rank correlation" in out


def test_evaluate_prints_nested_figures(gradloc, tmp_path, tiny_checkpoint):
    probes, _ = write_probes(tmp_path)
    (tmp_path / "suite.yaml").write_text(
        "name: mine\nprobes: [{path: probes.jsonl}]\n"
        "general_text: [{name: short, path: short.txt}]\n"
    )
    (tmp_path / "short.txt").write_text("The sea is wide.\n\nRain falls on the hills.\n")
    code, out, err = gradloc(
        "evaluate",
        tiny_checkpoint,
        "--suite",
        "suite.yaml",
        "--baseline",
        tiny_checkpoint,
        "--json",
    )
    assert code == 0, err
    (arm,) = json.loads(out)["arms"].values()
    gained = arm["uptake"]["new_paraphrase_nll"]
    assert gained["value"] == 0  # the baseline itself
    assert gained["n"] == 4
    assert (gained["unit"], gained["higher_is_better"]) == ("nats", True)
    assert "general_text" in arm["forgetting"]


@pytest.fixture
def small_suite(tmp_path):
    write_probes(tmp_path)
    (tmp_path / "suite.yaml").write_text(
        "name: mine\nprobes: [{path: probes.jsonl}]\n"
        "general_text: [{name: short, path: short.txt}]\n"
    )
    (tmp_path / "short.txt").write_text("The sea is wide.\n\nRain falls on the hills.\n")
    return tmp_path / "suite.yaml"


def test_evaluate_keeps_its_result_and_its_scores(gradloc, tmp_path, tiny_checkpoint, small_suite):
    code, _, err = gradloc("evaluate", tiny_checkpoint, "--suite", small_suite)
    assert code == 0, err
    assert json.loads((tmp_path / "results.json").read_text())["suite"] == "mine"
    assert len(list((tmp_path / "results.scores").glob("*.jsonl"))) == 1
    code, _, err = gradloc("evaluate", tiny_checkpoint, "--suite", small_suite)
    assert code == 2 and "results.json exists" in err


def test_checkpoints_may_be_given_names(gradloc, tiny_checkpoint, small_suite):
    named = [f"a={tiny_checkpoint}", f"b={tiny_checkpoint}"]
    code, out, err = gradloc("evaluate", *named, "--suite", small_suite, "--json")
    assert code == 0, err
    assert list(json.loads(out)["arms"]) == ["a", "b"]
    code, _, err = gradloc("evaluate", *named[:1] * 2, "--suite", small_suite, "--force")
    assert code == 2 and "the same name" in err


@pytest.mark.slow
def test_a_condition_that_holds_is_exit_code_3(gradloc, tmp_path, tiny_checkpoint, small_suite):
    arguments = ["evaluate", tiny_checkpoint, "--suite", small_suite, "--baseline", tiny_checkpoint]
    passing, failing = "forgetting.general_text > 0.1", "forgetting.general_text <= 0"
    code, out, err = gradloc(*arguments, "--fail-if", passing)
    assert code == 0, err
    code, out, err = gradloc(
        *arguments, "--fail-if", passing, "--fail-if", failing, "--force", "--json"
    )
    assert code == 3
    assert "forgetting.general_text is 0 nats/token, which is <= 0" in err
    assert json.loads(out)["arms"], "the result is given all the same"
    assert (tmp_path / "results.json").is_file()
    code, _, err = gradloc(*arguments, "--fail-if", "forgetting.text", "--force")
    assert code == 2 and "cannot be read" in err


@pytest.mark.slow
def test_harness_tasks_stand_beside_the_suite(gradloc, tmp_path, tiny_checkpoint, small_suite):
    (tmp_path / "tasks").mkdir()
    rows = [{"q": f"{n} and {n} is", "a": ["so", "no"], "gold": n % 2} for n in range(6)]
    (tmp_path / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tasks" / "quiz.yaml").write_text(
        f"task: quiz\ndataset_path: json\ndataset_kwargs:\n  data_files: {tmp_path}/quiz.jsonl\n"
        'test_split: train\noutput_type: multiple_choice\ndoc_to_text: "{{q}}"\n'
        'doc_to_choice: "{{a}}"\ndoc_to_target: "{{gold}}"\n'
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    code, out, err = gradloc(
        "evaluate", tiny_checkpoint, "--suite", small_suite, "--baseline", tiny_checkpoint,
        "--lm-eval", "quiz", "--lm-eval-include", "tasks", "--lm-eval-limit", 4, "--json",
    )  # fmt: skip
    assert code == 0, err
    (arm,) = json.loads(out)["arms"].values()
    lost = arm["forgetting"]["lm_eval_quiz_acc"]
    assert (lost["value"], lost["n"], lost["unit"]) == (0, 4, "fraction")
    assert 0 <= arm["scores"]["lm_eval_quiz_acc"]["value"] <= 1


def test_validate_reports_every_file(gradloc, tmp_path, tiny_checkpoint):
    probes, _ = write_probes(tmp_path)
    (tmp_path / "bad.yaml").write_text(
        "name: x\ncorpus: {cutof: 2020-01-01}\ntraining: {learning_rate: '1e-3'}\n"
    )
    code, out, err = gradloc("validate", probes, "bad.yaml")
    assert code == 2
    assert "4 probes on 4 entities" in out
    assert "bad.yaml: 2 problems" in err
    assert "Did you mean 'cutoff'?" in err
    assert "'1e-3' is text, not a number; write 1e-3" in err


def test_validate_knows_what_is_shipped_by_name(gradloc):
    code, out, err = gradloc("validate", "quickstart", "sweeps/frontier", "temporal")
    assert code == 0, err
    kinds = [line.split(": ")[1].split()[0] for line in out.splitlines()]
    assert kinds == ["recipe", "sweep", "suite"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"kind": "stream"}', "no plan, profile, results or record of a sweep"),
        ('{"n_steps": 3}', "no plan, profile, results or record of a sweep"),
        ("[]", "no plan, profile, results or record of a sweep"),
        ('{"scale": {}}', "scale: is empty"),
    ],
)
def test_validate_says_what_json_is_not(gradloc, tmp_path, text, message):
    (tmp_path / "some.json").write_text(text)
    code, _, err = gradloc("validate", "some.json")
    assert code == 2 and message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["select", "nothing.json"], "nothing.json: no such file; expected a gradient profile"),
        (["run", "nothing.yaml"], "no such file, and no shipped recipe"),
        (["measure", "nowhere/model", "--probes", "nothing.jsonl"], "nothing.jsonl"),
        (["evaluate", "nowhere/model", "--suite", "temporl"], "Did you mean 'temporal'?"),
        (["report", "."], "gradloc evaluate"),
        (["evaluate", "nowhere/model", "--fail-if", "x"], "cannot be read; write it like"),
        (["evaluate", "nowhere/model", "--lm-eval-limit", "x"], "invalid literal for int()"),
        (["evaluate", "nowhere/model", "--fail-if", "forgetting.x > 0"], "without --baseline"),
        (
            ["measure", "nowhere/model", "--probes", "p", "--n-probes", "0"],
            "--n-probes must be greater than or equal to 1, found 0",
        ),
        (["measure", "nowhere/model", "--probes", "p", "--n-reference=-3"], "equal to 1, found -3"),
        (["measure", "nowhere/model", "--probes", "p", "--max-length", "1"], "equal to 2, found 1"),
        (["run", "sweeps/frontier"], "1 problem\n  is a sweep; run it with: gradloc sweep sweeps/"),
        (["sweep", "quickstart"], "1 problem\n  is a recipe; run it with: gradloc run quickstart"),
        (["selec"], "command 'selec' is unknown. Did you mean 'select'?"),
        (["select", "p.json", "--polcy", "x"], "no option --polcy. Did you mean '--policy'?"),
        (["measure", "m", "--probes", "p", "--reference", "background"], "only a recipe has"),
        (["evaluate"], "--checkpoints needs at least 1, found 0"),
        (["plan", "m", "--dtype", "int8"], "invalid choice 'int8'"),
        (["select"], "Missing from gradloc select"),
    ],
)
def test_bad_input_is_one_error_with_exit_code_2(gradloc, arguments, message):
    code, out, err = gradloc(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert out == ""


def test_debug_shows_the_traceback(gradloc):
    with pytest.raises(Exception, match="no such file"):
        gradloc("select", "nothing.json", "--debug")


def test_a_finished_file_is_not_overwritten_without_force(gradloc, tmp_path):
    (tmp_path / "plan.json").write_text("mine")
    code, _, err = gradloc("select", "profile.json")
    assert code == 2
    assert "--force" in err
    assert (tmp_path / "plan.json").read_text() == "mine"
