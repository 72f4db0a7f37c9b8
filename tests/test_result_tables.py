"""The tables of an evaluation: which measures they hold, in which order, and what is best."""

from dataclasses import replace

import pytest
from report_records import (
    FACTS,
    LEARNED,
    LOST,
    N_PARADIGMS,
    figure,
    make_results,
    rich_arm,
    rich_results,
    series_results,
)

from gradloc.evaluation.results import ArmResult, MetricValue
from gradloc.report.arms import arm_styles, checkpoint_series, leading_arms, main_arm
from gradloc.report.measures import (
    first_measures,
    grouped_measures,
    main_losses,
    measures,
)
from gradloc.report.metric_names import metric_label, split_key
from gradloc.report.result_tables import (
    change_tone,
    footnotes,
    measure_table,
    results_table,
)


def table_of(results, arms=None):
    return results_table(results, arm_styles(results), arms or list(results.arms))


def best_of(table):
    """Column -> arms that are marked as its best."""
    return {
        column.label: [row.cells[0].text for row in table.rows if row.cells[place].is_best]
        for place, column in enumerate(table.columns)
        if place
    }


@pytest.mark.parametrize(
    ("key", "parts", "label"),
    [
        ("known_facts", ("known_facts", ""), "known facts"),
        ("known_facts_nll", ("known_facts", "nll"), "likelihood of known facts"),
        ("known_facts_europe_exact", ("known_facts_europe", "exact"),
         "known facts: europe, exact match"),
        ("updated_old_exact_match", ("updated", "old_exact_match"),
         "updated facts, old answer, normalised"),
        ("new_paraphrase_nll", ("new_paraphrase", "nll"), "new facts, paraphrased"),
        ("general_text_python_docs_bits_per_byte", ("general_text_python_docs", "bits_per_byte"),
         "general text: python docs, bits per byte"),
        ("arc_easy_choice_norm", ("arc_easy", "choice_norm"), "ARC easy, choice by length"),
        ("blimp_adjunct_island_choice", ("blimp_adjunct_island", "choice"),
         "BLiMP adjunct island, choice"),
        ("knowedit_portability_token_accuracy", ("knowedit_portability", "token_accuracy"),
         "KnowEdit portability, token accuracy"),
        ("ecbd_perplexity_macro", ("ecbd", "perplexity_macro"), "ECBD, perplexity by entity"),
        ("lm_eval_hellaswag_acc_norm", ("lm_eval_hellaswag", "acc_norm"),
         "hellaswag (lm-eval), accuracy by length"),
        ("lm_eval_gsm8k_exact_match_strict_match", ("lm_eval_gsm8k", "exact_match_strict_match"),
         "gsm8k (lm-eval), exact match, strict"),
        ("lm_eval_my_task", ("lm_eval_my_task", ""), "my_task (lm-eval)"),
        ("my_domain_f1", ("my_domain", "f1"), "my domain, F1"),
        ("something_else", ("something_else", ""), "something else"),
    ],
)  # fmt: skip
def test_keys_are_taken_apart_and_spelled_out(key, parts, label):
    assert tuple(split_key(key)) == parts
    assert metric_label(key) == label


def test_no_two_metrics_of_a_page_are_called_alike():
    keys = [*LEARNED, *LOST]
    assert len({metric_label(key) for key in keys}) == len(keys)


# ---- which measures ---------------------------------------------------------------------------


def test_measures_stand_in_reading_order_without_kinds():
    results = rich_results()
    assert measures(results, "uptake")[:3] == [
        "new_verbatim_nll", "new_verbatim_exact", "new_paraphrase_nll",
    ]  # fmt: skip
    lost = measures(results, "forgetting")
    assert lost == [
        "known_facts", "known_facts_nll", "general_text", "general_text_bits_per_byte", "fuar",
        "arc_easy_choice", "arc_easy_choice_norm", "blimp_choice", "knowedit_edit_fluency",
        "knowedit_locality_agreement", "lm_eval_hellaswag_acc", "lm_eval_hellaswag_acc_norm",
    ]  # fmt: skip


def test_a_task_whose_name_begins_like_anothers_is_no_kind():
    assert "temporalwiki_changed_nll" in measures(rich_results(), "uptake")
    assert "temporalwiki_changed_nll" not in measures(rich_results(counts={}), "uptake")


def test_every_metric_of_an_arm_is_grouped_once():
    results = rich_results()
    groups = grouped_measures(replace(results, arms={"full": results.arms["full"]}))
    assert list(groups) == [
        "new", "updated", "known_facts", "general_text", "fuar", "ecbd", "entity_inferences",
        "knowedit_edit", "temporalwiki", "knowedit_portability", "temporalwiki_changed",
        "arc_easy", "blimp", "knowedit_locality", "lm_eval_hellaswag",
    ]  # fmt: skip
    assert sorted(key for keys in groups.values() for key in keys) == sorted((*LEARNED, *LOST))
    assert groups["blimp"][0] == "blimp_choice" and len(groups["blimp"]) == N_PARADIGMS + 1
    assert groups["new"][:2] == ["new_verbatim_nll", "new_verbatim_exact"] and len(FACTS) == 6


def test_losses_of_any_suite_reach_the_table():
    arm = ArmResult(
        "m", {"ecbd_nll": figure(0.8)},
        {"arc_easy_choice": figure(0.2, 0.1, "fraction", False),
         "arc_easy_choice_norm": figure(0.2, 0.1, "fraction", False),
         "blimp_choice": figure(0.05, 0.1, "fraction", False)}, {},
    )  # fmt: skip
    results = rich_results({"one": arm})
    assert main_losses(results) == ["arc_easy_choice", "blimp_choice"]
    assert [(column.group, column.label) for column in table_of(results).columns[1:]] == [
        ("Uptake", "ECBD, likelihood"), ("Forgetting", "ARC easy, choice"),
        ("Forgetting", "BLiMP, choice"),
    ]  # fmt: skip


# ---- the results table ------------------------------------------------------------------------


def test_the_best_of_each_column_is_marked():
    table = table_of(make_results())
    assert best_of(table) == {
        "new facts, paraphrased": ["full"],
        "exact match": ["full"],
        "prefers the new answer": ["full"],
        "known facts": ["full_low", "last_third"],
        "general text": ["full_low"],
        "uptake share": ["interference_ratio"],
        "forgetting: known facts": ["interference_ratio"],
        "forgetting: general text": ["interference_ratio"],
        "parameters": [],
        "time": ["last_third"],
        "memory": ["last_third"],
    }
    cell = table.rows[0].cells[2]
    assert (cell.text, cell.small) == ("74.2", "67 to 81")


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), float("-inf")])
def test_an_arm_that_is_not_finite_is_best_at_nothing(value):
    results = make_results()
    note = "scores are not finite; the weights may have diverged" if value is None else ""
    broken = replace(
        results.arms["full_low"],
        uptake={"new_paraphrase_nll": MetricValue(value, None, None, 9, "nats", True, note)},
        train_seconds=0.1, peak_rss_mib=1.0,
    )  # fmt: skip
    table = table_of(replace(results, arms={**results.arms, "full_low": broken}))
    assert all("full_low" not in arms for arms in best_of(table).values())
    assert best_of(table)["general text"] == ["last_third"]
    whole = replace(broken, uptake=results.arms["full_low"].uptake)
    table = table_of(replace(results, arms={**results.arms, "full_low": whole}))
    assert best_of(table)["time"] == ["full_low"]


def test_an_arm_says_by_which_methods_it_was_trained():
    results = make_results()
    methods = {"input_projection": {}, "replay": {"ratio": 0.5}}
    arms = dict(results.arms)
    arms["interference_ratio"] = replace(arms["interference_ratio"], methods=methods)
    said = {row.cells[0].text: row.cells[0].small for row in table_of(
        replace(results, arms=arms)).rows}  # fmt: skip
    wanted = "interference_ratio + input_projection + replay · lr 2.5e-4"
    assert said["interference_ratio"] == wanted and said["full_low"] == "all · lr 3e-5"


def test_units_agree_between_tables_and_notes():
    """The uptake share is a percentage and a lost fact a percentage point, wherever they stand."""
    results = make_results()
    table = table_of(results)
    row = {column.label: (cell.text, column.unit) for column, cell in zip(
        table.columns, table.rows[0].cells, strict=True)}  # fmt: skip
    assert row["uptake share"] == ("93.3", "%")
    assert row["known facts"] == ("15.0", "% points")
    changes = measure_table(results, ["interference_ratio"], ["known_facts"])
    lost = next(row for row in changes.rows if row.cells[0].text == "known facts")
    assert [cell.text for cell in lost.cells[1:]] == ["% points lost", "100", "▼ 15.0"]
    (note,) = [note for note in footnotes(results) if "last_third" in note]
    assert note == (
        "Against full training, forgetting: general text (last_third): outside the uptake that "
        "full training reaches."
    )


def test_without_a_baseline_the_table_holds_plain_scores():
    arm = ArmResult("model", {}, {}, {"general_text": figure(3.2, 0.1, "nats/token", False)})
    results = make_results(baseline="", baseline_scores={}, arms={"one": arm}, reference_arms=())
    table = table_of(results)
    assert [column.group for column in table.columns[1:]] == ["Scores"]
    assert table.rows[0].cells[1].text == "3.20"


# ---- changes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "higher", "found"),
    [
        (0.1, 0.5, True, "better"),
        (-0.5, -0.1, True, "worse"),
        (0.1, 0.5, False, "worse"),
        (-0.5, -0.1, False, "better"),
        (-0.1, 0.5, True, "soft"),
        (0.0, 0.5, True, "soft"),
        (0.0, 0.0, False, "soft"),
        (0.1, None, False, "worse"),
        (None, None, True, ""),
        (float("nan"), float("nan"), True, ""),
    ],
)
def test_a_change_is_clear_where_its_interval_excludes_zero(low, high, higher, found):
    assert change_tone(MetricValue(0.2, low, high, 9, "nats", higher)) == found


def test_the_table_of_measures_has_each_once_below_its_set():
    results = rich_results()
    table = measure_table(results, list(results.arms), [*LEARNED, *LOST])
    rows = [row for row in table.rows if len(row.cells) > 1]
    assert sorted(row.cells[0].text for row in rows) == sorted(map(metric_label, (*LEARNED, *LOST)))
    assert sum(row.cells[3].text.startswith("▲") for row in rows) > 10
    assert measure_table(results, list(results.arms), []).rows == ()


def test_an_arm_without_a_change_shows_no_score_in_its_place():
    results = make_results()
    arms = {**results.arms, "other": ArmResult("m", {}, {}, {"known_facts": figure(0.9)})}
    table = measure_table(replace(results, arms=arms), ["full", "other"], ["known_facts"])
    assert table.rows[-1].cells[-1].text == "—"


def test_a_long_page_shows_the_first_measure_of_each_set():
    keys = first_measures(measures(rich_results(), "uptake"))
    assert (
        keys[:2] == ["new_verbatim_nll", "new_paraphrase_nll"] and "ecbd_recall_at_10" not in keys
    )
    assert len({split_key(key).items for key in keys}) == len(keys) > 10


# ---- arms -------------------------------------------------------------------------------------


def test_checkpoints_are_ordered_by_step_and_the_last_leads():
    results = series_results()
    names = [f"checkpoint-{step}" for step in (20, 40, 60, 80, 100, 120)]
    assert checkpoint_series(results) == {"news": [*names, "final"]}
    assert leading_arms(results) == ["final", "lone"]
    assert main_arm(results, []) == "final"
    assert main_arm(results, ["checkpoint-20", "lone"]) == "lone"
    styles = arm_styles(results, "final")
    looks = {(styles[name].color, styles[name].shape) for name in (*names, "final")}
    assert len(looks) == 1 and (styles["lone"].color, styles["lone"].shape) not in looks


def test_one_checkpoint_of_a_run_is_no_series():
    results = rich_results({"checkpoint-20": rich_arm(series="news", step=20)})
    assert checkpoint_series(results) == {} and leading_arms(results) == ["checkpoint-20"]


def test_the_main_arm_is_the_recipes_first_that_is_no_reference():
    results = make_results()
    assert main_arm(results, ["full", "last_third", "interference_ratio"]) == "last_third"
    assert main_arm(results, []) == "interference_ratio"
    only_full = replace(results, arms={"full": results.arms["full"]})
    assert main_arm(only_full, []) == "full"
