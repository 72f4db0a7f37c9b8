"""The headline of a report says in whole words what was learned and what was lost."""

from dataclasses import replace

import pytest
from report_records import figure, make_results, rich_results, versus

from gradloc.evaluation.results import ArmResult, MetricValue
from gradloc.report.arms import best_reference
from gradloc.report.headline import big_figures, judge

SPACE = "\N{NARROW NO-BREAK SPACE}"


def changed(**changes):
    results = make_results()
    arm = replace(results.arms["interference_ratio"], **changes)
    return replace(results, arms={**results.arms, "interference_ratio": arm})


def said(**changes):
    headline = judge(changed(**changes), "interference_ratio")
    return headline, headline.text.replace(SPACE, " ")


def test_a_good_result_in_whole_words():
    headline, text = said()
    assert (headline.tone, headline.word) == ("good", "Less forgetting")
    assert headline.arm == "interference_ratio"
    assert text == (
        "Learned 93 % of what full training learned. Lost 15 % of known facts, where full training "
        "lost 34 %."
    )
    _, text = said(versus_full={"uptake_share": figure(1.341, 0.05, "ratio")})
    assert text.startswith("Learned 134 % of what full training learned. Lost 15 %")


def test_known_facts_are_one_of_the_big_figures():
    shown = big_figures(make_results(), "interference_ratio")
    assert [figure.value.replace(SPACE, " ") for figure in shown] == [
        "93 %", "15 %", "0.0580", "19.7 %", "70.2 s",
    ]  # fmt: skip
    facts, text = shown[1:3]
    assert facts.label == "of known facts lost"
    assert facts.small.replace(SPACE, " ") == (
        "95 % interval 11.0 to 19.0; full training 34 %; at equal uptake 0.490 times as much"
    )
    assert text.label == "nats per token of general text lost"


@pytest.mark.parametrize("value", [0.0, 0.04, 0.099, -0.05])
def test_a_gain_below_the_floor_is_next_to_nothing_and_never_good(value):
    gain = MetricValue(value, value - 0.001, value + 0.001, 96, "nats", True)
    for versus_full in (versus(3.0, 0.01, 0.01), {}):
        headline, text = said(uptake={"new_paraphrase_nll": gain}, versus_full=versus_full)
        assert headline.tone == "bad"
        assert text.startswith("Next to nothing learned (") and "is the rate too low?" in text


def test_a_gain_above_the_floor_is_a_gain():
    gain = MetricValue(0.101, 0.1, 0.102, 96, "nats", True)
    assert said(uptake={"new_paraphrase_nll": gain}, versus_full={})[1].startswith("Learned: 0.101")


def test_facts_that_got_worse_are_not_called_learned():
    headline, text = said(uptake={"new_paraphrase_nll": figure(-0.3, 0.1)})
    assert headline.tone == "bad" and "got worse by 0.300 nats" in text
    headline, text = said(uptake={"new_paraphrase_nll": figure(0.3, 0.4)})
    assert headline.tone == "bad" and text.startswith("Nothing measurably learned")


@pytest.mark.parametrize("value", [-0.006, 0.0, 0.004, -0.2])
def test_a_loss_of_no_size_is_nothing_lost(value):
    lost = {"general_text": MetricValue(value, value - 0.01, value + 0.01, 64, "nats/token", False)}
    headline, text = said(forgetting=lost, versus_full={})
    assert "Lost nothing of general text, where full training lost 0.494 nats per token." in text
    assert headline.tone == "good" and "−" not in text
    shown = big_figures(changed(forgetting=lost, versus_full={}), "interference_ratio")
    assert [item.value for item in shown if "general text lost" in item.label] == ["nothing"]


def test_facts_that_the_base_model_has_in_part_are_lost_in_points():
    results = changed()
    part = {**results.baseline_scores, "known_facts": figure(0.4, 0.1, "fraction")}
    text = judge(replace(results, baseline_scores=part), "interference_ratio").text
    assert f"Lost 15{SPACE}% points of known facts" in text


def test_worse_than_full_training_is_said():
    headline = judge(make_results(), "published_rule")
    assert headline.tone in ("bad", "unclear") and headline.word in ("Mixed", "More forgetting")
    headline, _ = said(versus_full=versus(0.9, 1.5, 1.6, half=0.1))
    assert (headline.tone, headline.word) == ("bad", "More forgetting")


def test_an_interval_that_includes_one_settles_nothing():
    headline, text = said(versus_full=versus(0.9, 0.7, 0.7, half=0.5))
    assert (headline.tone, headline.word) == ("unclear", "Not settled")
    assert text.endswith("This run does not show that it forgets less than full training.")


def test_an_interval_without_upper_end_settles_nothing():
    ratio = MetricValue(0.4, 0.1, None, 64, "ratio", False)
    ratios = {"forgetting_ratio_general_text": ratio, "forgetting_ratio_known_facts": ratio}
    assert said(versus_full=ratios)[0].tone == "unclear"


@pytest.mark.parametrize(("general", "known"), [(0.2, 1.6), (0.2, 0.95), (1.6, 0.2)])
def test_what_is_kept_of_one_kind_does_not_hide_what_is_lost_of_the_other(general, known):
    headline, text = said(versus_full=versus(0.9, general, known, half=0.1))
    assert (headline.tone, headline.word) == ("unclear", "Mixed")
    assert "known facts" in text and "general text" in text


def test_little_learned_is_not_praised_for_little_lost():
    headline, text = said(versus_full=versus(0.31, 0.2, 0.2))
    assert (headline.tone, headline.word) == ("unclear", "Little learned")
    assert text.startswith("Learned 31 % of what full training learned.")


def test_more_uptake_than_full_training_is_set_beside_it():
    ratios = {
        "uptake_share": figure(1.04, 0.02, "ratio"),
        "forgetting_ratio_general_text": figure(None, unit="ratio", note="takes up more"),
    }
    headline, text = said(versus_full=ratios)
    assert headline.tone == "good" and text.startswith("Learned 104 %")


def test_without_full_training_the_figures_stand_alone():
    results = replace(changed(versus_full={}), reference_arms=())
    headline = judge(results, "interference_ratio")
    assert (headline.tone, headline.word) == ("unclear", "Learned, and lost")
    assert headline.text.startswith("Learned: 3.71 nats gained on new facts, paraphrased. Lost 15")
    assert "full training" not in headline.text


def test_full_training_that_learned_next_to_nothing_is_no_measure():
    results = changed()
    weak = {"new_paraphrase_nll": figure(0.02, 0.01)}
    arms = {
        name: replace(arm, uptake=weak) if name in results.reference_arms else arm
        for name, arm in results.arms.items()
    }
    text = judge(replace(results, arms=arms), "interference_ratio").text
    assert text.startswith("Learned: 3.71 nats gained, where full training learned next to nothing")


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_diverged_arm_is_never_good(value):
    note = "scores are not finite; the weights may have diverged" if value is None else ""
    broken = MetricValue(value, None, None, 9, "nats/token", False, note)
    headline, text = said(forgetting={"general_text": broken})
    assert (headline.tone, headline.word) == ("bad", "Diverged") and "not finite" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_full_training_is_no_reference(value):
    results = make_results()
    first, *others = results.reference_arms
    broken = replace(results.arms[first], uptake={"new_paraphrase_nll": figure(value)})
    results = replace(results, arms={**results.arms, first: broken})
    assert others and best_reference(results) in [results.arms[name] for name in others]


def test_without_a_baseline_nothing_is_claimed():
    arm = ArmResult("model", {}, {}, {"general_text": figure(3.2, 0.1, "nats/token", False)})
    headline = judge(make_results(baseline="", baseline_scores={}, arms={"one": arm}), "one")
    assert headline.tone == "unclear" and "not known" in headline.text


def test_a_suite_that_asks_for_nothing_new_is_judged_by_what_was_lost():
    def headline(value):
        lost = {"blimp_choice": figure(value, 0.1, "fraction", False)}
        return judge(rich_results({"one": ArmResult("m", {}, lost, {})}), "one")

    assert (headline(0.3).tone, headline(0.3).word) == ("bad", "Lost")
    assert (headline(0.0).tone, headline(0.0).word) == ("good", "Nothing lost")
    assert headline(0.0).text == "Nothing new was asked. Lost nothing of BLiMP, choice."
