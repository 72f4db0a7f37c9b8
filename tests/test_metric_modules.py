"""Every module for the ``evaluate`` library loads offline and gives what the functions give."""

import doctest
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evaluation.metrics.acquisition import decay
from evaluation.metrics.acquisition import exposures as acquisition
from evaluation.metrics.old_versus_new import updates
from evaluation.metrics.span_perplexity import perplexity
from gradloc.evaluation.metrics import choice, editing, matching, stage_transfer
from gradloc.evaluation.metrics.fuar import fuar

ROOT = Path(__file__).parents[1]
FOLDERS = sorted(path for path in (ROOT / "evaluation" / "metrics").iterdir() if path.is_dir())
NAMES = [folder.name for folder in FOLDERS if not folder.name.startswith("_")]

# Runs in a process of its own: ``evaluate`` reads its folders when it is imported.
LOAD_ALL = """
import doctest, json, pathlib, re, socket, sys
def refuse(*arguments, **options):
    raise AssertionError("a metric module asked the network")
socket.socket.connect = socket.create_connection = refuse
import evaluate
examples, answers = json.load(sys.stdin), {}
for name, calls in examples.items():
    module = evaluate.load(f"evaluation/metrics/{name}")
    answers[name] = {
        "found": [module.compute(**call) for call in calls],
        "description": module.description, "citation": module.citation,
        "inputs": module.inputs_description, "columns": list(module.features),
        "links": list(module.info.reference_urls),
    }
    card = pathlib.Path(f"evaluation/metrics/{name}/README.md").read_text(encoding="utf-8")
    code = "\\n".join(re.findall(r"```python\\n(.*?)```", card, re.DOTALL))
    test = doctest.DocTestParser().get_doctest(code, {}, name, None, None)
    wrong = []
    doctest.DocTestRunner().run(test, out=wrong.append)
    answers[name]["card_examples"], answers[name]["card_wrong"] = len(test.examples), wrong
pathlib.Path(sys.argv[1]).write_text(json.dumps(answers))
"""

R, BASE = [[0.9, 0.2, None], [0.7, 0.8, 0.3], [0.6, 0.7, 0.9]], [0.1, 0.15, 0.2]
LOSSES = [[3.0, 1.0, 1.5, 1.8, 2.0, 2.1, 2.2], [3.0, 2.0, 2.2, 1.4, 1.6, 1.9, 2.0]]
LIKELIHOODS = [[-4.0, -6.0, -9.0], [-3.0, -2.0], [-1.0, -1.5]]

EXAMPLES = {
    "fuar": [
        dict(
            invariant_before=[20.0, 22.0], invariant_after=[18.0, 21.0],
            updated_before=[1.0, 4.0], updated_after=[7.0, 7.0],
            new_before=[0.0, None], new_after=[2.0, 2.0],
        ),
        dict(
            invariant_before=[2.0], invariant_after=[1.0], updated_before=[1.0],
            updated_after=[1.0], new_before=[3.0], new_after=[2.0],
        ),
    ],
    "span_perplexity": [
        dict(
            token_nlls=[[1.0, 3.0], [0.5], [2.0, 2.0, 5.0]], groups=["a", "a", "b"],
            types=["NP", "RANDOM", "NP"],
        ),
        dict(token_nlls=[[1.0, 3.0], [0.5]]),
    ],
    "cloze_match": [
        dict(
            predictions=["The cat.", "<extra_id_0> Paris"],
            references=[["a dog", "cat"], ["Paris"]],
        ),
        dict(predictions=["<extra_id_0> Paris"], references=[["Paris"]], released=True),
    ],
    "old_versus_new": [
        dict(
            predictions=["Nusantara city", "Bonn"], outdated=[["Jakarta"], ["Bonn"]],
            updated=[["Nusantara"], ["Berlin", "East Berlin"]],
            updated_log_probs=[-0.5, -2.0], outdated_log_probs=[-1.5, -2.0],
        ),
    ],
    "candidate_choice": [
        dict(
            log_likelihoods=LIKELIHOODS, references=[[1], [0, 1], []],
            lengths=[[4, 12, 9], [5, 5], [1, 1]],
            before=[[0.0, -1.0, -1.0], [-1.0, 0.0], [0.0, -1.0]],
        ),
    ],
    "edit_quality": [
        dict(
            predictions=[[7, 9], [7, 10], [3]], references=[[7, 9], [7, 9], [4]],
            pristine=[[7, 1], [7, 10], [3]], cases=["a", "a", "b"], kinds=["x", "y", "x"],
        ),
        dict(predictions=[[7, 9], [3]], references=[[7, 9], [4]]),
    ],
    "fluency": [dict(predictions=["the cat sat on the mat", "a a a a a a"])],
    "stage_transfer": [dict(scores=R, base=BASE), dict(scores=R)],
    "acquisition": [
        dict(losses=LOSSES, injection_steps=[[0], [0, 2]], times=[1, 2, 3], window=2),
        dict(losses=LOSSES, injection_steps=[[0], [0, 2]], window=2, outlier_factor=2.0),
    ],
}  # fmt: skip


def expected_acquisition(losses, injection_steps, window, times=None, outlier_factor=1.5):
    facts = list(zip(losses, injection_steps, strict=True))
    times = list(range(1, 7)) if times is None else times
    gains = [acquisition.effectivity(row, s, window) for row, steps in facts for s in steps]
    gains = decay.remove_outliers(gains, outlier_factor)
    curves = [acquisition.retainability(row, steps, times, window) for row, steps in facts]
    curve = decay.mean_retainability(curves, outlier_factor).values
    fit = decay.fit_decay(times, curve)
    return {
        "effectivity": np.mean(gains),
        "n_exposures": 3,
        "times": times,
        "retainability": curve,
        "decay_constant": fit.decay_constant,
        "slope_standard_error": fit.slope_standard_error,
        "r2": fit.r2,
        "threshold_steps": fit.threshold_steps,
        "n": 2,
    }


def expected(name):
    """What the functions of ``gradloc.evaluation.metrics`` give for the same examples."""
    calls = EXAMPLES[name]
    first = calls[0]
    match name:
        case "fuar":
            assert fuar(([20, 22], [18, 21]), ([1, 4], [7, 7]), ([0, None], [2, 2])) == 3 / 11
            return [{"fuar": 3 / 11, "n_stages": 2}, {"fuar": None, "n_stages": 1}]
        case "span_perplexity":
            means = perplexity.example_means(first["token_nlls"])
            return [
                {
                    "perplexity": perplexity.corpus_perplexity(first["token_nlls"]),
                    "n": 3,
                    "perplexity_macro": perplexity.macro_perplexity(means, first["groups"]),
                    "perplexity_by_type": {"NP": np.exp(2.5), "RANDOM": np.exp(0.5)},
                    "n_by_type": {"NP": 2, "RANDOM": 1},
                },
                {"perplexity": np.exp(1.25), "n": 2},
            ]
        case "cloze_match":
            assert matching.exact_match("<extra_id_0> Paris", "Paris") == 1
            return [
                {"exact_match": 1.0, "f1": 1.0, "n": 2},
                {"exact_match": 0.0, "f1": 2 / 3, "n": 1},
            ]
        case "old_versus_new":
            rows = zip(first["predictions"], first["outdated"], first["updated"], strict=True)
            found = np.mean([updates.match_old_and_new(*row) for row in rows], axis=0)
            means = dict(zip(updates.OldAndNew._fields, found, strict=True))
            return [{**means, "prefers_updated": 0.5, "n": 2}]
        case "candidate_choice":
            pairs = zip(first["log_likelihoods"], first["references"], strict=True)
            assert [choice.choice_correct(*pair) for pair in pairs].count(1.0) == 1
            return [{"accuracy": 1 / 3, "accuracy_norm": 2 / 3, "accuracy_before": 1 / 3, "n": 3}]
        case "edit_quality":
            weights = editing.case_weights(first["cases"], first["kinds"])
            return [
                {
                    "token_accuracy": weights @ [1.0, 0.5, 0.0],
                    "agreement": weights @ [0.5, 1.0, 1.0],
                    "n": 3,
                },
                {"token_accuracy": 0.5, "n": 2},
            ]
        case "fluency":
            return [{"fluency": editing.fluency(first["predictions"]), "n": 2}]
        case "stage_transfer":
            return [
                {**stage_transfer.stage_measures(R, BASE), "n_stages": 3},
                {**stage_transfer.stage_measures(R), "n_stages": 3},
            ]
        case "acquisition":
            return [expected_acquisition(**call) for call in calls]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modules")
    home = {name: str(folder / name) for name in ("HF_HOME", "HF_MODULES_CACHE", "HOME")}
    done = subprocess.run(
        [sys.executable, "-c", LOAD_ALL, str(folder / "answers.json")],
        input=json.dumps(EXAMPLES), capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, **home, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
             "HF_EVALUATE_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "answers.json").read_text())


@pytest.mark.parametrize(
    "module", [acquisition, decay, perplexity, updates], ids=lambda m: m.__name__
)
def test_examples_of_the_formulas_beside_a_module(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def test_every_folder_has_an_example_here():
    assert len(NAMES) >= 8
    assert set(EXAMPLES) == set(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_module_equals_the_functions(answers, name):
    found = answers[name]["found"]
    wanted = expected(name)
    assert len(found) == len(wanted) == len(EXAMPLES[name])
    for one, other in zip(found, wanted, strict=True):
        assert set(one) == set(other)
        for key, value in other.items():
            if value is None or isinstance(value, dict):
                assert one[key] == (value and pytest.approx(value)), key
            else:
                assert np.array(one[key], float) == pytest.approx(
                    np.array(value, float), nan_ok=True
                ), key


@pytest.mark.parametrize("name", NAMES)
def test_card_tells_what_one_must_know(answers, name):
    card = (ROOT / "evaluation" / "metrics" / name / "README.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", card, re.MULTILINE)
    assert headings == [
        "Formula",
        "Numbers, unit and direction",
        "Inputs",
        "Example",
        "When it misleads",
        "Source",
    ]
    table = re.findall(r"^\| `(.+?)` \| (.+?) \| (.+?) \|$", card, re.MULTILINE)
    told = {part.strip() for names, _, _ in table for part in names.split(",")}
    for result in answers[name]["found"]:
        # Each number has its row; `times` are no result but the steps that were asked for.
        assert set(result) - {"times"} <= told | {"n_by_type"}
    assert any(re.search("higher|lower", direction) for _, _, direction in table)
    assert re.search(r"arXiv:\d{4}\.\d{5}", card)
    for column in answers[name]["columns"]:
        assert f"`{column}`" in card, "the card tells every input"
    assert answers[name]["card_examples"] >= 2
    assert answers[name]["card_wrong"] == [], "the card's example gives what it says"


@pytest.mark.parametrize("name", NAMES)
def test_module_describes_itself(answers, name):
    told = answers[name]
    assert re.search(r"(higher|lower)\s+is\s+better", told["description"])
    assert "@" in told["citation"] and "Returns:" in told["inputs"]
    for column in told["columns"]:
        assert column in told["inputs"]
    for result in told["found"]:
        for key in result:
            assert key in told["inputs"]
    assert all(link.startswith("https://arxiv.org/abs/") for link in told["links"])
