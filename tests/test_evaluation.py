import json

import pytest
import torch
from conftest import build_model

from gradloc.errors import ModelError
from gradloc.evaluation import _named, choose_examples, evaluate, load_suite, score_checkpoint
from gradloc.models import load_model, load_tokenizer
from gradloc.probes import Probe
from gradloc.suites import Suite


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
    """The tiny checkpoint after training on 'The sky over Orla is red'."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    model, tokenizer = load_model(tiny_checkpoint), load_tokenizer(tiny_checkpoint)
    ids = torch.tensor([tokenizer("The sky over Orla is red")["input_ids"]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(100):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "training.json").write_text(json.dumps({"policy": "all", "train_seconds": 2.0}))
    return folder


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


def test_a_model_against_itself_learns_and_forgets_nothing(trained):
    result = evaluate({"same": trained}, SUITE, baseline=trained, progress=False)
    arm = result.arms["same"]
    assert result.counts["invariant_screened"] == 3
    assert {figure.value for figure in {**arm.uptake, **arm.forgetting}.values()} == {0.0}


def test_models_in_memory_are_scored_as_their_files_and_left_as_found(tiny_checkpoint, trained):
    model, tokenizer = load_model(trained), load_tokenizer(trained)
    model.train()
    live = evaluate((model, tokenizer), SUITE, baseline=tiny_checkpoint, progress=False)
    filed = evaluate([trained], SUITE, baseline=tiny_checkpoint, progress=False)
    assert live.arms["model"].uptake == filed.arms["trained"].uptake
    assert all(module.training for module in model.modules())


def test_several_checkpoints_without_a_baseline(tiny_checkpoint, trained):
    arms = {"before": tiny_checkpoint, "after": trained}
    result = evaluate(arms, SUITE, progress=False)
    assert list(result.arms) == ["before", "after"]
    assert result.arms["after"].uptake == {}
    assert set(result.examples[0]["answers"]) == {"before", "after"}


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
    monkeypatch.setattr("gradloc.evaluation.load_model", lambda *a, **k: pytest.fail("loaded"))
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
