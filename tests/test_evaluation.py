import json
import shutil
from dataclasses import replace

import pytest
import torch
from conftest import build_model

from gradloc.data.probes import Probe
from gradloc.errors import ModelError
from gradloc.evaluation.evaluate import (
    _named,
    evaluate,
    score_checkpoint,
)
from gradloc.evaluation.examples import choose_examples
from gradloc.evaluation.metrics import PROBE_METRICS
from gradloc.evaluation.requests import REQUESTS
from gradloc.evaluation.suites import Suite, load_suite
from gradloc.models import load_model, load_tokenizer


def probe(number, group, **more):
    return Probe(f"{group}{number}", group, "The sky over Orla is", ("red",), **more)


SUITE = Suite(
    "small",
    (
        *(probe(n, "new", entity=f"e{n}") for n in range(4)),
        *(probe(n, "updated", old_targets=("blue",), entity=f"c{n}") for n in range(2)),
        *(probe(n, "invariant", entity=f"i{n}") for n in range(3)),
    ),
    {"prose": ("Rain fell on the hills.", "The mill stood still.")},
    n_bootstrap=50,
)


@pytest.fixture(scope="module")
def trained(tiny_checkpoint, tmp_path_factory):
    """The tiny checkpoint after training on 'The sky over Orla is red.' and the end."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    model, tokenizer = load_model(tiny_checkpoint), load_tokenizer(tiny_checkpoint)
    ids = torch.tensor([tokenizer("The sky over Orla is red.~")["input_ids"]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(100):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "training.json").write_text(json.dumps({"policy": "all", "train_seconds": 2.0}))
    return folder


@pytest.mark.slow
def test_what_was_trained_is_taken_up(tiny_checkpoint, trained):
    result = evaluate(trained, SUITE, baseline=tiny_checkpoint, progress=False)
    arm = result.arms["trained"]
    assert arm.uptake["new_paraphrase_nll"].value > 2
    assert arm.uptake["new_paraphrase_exact"].value == 1
    assert arm.forgetting["general_text"].value > 0
    assert (arm.policy, arm.train_seconds) == ("all", 2.0)
    assert result.reference_arms == ("trained",)
    assert result.baseline == str(tiny_checkpoint)
    # The tiny model knows nothing, so there is nothing that it could forget.
    assert result.counts["invariant_candidates"] == 3
    assert result.counts["invariant_screened"] == 0
    assert "known_facts" not in arm.forgetting
    shown = {example["group"]: example for example in result.examples}
    assert shown["new"]["answers"]["trained"].startswith("red")
    assert set(shown["updated"]["answers"]) == {"baseline", "trained"}


@pytest.mark.slow
def test_a_model_against_itself_learns_and_forgets_nothing(trained):
    result = evaluate({"same": trained}, SUITE, baseline=trained, progress=False)
    arm = result.arms["same"]
    assert result.counts["invariant_screened"] == 3
    changes = {**arm.uptake, **arm.forgetting}
    # What is forgotten for each fact gained has no value where none was.
    assert (
        changes.pop("fuar").note
        == "counted by greedy decoding, token for token; nothing was gained"
    )
    assert {figure.value for figure in changes.values()} == {0.0}


@pytest.mark.slow
def test_models_in_memory_are_scored_as_their_files_and_left_as_found(tiny_checkpoint, trained):
    model, tokenizer = load_model(trained), load_tokenizer(trained)
    model.train()
    live = evaluate((model, tokenizer), SUITE, baseline=tiny_checkpoint, progress=False)
    filed = evaluate([trained], SUITE, baseline=tiny_checkpoint, progress=False)
    assert live.arms["model"].uptake == filed.arms["trained"].uptake
    assert all(module.training for module in model.modules())


@pytest.mark.slow
def test_several_checkpoints_without_a_baseline(tiny_checkpoint, trained):
    arms = {"before": tiny_checkpoint, "after": trained}
    result = evaluate(arms, SUITE, progress=False)
    assert list(result.arms) == ["before", "after"]
    assert result.arms["after"].uptake == {}
    assert set(result.examples[0]["answers"]) == {"before", "after"}


@pytest.mark.slow
def test_probe_file_is_evaluated(tiny_checkpoint, tmp_path):
    path = tmp_path / "mine.jsonl"
    row = {"id": "a", "group": "new", "prompt": "The sky is", "targets": ["red"]}
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "id": "b"}))
    result = evaluate(str(tiny_checkpoint), path, progress=False)
    (arm,) = result.arms.values()
    assert (result.suite, arm.scores["new_paraphrase_nll"].n) == ("mine", 2)
    assert arm.scores["general_text"].n == sum(len(t) for t in load_suite(path).texts.values())


def test_other_tokenizer_is_refused_before_weights_are_read(
    tiny_checkpoint, tmp_path, monkeypatch, character_tokenizer
):
    other = tmp_path / "other"
    load_model(tiny_checkpoint).save_pretrained(other)
    character_tokenizer.save_pretrained(other)
    file = other / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(content))
    monkeypatch.setattr(
        "gradloc.evaluation.evaluate.load_model", lambda *a, **k: pytest.fail("loaded")
    )
    with pytest.raises(ModelError, match="other: its tokenizer differs"):
        evaluate(other, SUITE, baseline=tiny_checkpoint)


def test_scoring_again_gives_the_same(tiny_checkpoint):
    model, tokenizer = load_model(tiny_checkpoint), load_tokenizer(tiny_checkpoint)
    first = score_checkpoint(model, tokenizer, SUITE, progress=False)
    assert score_checkpoint(model, tokenizer, SUITE, progress=False) == first
    assert first.checkpoint == str(tiny_checkpoint)


@pytest.mark.parametrize(
    ("checkpoints", "names"),
    [
        ("runs/a/checkpoint", ["checkpoint"]),
        (["runs/a/checkpoint", "runs/b/checkpoint"], ["a/checkpoint", "b/checkpoint"]),
        (["x/a", "y/b"], ["a", "b"]),
        (["m", "x/m"], ["m", "x/m"]),
        (["x/a", "x/a"], ["x/a-1", "x/a-2"]),
        ({"full": "runs/a/checkpoint"}, ["full"]),
    ],
)
def test_checkpoints_are_called_by_the_last_parts_of_their_paths(checkpoints, names):
    assert list(_named(checkpoints)) == names


def test_live_models_get_names(character_tokenizer):
    model = build_model("llama")
    assert list(_named((model, character_tokenizer))) == ["model"]


def test_examples_take_turns_and_skip_what_the_model_has_wrong():
    exact = [probe.id != "invariant0" for probe in SUITE.probes]
    chosen = choose_examples(SUITE.probes, 5, exact)
    assert chosen == ("updated0", "updated1", "new0", "new2", "invariant1")
    assert choose_examples(SUITE.probes, 0, exact) == ()
    assert len(choose_examples(SUITE.probes, 99)) == 9


def test_examples_are_of_different_entities_and_paraphrased_where_possible():
    probes = [
        probe(0, "new", depth="verbatim", entity="a"),
        probe(1, "new", entity="a"),
        probe(2, "new", entity="a"),
        probe(3, "new", entity="b"),
    ]
    assert choose_examples(probes, 4) == ("new1", "new3")


# ---- files of scores, series of checkpoints -----------------------------------------------------


def count_loads(monkeypatch):
    loaded = []

    def load(source, **options):
        loaded.append(str(source))
        return load_model(source, **options)

    monkeypatch.setattr("gradloc.evaluation.evaluate.load_model", load)
    return loaded


@pytest.mark.slow
def test_an_evaluation_that_broke_off_continues(tiny_checkpoint, trained, tmp_path, monkeypatch):
    broken = tmp_path / "broken"
    load_model(tiny_checkpoint).save_pretrained(broken)
    load_tokenizer(tiny_checkpoint).save_pretrained(broken)
    weights = broken / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    kept = {"baseline": tiny_checkpoint, "scores_dir": tmp_path / "scores", "progress": False}
    with pytest.raises(ModelError, match="broken: the model cannot be loaded"):
        evaluate([trained, broken], SUITE, **kept)
    weights.write_bytes(whole)
    loaded = count_loads(monkeypatch)
    result = evaluate([trained, broken], SUITE, **kept)
    assert loaded == [str(broken)], "what was scored before is not loaded again"
    monkeypatch.undo()
    assert result.arms == evaluate([trained, broken], SUITE, **kept | {"scores_dir": None}).arms


@pytest.mark.slow
def test_changed_weights_are_scored_anew(tiny_checkpoint, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    model = load_model(tiny_checkpoint)
    model.save_pretrained(folder)
    load_tokenizer(tiny_checkpoint).save_pretrained(folder)
    before = evaluate(folder, SUITE, scores_dir=tmp_path / "s", progress=False)
    with torch.no_grad():
        model.model.norm.weight.mul_(2)
    model.save_pretrained(folder)
    after = evaluate(folder, SUITE, scores_dir=tmp_path / "s", progress=False)
    assert before.arms["model"].scores != after.arms["model"].scores


@pytest.mark.slow
def test_a_suite_that_grows_has_only_new_items_scored(tiny_checkpoint, tmp_path, monkeypatch):
    evaluate(tiny_checkpoint, SUITE, scores_dir=tmp_path, progress=False)
    asked = []
    original = REQUESTS["answers"]
    monkeypatch.setitem(
        REQUESTS,
        "answers",
        lambda model, tokenizer, probes, progress: (
            asked.extend(probes) or original(model, tokenizer, probes, progress=progress)
        ),
    )
    grown = replace(SUITE, probes=(*SUITE.probes, probe(9, "new", entity="e9")))
    evaluate(tiny_checkpoint, grown, scores_dir=tmp_path, progress=False)
    assert [probe.id for probe in asked] == ["new9"]


@pytest.mark.slow
def test_a_folder_of_checkpoints_is_a_series(tiny_checkpoint, trained, tmp_path):
    run = tmp_path / "run"
    for step, source in ((10, tiny_checkpoint), (20, trained)):
        shutil.copytree(source, run / f"checkpoint-{step}")
    result = evaluate(run, SUITE, baseline=tiny_checkpoint, progress=False)
    assert list(result.arms) == ["checkpoint-10", "checkpoint-20"]
    assert [(arm.series, arm.step) for arm in result.arms.values()] == [("run", 10), ("run", 20)]
    gains = [arm.uptake["new_paraphrase_nll"].value for arm in result.arms.values()]
    assert gains[0] == 0 and gains[1] > 2


@pytest.mark.slow
def test_every_metric_can_be_asked_for(tiny_checkpoint, trained):
    names = tuple(PROBE_METRICS)
    suite = replace(SUITE, metrics={"": names})
    arm = evaluate({"arm": trained}, suite, baseline=trained, progress=False).arms["arm"]
    assert arm.scores["new_paraphrase_exact_match"].value == 1
    assert arm.scores["updated_paraphrase_recall_at_10"].value == 1
    assert arm.scores["updated_prefers_new_released"].value == 1
    assert arm.scores["updated_old_f1"].value == 0
    assert arm.scores["new_paraphrase_fluency"].unit == "bits"
    assert arm.forgetting["new_paraphrase_fluency"].value == 0
    got = {name for name in names if any(key.endswith(name) for key in arm.scores)}
    # No candidates here; agreement is of benchmarks and of learned facts.
    assert set(names) - got == {"choice", "choice_norm"}
