import json

import numpy as np
import pytest

from gradloc.data.probes import Probe
from gradloc.errors import GradlocError
from gradloc.evaluation.compare import summarize, training_facts
from gradloc.evaluation.results import EvalResult
from gradloc.evaluation.score_record import CheckpointScores
from gradloc.evaluation.suites import Suite

PROBES = (
    Probe("n1", "new", "The head of Orla is", ("Ann",), entity="Orla"),
    Probe("n2", "new", "Orla is led by", ("Ann",), entity="Orla"),
    Probe("n3", "new", "Its head was born in", ("Ulm",), depth="composition", entity="Orla"),
    Probe("n4", "new", "The head of Brin is", ("Tom",), entity="Brin"),
    Probe("u1", "updated", "Money:", ("euro",), old_targets=("kuna",), entity="Croatia"),
    Probe("u2", "updated", "Coin:", ("euro",), old_targets=("lats",), entity="Latvia"),
    Probe("i1", "invariant", "Capital:", ("Paris",), entity="France"),
    Probe("i2", "invariant", "Capital:", ("Rome",), entity="Italy"),
    Probe("i3", "invariant", "Capital:", ("Oslo",), entity="Norway"),
)
NEW = ("n1", "n2", "n3", "n4")


def scores(name, nll, exact, old_nll, nats):
    old = [None] * 4 + list(old_nll) + [None] * 3
    columns = {"nll": list(nll), "exact": list(exact), "old_nll": old}
    texts = {
        "web": {"nats": nats[:2], "tokens": [10, 30]},
        "wiki": {"nats": nats[2:], "tokens": [20, 0]},
    }
    ids = tuple(probe.id for probe in PROBES)
    return CheckpointScores(name, ids, columns, texts, {"n1": f"{name} says", "i1": "Paris"})


BASE = scores(
    "base",
    [6.0, 5.0, 4.0, 7.0, 3.0, 2.0, 0.5, 1.0, 4.0],
    [0, 0, 0, 0, 0, 0, 1, 1, 0],
    [1.0, 2.5],
    [30.0, 90.0, 60.0, 0.0],
)
# Learns new facts by 3, 3, 1 and 5 nats, one updated fact, and forgets Rome and some text.
ARM = scores(
    "arm",
    [3.0, 2.0, 3.0, 2.0, 1.0, 2.0, 0.6, 1.9, 9.0],
    [1, 0, 0, 1, 1, 0, 1, 0, 0],
    [2.0, 1.5],
    [32.0, 93.0, 61.0, 0.0],
)
# Full training: half the uptake at .2 nats a token, all of it and a little more at .5.
LOW = scores(
    "low",
    [4.0, 4.0, 4.0, 5.0, 3.0, 2.0, 0.7, 1.2, 4.0],
    [0, 0, 0, 0, 0, 0, 1, 1, 0],
    [1.0, 2.5],
    [32.0, 96.0, 64.0, 0.0],
)
HIGH = scores(
    "high",
    [2.0, 1.0, 1.0, 2.0, 1.0, 1.0, 2.0, 2.0, 9.0],
    [1, 1, 1, 1, 1, 1, 0, 0, 0],
    [2.0, 2.5],
    [35.0, 105.0, 70.0, 0.0],
)
FULL = {n: {"policy": "all"} for n in ("low", "high")}


@pytest.fixture
def suite():
    return Suite("facts", PROBES, {"web": ("a", "b"), "wiki": ("c", "d")}, n_bootstrap=300)


@pytest.fixture
def result(suite):
    arms = {"arm": ARM, "low": LOW, "high": HIGH}
    return summarize(suite.screened(BASE), BASE, arms, FULL)


def values(figures):
    return {name: round(figure.value, 6) for name, figure in figures.items()}


def test_uptake_equals_the_table(result):
    assert values(result.arms["arm"].uptake) == {
        "new_paraphrase_nll": 3.666667,  # (3 + 3 + 5) / 3
        "new_paraphrase_exact": 0.666667,
        "new_composition_nll": 1.0,
        "new_composition_exact": 0.0,
        "new_nll": 3.0,
        "new_exact": 0.5,
        "updated_paraphrase_nll": 1.0,  # one depth only, so nothing is pooled
        "updated_paraphrase_exact": 0.5,
        "updated_prefers_new": 0.0,  # Croatia's is gained, Latvia's lost
    }
    figure = result.arms["arm"].uptake["new_paraphrase_nll"]
    assert (figure.n, figure.unit, figure.higher_is_better) == (3, "nats", True)
    # Two entities: a resample is Orla twice (gain 3), Brin twice (5), or both.
    assert (figure.low, figure.high) == (3.0, 5.0)


def test_forgetting_equals_the_table(result):
    forgetting = result.arms["arm"].forgetting
    assert values(forgetting) == {
        "known_facts": 0.5,  # Rome, of Paris and Rome: Oslo was never known
        "known_facts_nll": 0.5,  # (.1 + .9) / 2
        "general_text": 0.1,  # (2 + 3 + 1) / 60
        "general_text_web": 0.125,
        "general_text_wiki": 0.05,
        "fuar": 0.5,  # half of the known facts, for half of the updated and half of the new
    }
    assert not any(figure.higher_is_better for figure in forgetting.values())
    assert (forgetting["general_text"].n, forgetting["general_text"].unit) == (3, "nats/token")
    assert forgetting["known_facts"].n == 2
    assert "baseline has right" in forgetting["known_facts"].note


def test_scores_are_the_checkpoints_own_with_their_own_direction(result):
    own, base = result.arms["arm"].scores, result.baseline_scores
    assert values(own) | {"known_facts": 0.5, "general_text": 3.1} == values(own)
    assert own["new_paraphrase_nll"].value == pytest.approx((3 + 2 + 2) / 3)
    assert base["known_facts"].value == 1.0
    assert base["general_text"].value == pytest.approx(3.0)
    directions = {name: figure.higher_is_better for name, figure in own.items()}
    assert directions["known_facts"] and directions["new_exact"]
    assert not directions["known_facts_nll"] and not directions["general_text"]
    changes = {**result.arms["arm"].uptake, **result.arms["arm"].forgetting}
    del changes["fuar"]  # a ratio of changes, which no model has by itself
    for name, change in changes.items():
        sign = 1 if own[name].higher_is_better == change.higher_is_better else -1
        assert change.value == pytest.approx(sign * (own[name].value - base[name].value)), name


def test_arms_are_compared_with_full_training_at_equal_uptake(result):
    assert result.reference_arms == ("low", "high")
    versus = result.arms["arm"].versus_full
    # Uptake of paraphrases: low 5/3, arm 11/3, high 13/3.
    assert versus["uptake_share"].value == pytest.approx(11 / 13)
    # Text: low .2, high .5 nats a token; at 11/3 the line is at .2 + .3 * (2 / (8/3)).
    assert versus["forgetting_ratio_general_text"].value == pytest.approx(0.1 / 0.425)
    # Known facts: low loses none, high both.
    assert versus["forgetting_ratio_known_facts"].value == pytest.approx(0.5 / 0.75)
    assert versus["forgetting_ratio_known_facts_nll"].value == pytest.approx(0.5 / 0.9875)
    assert result.arms["low"].versus_full == {} == result.arms["high"].versus_full


def test_reference_arms_may_be_named(suite):
    arms = {"arm": ARM, "low": LOW}
    found = summarize(suite, BASE, arms, reference_arms=["low"])
    note = found.arms["arm"].versus_full["forgetting_ratio_general_text"].note
    assert "takes up more" in note
    assert summarize(suite, BASE, arms).arms["arm"].versus_full == {}


def test_an_arm_with_a_method_is_no_line_of_full_training(suite):
    """LoRA and replay train everything by policy; compared with themselves they would look well."""
    facts = {
        "low": {"policy": "all"},
        "arm": {"policy": "all", "methods": {"lora": {"r": 16}}},
    }
    found = summarize(suite, BASE, {"arm": ARM, "low": LOW}, facts)
    assert found.reference_arms == ("low",)
    assert "uptake_share" in found.arms["arm"].versus_full
    assert found.arms["arm"].methods == {"lora": {"r": 16}}


def test_without_a_baseline_there_are_only_scores(suite):
    found = summarize(suite, None, {"arm": ARM}, {"arm": {"policy": "all"}})
    arm = found.arms["arm"]
    assert (arm.uptake, arm.forgetting, found.baseline_scores, found.baseline) == ({}, {}, {}, "")
    assert arm.scores["known_facts"].n == 3  # not screened
    assert "baseline" not in found.items


def test_counts_and_items_are_aligned(result, suite):
    assert result.counts == {
        "new_paraphrase": 3,
        "new_composition": 1,
        "updated_paraphrase": 2,
        "invariant_paraphrase": 2,
        "invariant_candidates": 3,
        "invariant_screened": 2,
        "texts": 4,
        "tokens": 60,
    }
    assert result.items["probe_ids"] == [*NEW, "u1", "u2", "i1", "i2"]
    assert result.items["arm"]["nll"] == ARM.columns["nll"][:8]
    assert result.items["baseline"]["answer"][0] == "base says"
    assert result.items["arm"]["answer"][1] is None
    assert result.items["texts"]["wiki"]["arm"] == {"nats": [61.0, 0.0], "tokens": [20, 0]}


def test_examples_show_every_answer(result):
    first, second = result.examples
    assert first == {
        "prompt": "The head of Orla is",
        "target": "Ann",
        "old_target": "",
        "group": "new",
        "answers": {
            "baseline": "base says",
            "arm": "arm says",
            "low": "low says",
            "high": "high says",
        },
    }
    assert second["group"] == "invariant"


def test_same_scores_give_the_same_result_and_it_survives_its_file(result, suite, tmp_path):
    again = summarize(suite.screened(BASE), BASE, {"arm": ARM, "low": LOW, "high": HIGH}, FULL)
    assert again == result
    loaded = EvalResult.load(result.save(tmp_path / "results.json"))
    assert loaded.arms["arm"].uptake == result.arms["arm"].uptake
    assert loaded.examples == result.examples


def test_an_arm_alone_and_among_others_has_the_same_figures(result, suite):
    alone = summarize(suite.screened(BASE), BASE, {"arm": ARM})
    assert alone.arms["arm"].uptake == result.arms["arm"].uptake
    assert alone.arms["arm"].forgetting == result.arms["arm"].forgetting


def test_diverged_arm_has_no_figures_and_says_so(suite):
    broken = scores("bad", [np.nan] * 9, [0] * 9, [np.nan] * 2, [np.nan, np.nan, np.nan, 0.0])
    found = summarize(suite.screened(BASE), BASE, {"bad": broken, "low": LOW, "high": HIGH}, FULL)
    for name in ("new_paraphrase_nll", "general_text", "known_facts_nll"):
        figure = {**found.arms["bad"].uptake, **found.arms["bad"].forgetting}[name]
        assert figure.value is None and "diverged" in figure.note
    assert found.arms["low"].uptake["new_paraphrase_nll"].value == pytest.approx(5 / 3)
    assert found.arms["bad"].versus_full["forgetting_ratio_general_text"].value is None


def test_scores_survive_their_file(tmp_path):
    assert CheckpointScores.load(ARM.save(tmp_path / "scores.json")) == ARM
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(GradlocError, match=r"(?s)other.json \(score file\).*probe_ids: is missing"):
        CheckpointScores.load(tmp_path / "other.json")


def test_training_facts_come_from_the_checkpoint(tmp_path):
    assert training_facts(tmp_path) == {"series": "", "step": None}
    log = {"policy": "all", "learning_rate": 1e-4, "train_seconds": 3.5, "n_steps": 7}
    (tmp_path / "training.json").write_text(json.dumps(log))
    known = {"policy": "all", "learning_rate": 1e-4, "train_seconds": 3.5}
    assert training_facts(tmp_path) == {**known, "series": "", "step": None}


@pytest.mark.parametrize(
    ("arms", "options", "message"),
    [
        ({}, {}, "no checkpoint to compare"),
        ({"baseline": ARM}, {}, "may not be called 'baseline'"),
        ({"arm": ARM}, {"reference_arms": ["full"]}, "'full' is not among the arms: arm"),
        ({"arm": ARM.only(NEW)}, {}, "5 probes were not scored, such as 'u1'"),
    ],
)
def test_what_cannot_be_compared(suite, arms, options, message):
    with pytest.raises(GradlocError, match=message):
        summarize(suite, BASE, arms, **options)


def test_other_texts_are_refused(suite):
    other = CheckpointScores(
        "x", ARM.probe_ids, ARM.columns, {"web": {"nats": [1.0], "tokens": [3]}}, {}
    )
    with pytest.raises(GradlocError, match="other texts"):
        summarize(suite, BASE, {"x": other})


# ---- benchmarks, kinds, cases ------------------------------------------------------------------


def bench(identifier, group, task, kind="", case="", entity="", **more):
    return Probe(
        identifier, group, "It is", ("so",), task=task, kind=kind, case=case, entity=entity, **more
    )


EDITS = (
    bench("p1", "updated", "portability", "Reasoning", "1", "A"),
    bench("p2", "updated", "portability", "Reasoning", "1", "A"),
    bench("p3", "updated", "portability", "Subject_Aliasing", "1", "A"),
    bench("p4", "updated", "portability", "Reasoning", "2", "B"),
    bench("l1", "invariant", "locality", entity="A"),
    bench("l2", "invariant", "locality", entity="B"),
    bench("c1", "invariant", "quiz", candidates=("so", "no"), entity="A"),
)
QUIZ = {"candidate_lengths": [None] * 6 + [[2, 2]], "candidate_right": [None] * 6 + [[True, False]]}


def edit_scores(name, accuracy, predicted, quiz):
    columns = {
        "nll": [1.0, 2.0, 4.0, 3.0, 1.0, 1.0, 1.0],
        "exact": [False] * 7,
        "old_nll": [None] * 7,
        "token_accuracy": accuracy,
        "predicted": predicted,
        "candidate_nats": [None] * 6 + [quiz],
        **QUIZ,
    }
    ids = tuple(probe.id for probe in EDITS)
    texts = {"web": {"nats": [10 * np.log(2)], "tokens": [5], "bytes": [20]}}
    return CheckpointScores(name, ids, columns, texts, {})


EDIT_SUITE = Suite(
    "edits",
    EDITS,
    {"web": ("a text",)},
    n_bootstrap=50,
    metrics={
        "portability": ("token_accuracy", "perplexity", "perplexity_macro"),
        "locality": ("agreement",),
    },
)


@pytest.fixture
def edits():
    before = edit_scores("base", [0.0] * 7, [[1]] * 4 + [[7, 9], [3], [1]], [1.0, 2.0])
    after = edit_scores(
        "arm", [1.0, 0.0, 1.0, 0.5, 0, 0, 0], [[1]] * 4 + [[7, 10], [3], [1]], [3.0, 2.0]
    )
    return summarize(EDIT_SUITE.screened(before), before, {"arm": after})


def test_cases_and_kinds_are_averaged_first(edits):
    scores = edits.arms["arm"].scores
    # case 1: Reasoning (1 + 0) / 2, Subject_Aliasing 1 -> 3/4; case 2: 1/2; mean 5/8
    assert scores["portability_token_accuracy"].value == pytest.approx(5 / 8)
    # within a kind: (1/2 + 1/2) / 2
    assert scores["portability_reasoning_token_accuracy"].value == pytest.approx(0.5)
    assert scores["portability_subject_aliasing_token_accuracy"].value == 1.0


def test_perplexities_are_exponentials_of_means(edits):
    scores = edits.arms["arm"].scores
    # Cases first: ((1.5 + 4) / 2 + 3) / 2; macro: entities A (7/3) and B (3) the same.
    assert scores["portability_perplexity"].value == pytest.approx(np.exp((2.75 + 3) / 2))
    assert scores["portability_perplexity_macro"].value == pytest.approx(np.exp((7 / 3 + 3) / 2))
    assert scores["portability_perplexity"].unit == "perplexity"


def test_locality_is_agreement_with_the_baseline_and_counts_as_forgetting(edits):
    assert edits.baseline_scores["locality_agreement"].value == 1.0
    assert edits.arms["arm"].scores["locality_agreement"].value == 0.75
    assert edits.arms["arm"].forgetting["locality_agreement"].value == 0.25


def test_a_choice_that_was_right_is_lost(edits):
    assert edits.baseline_scores["quiz_choice"].value == 1.0
    assert edits.arms["arm"].forgetting["quiz_choice"].value == 1.0
    # A benchmark is no known fact, and is not screened.
    assert "known_facts" not in edits.arms["arm"].forgetting
    assert edits.counts["quiz"] == 1


def test_bits_per_byte(edits):
    # 10 bits over 20 bytes
    assert edits.arms["arm"].scores["general_text_bits_per_byte"].value == pytest.approx(0.5)
    assert edits.arms["arm"].scores["general_text_bits_per_byte"].unit == "bits/byte"


def test_without_a_baseline_nothing_is_compared_with_it(edits):
    alone = summarize(EDIT_SUITE, None, {"arm": edit_scores("arm", [0.5] * 7, [[1]] * 7, [1, 2])})
    assert "locality_agreement" not in alone.arms["arm"].scores
    assert "portability_token_accuracy" in alone.arms["arm"].scores


def test_items_say_what_each_probe_is(edits):
    assert edits.items["probes"]["task"][:2] == ["portability", "portability"]
    assert edits.items["probes"]["kind"][2] == "Subject_Aliasing"
    assert len(edits.items["probes"]["date"]) == len(edits.items["probe_ids"])
