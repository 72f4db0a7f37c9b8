"""Metrics equal hand-computed numbers, ten-line loops and what they promise in general."""

import math

import numpy as np
import pytest

from evaluation.metrics.old_versus_new import updates
from evaluation.metrics.span_perplexity import perplexity
from gradloc.errors import GradlocError
from gradloc.evaluation.metrics import choice, editing, matching, stage_transfer
from gradloc.evaluation.metrics.fuar import fuar

RNG = np.random.default_rng(5)


# --- matching ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "corrected", "released"),
    [
        ("The  Eiffel\tTower.", "eiffel tower", "eiffel tower"),
        ("<extra_id_0> Paris", "paris", "extraid0 paris"),
        ("Paris<extra_id_12>France", "paris france", "parisextraid12france"),
        ("theory of an ant", "theory of ant", "theory of ant"),
        ("a-an-the", "aanthe", "aanthe"),
        ("The <extra_id_1>", "", "extraid1"),
        ("«Café»", "«café»", "«café»"),  # ASCII punctuation only, no accents removed
    ],
)
def test_normalisation(text, corrected, released):
    assert matching.normalize_answer(text) == corrected
    assert matching.normalize_answer(text, released=True) == released


def test_exact_match_takes_the_best_answer():
    assert matching.exact_match("the cat", ["dog", "Cat!"]) == 1.0
    assert matching.exact_match("the cat", ["dog", "cats"]) == 0.0
    # A text is one answer, not a list of letters.
    assert matching.exact_match("c", "cat") == 0.0


@pytest.mark.parametrize(
    ("prediction", "answers", "value"),
    [
        ("x y z", "y z w", 2 / 3),  # P = R = 2/3
        ("x x y", "x y y y", 2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4)),  # counted as they occur
        ("x", ["p q", "x y", "z"], 2 * 1 * 0.5 / 1.5),  # the best of several
        ("x", "y", 0.0),
        ("", "y", 0.0),
    ],
)
def test_f1(prediction, answers, value):
    assert matching.token_f1(prediction, answers) == pytest.approx(value)


def test_f1_is_never_below_exact_match_except_as_released():
    for prediction, answer in (("the", "a"), ("", ""), ("x", "x")):
        assert matching.exact_match(prediction, answer) == 1.0
        assert matching.token_f1(prediction, answer) == 1.0
    assert matching.token_f1("the", "a", released=True) == 0.0


def test_recall_at_k_compares_letters():
    beams = ["rome", "Paris", "Rome"]
    assert matching.recall_at_k(beams, ["Rome"]) == 1.0
    assert matching.recall_at_k(beams, "Rome", k=2) == 0.0
    assert matching.recall_at_k(beams, ["paris", "Paris"], k=2) == 1.0


@pytest.mark.parametrize("measure", [matching.exact_match, matching.token_f1])
def test_no_answer_is_an_error(measure):
    with pytest.raises(GradlocError, match="at least one right answer"):
        measure("x", [])


# --- perplexity ----------------------------------------------------------------------------


def test_perplexities_by_hand():
    nlls = [[1.0, 3.0], [0.5], [2.0, 2.0, 5.0]]  # means 2, 0.5, 3
    assert perplexity.example_means(nlls).tolist() == [2.0, 0.5, 3.0]
    assert perplexity.corpus_perplexity(nlls) == pytest.approx(math.exp(5.5 / 3))
    means = perplexity.example_means(nlls)
    # Groups a: (2 + 3) / 2 = 2.5, b: 0.5
    assert perplexity.macro_perplexity(means, ["a", "b", "a"]) == pytest.approx(math.exp(1.5))
    found = perplexity.by_type(means, ["NP", "random", "NP"])
    assert list(found) == ["NP", "random"]
    assert found["NP"] == (pytest.approx(math.exp(2.5)), 2)
    assert found["random"] == (pytest.approx(math.exp(0.5)), 1)


@pytest.mark.parametrize("nlls", [[], [[1.0], []]])
def test_nothing_has_no_perplexity(nlls):
    with pytest.raises(GradlocError, match="no mean"):
        perplexity.corpus_perplexity(nlls)


# --- choice --------------------------------------------------------------------------------


def test_choice():
    assert choice.choose([-3.0, -1.0, -1.0]) == 1, "the first of equals"
    assert choice.choose([-3.0, math.nan, -4.0]) == 0, "NaN is never the likeliest"
    assert choice.choose([-6.0, -4.0], lengths=[6, 2]) == 0  # -1 and -2
    assert choice.choice_correct([-6.0, -4.0], 0) == 0.0
    assert choice.choice_correct([-6.0, -4.0], [0], lengths=[6, 2]) == 1.0
    assert math.isnan(choice.choice_correct([-6.0, math.nan], 0))


def test_right_candidates_are_numbered():
    values = [-1.0, -2.0, -3.0]
    assert choice.choice_correct(values, [1, 2]) == 0.0
    assert choice.choice_correct(values, [0, 2]) == 1.0
    assert choice.choice_correct(values, []) == 0.0
    # True is also the number 1: marks must not be taken for indices.
    for right in ([True, False, False], 3):
        with pytest.raises(GradlocError, match="right candidates"):
            choice.choice_correct(values, right)


def test_choice_refuses_what_is_no_choice():
    with pytest.raises(GradlocError, match="at least one candidate"):
        choice.choose([])
    with pytest.raises(GradlocError, match="one positive length"):
        choice.choose([-1.0, -2.0], lengths=[3, 0])


# --- updates -------------------------------------------------------------------------------


def test_a_tie_counts_for_the_outdated_answer():
    found = updates.prefers_updated([-1.0, -2.0, -3.0, math.nan], [-2.0, -2.0, -1.0, -1.0])
    assert found[:3].tolist() == [1, 0, 0] and math.isnan(found[3])
    with pytest.raises(GradlocError, match="one of each"):
        updates.prefers_updated([-1.0], [-1.0, -2.0])


def test_old_and_new_are_distinguishable():
    found = updates.match_old_and_new("the city of Nusantara", ["Jakarta"], ["Nusantara"])
    assert found == (0.0, 0.0, 0.0, pytest.approx(2 * (1 / 3) / (1 / 3 + 1)))
    assert updates.match_old_and_new("Jakarta", "Jakarta", "Nusantara")[:2] == (1.0, 1.0)


# --- FUAR ----------------------------------------------------------------------------------


def test_fuar_of_one_stage():
    # 11.28 forgotten; 8.55 + 1.89 gained.
    found = fuar((24.17, 12.89), (1.62, 10.17), (1.88, 3.77))
    assert found == pytest.approx(11.28 / 10.44)


def test_fuar_of_several_stages_by_a_loop():
    invariant = [20.0, 25.0, 18.0], [19.0, 21.0, 22.0]
    updated, new = ([1.0, 3.0, 9.0], 8.0), ([0.0, 5.0, 2.0], 4.0)
    forgotten = gained = 0.0
    for i in range(3):
        forgotten += max(0.0, invariant[0][i] - invariant[1][i])
        gained += max(0.0, updated[1] - updated[0][i]) + max(0.0, new[1] - new[0][i])
    assert (forgotten, gained) == (5.0, 18.0)
    assert fuar(invariant, updated, new) == pytest.approx(forgotten / gained)


def test_fuar_leaves_out_what_is_not_determined():
    assert fuar(([10, None], [8, 1]), ([0, 0], [4, 4]), ([None, 0], [9, 0])) == pytest.approx(2 / 8)


@pytest.mark.parametrize(
    ("updated", "new"), [((5, 5), (3, 3)), ((5, 4), (3, 1)), ((None, None), (0, 0))]
)
def test_fuar_is_none_when_nothing_was_gained(updated, new):
    assert fuar((20, 10), updated, new) is None


def test_fuar_keeps_its_properties():  # prop.fuar of the reference file
    for _ in range(50):
        invariant, updated, new = RNG.uniform(0, 30, (3, 2))
        found = fuar(invariant, updated, new)
        if updated[1] <= updated[0] and new[1] <= new[0]:
            assert found is None
            continue
        assert (found == 0) == (invariant[1] >= invariant[0])
        assert fuar(7 * invariant, 7 * updated, 7 * new) == pytest.approx(found)


def test_fuar_refuses_stages_that_do_not_match():
    with pytest.raises(GradlocError, match="numbers of stages differ"):
        fuar(([20, 22], [18, 21]), (1, 7), (0, 2))
    with pytest.raises(GradlocError, match="2 scores before and 3 after"):
        fuar(([20, 22], [18, 21, 3]), (1, 7), (0, 2))
    with pytest.raises(GradlocError, match=r"a pair \(before, after\)"):
        fuar(20.0, (1, 7), (0, 2))


# --- editing -------------------------------------------------------------------------------


def test_partial_credit_and_locality():
    assert editing.token_accuracy([7, 9, 1, 4], [7, 2, 1, 5]) == 0.5
    assert editing.agreement([7, 9], [7, 9]) == 1.0  # prop.locality, right or wrong
    for measure in (editing.token_accuracy, editing.agreement):
        with pytest.raises(GradlocError, match="same length"):
            measure([1, 2], [1])
        with pytest.raises(GradlocError, match="at least one token"):
            measure([], [])


def test_entropy_by_hand():
    # Bigrams ab, ba, ab: shares 2/3 and 1/3.
    expected = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert editing.ngram_entropy("abab", 2) == pytest.approx(expected)
    assert editing.ngram_entropy(list("abcde"), 3) == pytest.approx(math.log2(3))
    assert editing.ngram_entropy([], 2) == editing.ngram_entropy(["a"], 2) == 0.0


def test_fluency_weighs_two_and_three_word_sequences():
    # Three different bigrams, two different trigrams.
    expected = (2 / 3 * math.log2(3) + 4 / 3 * math.log2(2)) / 2
    assert editing.fluency(["a b c d"]) == pytest.approx(expected)
    assert editing.fluency(["a b c d", "e e e e"]) == pytest.approx(expected / 2)
    assert editing.fluency(["abcd"], tokenize=list) == pytest.approx(expected)
    for nothing in ([], "a text"):
        with pytest.raises(GradlocError, match="list of at least one text"):
            editing.fluency(nothing)


def test_case_weights_average_within_first():
    cases = ["a", "a", "b", "a", "b", "c"]
    kinds = ["x", "x", "x", "y", "z", "z"]
    values = RNG.normal(size=6)
    by_case = {}
    for case, kind, value in zip(cases, kinds, values, strict=True):
        by_case.setdefault(case, {}).setdefault(kind, []).append(value)
    expected = np.mean(
        [np.mean([np.mean(items) for items in kinds.values()]) for kinds in by_case.values()]
    )
    weights = editing.case_weights(cases, kinds)
    assert weights.sum() == pytest.approx(1.0)
    assert weights @ values == pytest.approx(expected)
    with pytest.raises(GradlocError, match="2 cases and 1 kinds"):
        editing.case_weights(["a", "b"], ["x"])


# --- stages --------------------------------------------------------------------------------

R = [[0.9, 0.2, 0.1], [0.95, 0.8, 0.3], [0.6, 0.7, 0.9]]


def test_stage_measures_by_hand():
    found = stage_transfer.stage_measures(R, base=[0.1, 0.15, 0.2])
    assert found == {
        "average_accuracy": pytest.approx((0.6 + 0.7 + 0.9) / 3),
        "average_incremental_accuracy": pytest.approx(
            (0.9 + (0.95 + 0.8) / 2 + (0.6 + 0.7 + 0.9) / 3) / 3
        ),
        "backward_transfer": pytest.approx(((0.6 - 0.9) + (0.7 - 0.8)) / 2),
        "forward_transfer": pytest.approx(((0.2 - 0.15) + (0.3 - 0.2)) / 2),
        # The best score on the first task is that of the second stage.
        "forgetting": pytest.approx(((0.95 - 0.6) + (0.8 - 0.7)) / 2),
    }
    assert stage_transfer.stage_measures(R)["forward_transfer"] is None


def test_tasks_not_yet_learned_may_lack_scores():
    table = np.array(R)
    table[0, 1:] = table[1, 2] = np.nan
    full, partial = stage_transfer.stage_measures(R), stage_transfer.stage_measures(table)
    assert partial == full
    with pytest.raises(GradlocError, match="a score is missing in the row before"):
        stage_transfer.stage_measures(table, [0.1, 0.1, 0.1])
    for place in ((1, 1), (2, 0)):
        lacking = table.copy()
        lacking[place] = np.nan
        with pytest.raises(GradlocError, match="a score is missing"):
            stage_transfer.stage_measures(lacking)


def test_one_stage_transfers_nothing():
    found = stage_transfer.stage_measures([[0.5]], base=[0.1])
    assert found["average_accuracy"] == 0.5
    assert found["backward_transfer"] is found["forward_transfer"] is found["forgetting"] is None


def test_score_matrix_must_be_one():
    assert stage_transfer.average_accuracy([[0.1, 0.2, 0.3]]) == pytest.approx(
        0.2
    )  # one row of three
    with pytest.raises(GradlocError, match="1 stages and 3 tasks"):
        stage_transfer.stage_measures([[0.1, 0.2, 0.3]])
    with pytest.raises(GradlocError, match="differ in length"):
        stage_transfer.average_accuracy([[0.1, 0.2], [0.3]])
    with pytest.raises(GradlocError, match="one row a stage"):
        stage_transfer.average_accuracy([0.1, 0.2])
    with pytest.raises(GradlocError, match="base scores"):
        stage_transfer.stage_measures(R, [0.1])
