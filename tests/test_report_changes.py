"""What was learned, what was lost: rows, axes, series of checkpoints, pages of results files."""

import json
import re
from dataclasses import replace

import pytest
from test_report import Page, figure, make_results

from gradloc.errors import GradlocError, RunError
from gradloc.evaluation.results import ArmResult, EvalResult, MetricValue
from gradloc.report import write_report
from gradloc.report.changes import MAX_ROWS, change_panels, main_losses
from gradloc.report.forest import axes, state
from gradloc.report.headline import headline
from gradloc.report.metric_names import metric_label, split_key
from gradloc.report.panels import MAX_ARMS, drawn_arms, panel_views
from gradloc.report.series import checkpoint_series, leading_arms
from gradloc.report.series_curves import series_pictures
from gradloc.report.style import arm_styles
from gradloc.report.tables import metric_groups
from gradloc.report.tradeoff import tradeoff_pictures
from gradloc.report.verdict import judge, main_arm

N_PARADIGMS = 67
FACTS = [
    f"{group}_{depth}" for group in ("new", "updated")
    for depth in ("verbatim", "paraphrase", "composition")
]  # fmt: skip
# Every unit that an evaluation gives, in the metric that gives it.
UNITS = {
    "nll": "nats", "perplexity": "perplexity", "perplexity_macro": "perplexity", "fluency": "bits",
    "bits_per_byte": "bits/byte", "fuar": "ratio", "general_text": "nats/token",
}  # fmt: skip
SIZES = {"nats": 2.0, "fraction": 0.2, "perplexity": 900.0, "bits": 0.4, "bits/byte": 0.03,
         "nats/token": 0.05, "ratio": 0.4}  # fmt: skip
LEARNED = (
    [f"{items}_{metric}" for items in FACTS for metric in ("nll", "exact")]
    + ["new_nll", "new_exact", "updated_nll", "updated_exact", "updated_prefers_new"]
    + ["ecbd_perplexity", "ecbd_recall_at_10", "ecbd_perplexity_macro", "entity_inferences_choice"]
    + ["knowedit_edit_token_accuracy", "knowedit_edit_exact_match", "temporalwiki_nll"]
    + ["knowedit_portability_token_accuracy", "temporalwiki_changed_nll"]
    + [f"knowedit_portability_{kind}_token_accuracy" for kind in ("reasoning", "aliasing")]
)
LOST = (
    ["known_facts", "known_facts_nll", "general_text", "general_text_bits_per_byte", "fuar"]
    + [f"general_text_{d}{m}" for d in ("news", "code") for m in ("", "_bits_per_byte")]
    + ["arc_easy_choice", "arc_easy_choice_norm", "blimp_choice", "knowedit_edit_fluency"]
    + ["knowedit_locality_agreement", "lm_eval_hellaswag_acc", "lm_eval_hellaswag_acc_norm"]
    + [f"blimp_paradigm_{n}_choice" for n in range(N_PARADIGMS)]
)
COUNTS = {"ecbd": 100, "knowedit_edit": 80, "temporalwiki": 90, "temporalwiki_changed": 40}


def unit_of(key):
    name = split_key(key)
    if name.items.startswith("general_text") and not name.metric:
        return "nats/token"
    return UNITS.get(name.metric or name.items, "fraction")


def rich_arm(strength=1.0, loss=1.0, **fields):
    """An arm with every kind of metric; values differ by key, so that none can be swapped."""

    def figures(keys, better, size):
        return {
            key: figure(
                size * SIZES[unit_of(key)] * (0.5 + number / len(keys)),
                0.3 * SIZES[unit_of(key)], unit_of(key), better, 100 + number,
            )
            for number, key in enumerate(keys)
        }  # fmt: skip

    uptake, forgetting = figures(LEARNED, True, strength), figures(LOST, False, loss)
    scores = {
        key: figure(0.5, 0.1, unit_of(key), unit_of(key) == "fraction")
        for key in (*LEARNED, *LOST) if key != "fuar"
    }  # fmt: skip
    return ArmResult("elsewhere/model", uptake, forgetting, scores, **fields)


def rich_results(arms=None, **changes):
    arms = arms or {"full": rich_arm(), "<i>gentle</i>": rich_arm(0.9, 0.1)}
    before = rich_arm().scores
    return EvalResult(**{
        "suite": "everything", "baseline": "base", "baseline_scores": before, "arms": arms,
        "counts": COUNTS, **changes,
    })  # fmt: skip


def series_results():
    """A run of six checkpoints, asked for out of order, its final model, and a lone model."""
    steps = (40, 20, 100, 60, 120, 80)
    arms = {"final": rich_arm(1.3, series="news"), "lone": rich_arm(0.4, 0.4, series="other")}
    for step in steps:
        arms[f"checkpoint-{step}"] = rich_arm(step / 120, step / 240, series="news", step=step)
    return rich_results(arms)


def panels_of(results):
    return {panel.key: panel for panel in change_panels(results)}


def axes_of(results, key="learned", rows="rows"):
    panel = panels_of(results)[key]
    styles = arm_styles(results, None)
    verb = {"learned": "gained", "lost": "lost"}.get(key, "")
    return panel, axes(getattr(panel, rows), styles, list(results.arms), verb=verb)


# ---- names ------------------------------------------------------------------------------------


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


# ---- rows -------------------------------------------------------------------------------------


def test_every_measure_is_drawn_once_and_the_first_of_each_set_at_once():
    panels = panels_of(rich_results())
    assert [row.key for row in panels["learned"].rows] == [
        *(f"{items}_nll" for items in FACTS), "updated_prefers_new", "ecbd_perplexity",
        "entity_inferences_choice", "knowedit_edit_token_accuracy", "temporalwiki_nll",
        "knowedit_portability_token_accuracy", "temporalwiki_changed_nll",
    ]  # fmt: skip
    assert [row.key for row in panels["lost"].rows] == [
        "known_facts", "known_facts_nll", "general_text", "general_text_bits_per_byte", "fuar",
        "arc_easy_choice", "arc_easy_choice_norm", "blimp_choice", "knowedit_edit_fluency",
        "knowedit_locality_agreement", "lm_eval_hellaswag_acc", "lm_eval_hellaswag_acc_norm",
    ]  # fmt: skip
    for key, keys in (("learned", LEARNED), ("lost", LOST)):
        panel = panels[key]
        drawn = [row.key for row in panel.every_row]
        assert len(panel.rows) <= MAX_ROWS and len(drawn) == len(set(drawn))
        assert set(keys) - set(drawn) == {k for k in keys if k.startswith("blimp_paradigm")}


def test_kinds_stand_apart_and_only_where_they_are_few():
    panels = panels_of(rich_results())
    (portability,) = panels["learned"].kinds
    assert (portability.label, portability.n_kinds) == ("KnowEdit portability", 2)
    assert [row.label for row in portability.rows] == [
        "reasoning, token accuracy", "aliasing, token accuracy",
    ]  # fmt: skip
    text, blimp = panels["lost"].kinds
    assert [row.label for row in text.rows] == [
        "news", "news, bits per byte", "code", "code, bits per byte",
    ]  # fmt: skip
    assert (blimp.label, blimp.n_kinds, blimp.rows) == ("BLiMP", N_PARADIGMS, ())


def test_a_task_whose_name_begins_like_anothers_is_no_kind():
    counted = panels_of(rich_results())["learned"]
    assert "temporalwiki_changed_nll" in {row.key for row in counted.rows}
    guessed = panels_of(rich_results(counts={}))["learned"]
    assert "temporalwiki_changed_nll" not in {row.key for row in (*guessed.rows, *guessed.more)}
    assert "temporalwiki_changed_nll" in {row.key for row in guessed.every_row}


def test_a_kind_whose_set_was_not_lost_stands_among_the_measures():
    arm = ArmResult(
        "m", {"templama_nll": figure(1.0)}, {"templama_2010_nll": figure(0.3, better=False)}, {}
    )
    panels = panels_of(rich_results({"one": arm}))
    assert [row.key for row in panels["lost"].rows] == ["templama_2010_nll"]
    assert panels["lost"].kinds == ()


def test_many_first_measures_are_cut_at_the_limit():
    uptake = {f"task{n}_choice": figure(0.1, 0.05, "fraction") for n in range(MAX_ROWS + 9)}
    panel = panels_of(rich_results({"one": ArmResult("m", uptake, {}, {})}))["learned"]
    assert (len(panel.rows), len(panel.more)) == (MAX_ROWS, 9)


# ---- axes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["learned", "lost"])
@pytest.mark.parametrize("rows", ["rows", "more"])
def test_units_are_never_mixed(key, rows):
    results = rich_results()
    panel, drawn = axes_of(results, key, rows)
    by_unit = {}
    for row in getattr(panel, rows):
        by_unit.setdefault(unit_of(row.key), []).append(row.label)
    assert [[line.label for line in axis.lines] for axis in drawn] == list(by_unit.values())
    names = {"nats": "nats", "fraction": "% points", "perplexity": "perplexity", "bits": "bits",
             "bits/byte": "bits per byte", "nats/token": "nats per token"}  # fmt: skip
    verb = {"learned": "gained", "lost": "lost"}[key]
    assert [axis.unit for axis in drawn] == [
        "ratio" if unit == "ratio" else f"{names[unit]} {verb}" for unit in by_unit
    ]


@pytest.mark.parametrize("key", ["learned", "lost"])
def test_marks_stand_where_the_ticks_say(key):
    results = rich_results()
    panel, drawn = axes_of(results, key)
    figures = {row.label: row for row in panel.rows}
    n_checked = 0
    for axis in drawn:
        ticks = [(x, float(text.replace("−", "-").replace(",", ""))) for x, text in axis.ticks]
        assert len(ticks) >= 2 and (axis.zero, 0.0) in ticks
        if axis.is_log:
            continue
        (x0, v0), (x1, v1) = ticks[0], ticks[-1]
        for line in axis.lines:
            row = figures[line.label]
            for name, mark in zip(results.arms, line.marks, strict=True):
                own = row.figures[name]
                for x, value in ((mark.x, own.value), (mark.low, own.low), (mark.high, own.high)):
                    read = v0 + (x - x0) * (v1 - v0) / (x1 - x0)
                    wanted = value * (100 if own.unit == "fraction" else 1)
                    # Places are rounded to a hundredth of a percent of the width.
                    assert read == pytest.approx(wanted, abs=0.002 * abs(v1 - v0))
                    assert 0 < x < 100
                    n_checked += 1
    assert n_checked > 40


def test_measures_without_a_unit_share_no_axis():
    lost = {f"lm_eval_task_{n}": figure(10.0**n, 0.1, "", False) for n in range(2)}
    results = rich_results({"one": ArmResult("m", {}, lost, {})})
    _, drawn = axes_of(results, "lost")
    assert [(axis.unit, len(axis.lines)) for axis in drawn] == [("score lost", 1)] * 2


def test_perplexities_apart_by_orders_of_magnitude_share_a_logarithmic_axis():
    uptake = {
        "ecbd_perplexity": figure(5000.0, 10.0, "perplexity"),
        "temporalwiki_changed_perplexity": figure(-3.0, 1.0, "perplexity"),
        "new_nll": figure(5000.0, 10.0),
    }
    results = rich_results({"one": ArmResult("m", uptake, {}, {})})
    _, (nats, perplexity) = axes_of(results)
    assert perplexity.is_log and not nats.is_log
    # 20 % of the width lie between −4 and 0 on a logarithmic axis, next to nothing on a linear one.
    places = [line.marks[0].x for line in perplexity.lines]
    assert perplexity.zero - places[1] > 5 and places[0] > 90


def test_a_ratio_without_upper_bound_leaves_room_for_the_values():
    lost = {"fuar": MetricValue(1.1, 0.4, None, 99, "ratio", False)}
    other = {"fuar": MetricValue(1.6, 0.7, 61.4, 99, "ratio", False)}
    results = rich_results({"a": ArmResult("m", {}, lost, {}), "b": ArmResult("m", {}, other, {})})
    _, (ratio,) = axes_of(results, "lost")
    first, second = ratio.lines[0].marks
    assert ratio.is_log and [text for _, text in ratio.ticks] == ["0", "1", "10"]
    assert second.x - first.x > 3 and first.x > 15, "next to each other at zero on a linear axis"
    assert first.high == 100 and second.high < 100, "an interval without end leaves the plot"


@pytest.mark.parametrize(
    ("low", "high", "higher", "found"),
    [
        (0.1, 0.5, True, "better"),
        (-0.5, -0.1, True, "worse"),
        (0.1, 0.5, False, "worse"),
        (-0.5, -0.1, False, "better"),
        (-0.1, 0.5, True, "unclear"),
        (0.0, 0.5, True, "unclear"),
        (0.0, 0.0, False, "unclear"),
        (0.1, None, False, "worse"),
        (None, None, True, "plain"),
    ],
)
def test_a_change_is_clear_where_its_interval_excludes_zero(low, high, higher, found):
    assert state(MetricValue(0.2, low, high, 9, "nats", higher), is_change=True) == found
    assert state(MetricValue(0.2, low, high, 9, "nats", higher), is_change=False) == "plain"


def test_a_missing_figure_is_a_dash_with_its_reason():
    lost = {"fuar": MetricValue(None, None, None, 0, "ratio", False, "nothing was gained")}
    results = rich_results({"one": ArmResult("m", {}, lost, {}), "two": rich_arm()})
    views = {view.key: view for view in panel_views(results, arm_styles(results, "one"), "one")}
    ratio = next(axis for axis in views["lost"].axes if axis.unit == "ratio")
    one, two = ratio.lines[0].marks
    assert (one.state, one.text, one.x) == ("missing", "—", None) and two.x is not None
    assert "FUAR, forgotten per gained: nothing was gained." in views["lost"].notes
    assert ("FUAR, forgotten per gained", "one", "—", "nothing was gained") in [
        row[:4] for row in views["lost"].rows
    ]


# ---- panels -----------------------------------------------------------------------------------


def test_tallies_count_the_clear_changes():
    def change(value):
        return figure(value, 0.2)

    uptake = {"new_nll": change(1.0), "ecbd_nll": change(0.1), "knowedit_edit_nll": change(-1.0),
              "updated_nll": change(2.0)}  # fmt: skip
    lost = {"known_facts_nll": replace(change(0.5), higher_is_better=False),
            "arc_easy_nll": replace(change(-0.5), higher_is_better=False)}  # fmt: skip
    results = rich_results({"one": ArmResult("m", uptake, lost, {})})
    learned, kept = panel_views(results, arm_styles(results, "one"), "one")
    assert learned.tallies[0].counts == (
        ("better", "▲", 2, "gained"), ("worse", "▼", 1, "lost"),
        ("unclear", "≈", 1, "no clear change"),
    )  # fmt: skip
    assert [count[2] for count in kept.tallies[0].counts] == [1, 1, 0]
    assert (learned.way, kept.way) == ("better →", "← better")
    says = {row[0]: row[-1] for row in (*learned.rows, *kept.rows)}
    assert says["KnowEdit edit, likelihood"] == "▼ lost"
    assert (says["likelihood of known facts"], says["ARC easy, likelihood"]) == (
        "▼ lost", "▲ better",
    )  # fmt: skip


def test_without_a_baseline_scores_are_drawn_and_nothing_is_claimed(tmp_path):
    arms = {name: replace(arm, uptake={}, forgetting={})
            for name, arm in rich_results().arms.items()}  # fmt: skip
    results = rich_results(arms, baseline="", baseline_scores={})
    higher, lower = panel_views(results, arm_styles(results, "full"), "full")
    assert (higher.key, lower.key) == ("higher", "lower")
    for view, better in ((higher, True), (lower, False)):
        keys = [k for k in (*LEARNED, *LOST) if k != "fuar" and (unit_of(k) == "fraction") == better
                and not k.startswith("blimp_paradigm")]  # fmt: skip
        assert {row[0] for row in view.rows} == {metric_label(key) for key in keys}
        marks = [mark for axis in view.axes for line in axis.lines for mark in line.marks]
        assert {mark.state for mark in marks} == {"plain"}
        assert all(tally.counts == () for tally in view.tallies)
    results.save(tmp_path / "plain.json")
    text = write_report(tmp_path / "plain.json").read_text(encoding="utf-8").split("<script")[0]
    assert "Scores by measure" in text and 'id="panel-higher"' in text
    for claim in ("▲", "▼", "gained", "What was learned"):
        assert claim not in text.split("</style>")[1], claim


def test_more_arms_than_there_is_room_for_keep_the_main_one_and_full_training():
    arms = {f"arm{n}": rich_arm(n) for n in range(12)}
    results = rich_results(arms, reference_arms=("arm10", "arm11"))
    drawn = drawn_arms(results, "arm9")
    assert len(drawn) == MAX_ARMS and {"arm9", "arm10", "arm11"} <= set(drawn)
    assert drawn == sorted(drawn, key=list(arms).index)


# ---- the other parts of the page --------------------------------------------------------------


def test_losses_of_any_suite_reach_table_picture_and_verdict():
    arm = ArmResult(
        "m", {"ecbd_nll": figure(0.8)},
        {"arc_easy_choice": figure(0.2, 0.1, "fraction", False),
         "arc_easy_choice_norm": figure(0.2, 0.1, "fraction", False),
         "blimp_choice": figure(0.05, 0.1, "fraction", False)}, {},
    )  # fmt: skip
    results = rich_results({"one": arm})
    assert main_losses(results) == ("arc_easy_choice", "blimp_choice")
    columns, _ = headline(results, arm_styles(results, "one"), "one", "ecbd_nll")
    assert [(column.group, column.label) for column in columns] == [
        ("Uptake", "ECBD, likelihood"), ("Forgetting", "ARC easy, choice"),
        ("Forgetting", "BLiMP, choice"),
    ]  # fmt: skip
    verdict = judge(results, "one")
    assert (verdict.tone, verdict.word) == ("unclear", "Learned, and lost")
    assert "0.800 nats" in verdict.text and "of ECBD, likelihood" in verdict.text
    assert "clearly lost on 2 of 3 measures of what was there" in verdict.text


def test_a_suite_that_asks_for_nothing_new_is_judged_by_what_was_lost():
    def verdict(value):
        lost = {"blimp_choice": figure(value, 0.1, "fraction", False)}
        return judge(rich_results({"one": ArmResult("m", {}, lost, {})}), "one")

    assert (verdict(0.3).tone, verdict(0.3).word) == ("bad", "Lost")
    assert (verdict(0.0).tone, verdict(0.0).word) == ("good", "Nothing clearly lost")
    assert verdict(0.0).text.startswith("was asked for nothing new and clearly lost on 0 of 1")


def test_many_metrics_are_grouped_by_set_and_none_is_left_out():
    results = rich_results()
    groups = dict(metric_groups(results, results.arms["full"]))
    assert list(groups) == [
        "New facts", "Updated facts", "Known facts", "General text", "FUAR", "ECBD",
        "Entity Inferences", "KnowEdit edit", "TemporalWiki", "KnowEdit portability",
        "TemporalWiki changed", "ARC easy", "BLiMP", "KnowEdit locality", "Hellaswag (lm-eval)",
    ]  # fmt: skip
    labels = [row[1] for rows in groups.values() for row in rows]
    assert sorted(labels) == sorted(metric_label(key) for key in (*LEARNED, *LOST))
    assert len(groups["BLiMP"]) == N_PARADIGMS + 1 and groups["BLiMP"][0][1] == "BLiMP, choice"
    few = make_results()
    ((heading, rows),) = metric_groups(few, few.arms["interference_ratio"])
    assert heading == "" and len(rows) == 5 + 4 + 3


# ---- series of checkpoints --------------------------------------------------------------------


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
    assert styles["checkpoint-20"].name == "checkpoint-20"


def test_curves_over_checkpoints_hold_the_figures_of_each_step():
    results = series_results()
    pictures = series_pictures(results, arm_styles(results, "final"), "new_paraphrase_nll")
    assert [picture.key for picture in pictures] == [
        "series-new_paraphrase_nll", "series-known_facts", "series-general_text",
    ]  # fmt: skip
    assert [picture.direction[0] for picture in pictures] == ["↑", "↓", "↓"]
    uptake, known, _ = pictures
    assert uptake.columns == ("Step", "news, nats gained", "95 % interval")
    assert [row[0] for row in uptake.rows] == ["20", "40", "60", "80", "100", "120"]
    at_60 = results.arms["checkpoint-60"]
    assert float(uptake.rows[2][1]) == pytest.approx(
        at_60.uptake["new_paraphrase_nll"].value, abs=5e-3
    )
    assert float(known.rows[2][1]) == pytest.approx(
        100 * at_60.forgetting["known_facts"].value, abs=0.05
    )
    assert "news from 0.190 at step 20 to 1.14 at step 120" in uptake.description


def test_without_a_baseline_curves_are_of_scores():
    arms = {name: replace(arm, uptake={}, forgetting={})
            for name, arm in series_results().arms.items()}  # fmt: skip
    results = rich_results(arms, baseline="", baseline_scores={})
    pictures = series_pictures(results, arm_styles(results, "final"), None)
    assert [picture.columns[1] for picture in pictures] == [
        "news, nats", "news, %", "news, nats per token",
    ]  # fmt: skip


def test_table_shows_the_last_checkpoint_and_keeps_the_others(tmp_path):
    results = series_results()
    results.save(tmp_path / "series.json")
    text = write_report(tmp_path / "series.json").read_text(encoding="utf-8").split("<script")[0]
    first, second = re.findall(r'<table class="headline">(.*?)</table>', text, flags=re.S)
    assert first.count('<th scope="row">') == 2 and "checkpoint-" not in first
    assert second.count('<th scope="row">') == 7
    assert "All 7 checkpoints, step by step" in text and "step 120" in second
    assert 'id="picture-series-known_facts"' in text
    (picture, _) = tradeoff_pictures(
        results, arm_styles(results, "final"), "new_paraphrase_nll", ("general_text", "known_facts")
    )
    assert len(picture.rows) == 8
    assert set(re.findall(r'"label": "([^"]+)"', json.dumps(picture.spec))) == {"final", "lone"}


def test_one_checkpoint_of_a_run_is_no_series(tmp_path):
    results = rich_results({"checkpoint-20": rich_arm(series="news", step=20)})
    assert checkpoint_series(results) == {} and leading_arms(results) == ["checkpoint-20"]
    assert series_pictures(results, arm_styles(results, None), "new_nll") == []


# ---- a results file ---------------------------------------------------------------------------


def test_a_results_file_gives_a_page_beside_it_without_complaints(tmp_path):
    results = rich_results()
    results.save(tmp_path / "gentle.json")
    path = write_report(str(tmp_path / "gentle.json"))
    assert path == tmp_path / "gentle.html"
    text = path.read_text(encoding="utf-8")
    body = text.split("<script")[0].split("</style>")[1]
    for missing in ("profile.json", "plan.json", "recipe.yaml", "gradloc measure", "This folder"):
        assert missing not in body
    heads = re.findall(r"<h[12]>(.*?)</h[12]>", body)
    assert heads == ["gentle", "Results", "What was learned, what was lost",
                     "Uptake against forgetting", "Details"]  # fmt: skip
    assert Page(text).loaded == ["data:,"]
    assert "<i>gentle" not in body and "&lt;i&gt;gentle&lt;/i&gt;" in body


def test_names_of_tasks_and_notes_are_escaped(tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    keys = [f"{evil}_nll", f"blimp_{evil}_choice", f"{evil}_{evil}_nll"]
    arm = ArmResult(
        evil, {key: figure(1.0, note=evil) for key in keys}, {}, {}, series=evil, step=1
    )
    results = rich_results(
        {evil: arm, "b": replace(arm, step=2), "c": rich_arm()}, counts={evil: 3}, suite=evil
    )
    results.save(tmp_path / "evil.json")
    body = write_report(tmp_path / "evil.json").read_text(encoding="utf-8").split("<script")[0]
    assert "<img" not in body and body.count("&lt;img src=x") > 20


def test_the_usual_file_name_gives_way_to_what_was_evaluated(tmp_path):
    path = tmp_path / "results.json"
    for arms, title in (
        ({"adapter": rich_arm()}, "adapter"),
        (dict(series_results().arms), "everything"),
        ({"a": rich_arm(series="news", step=1), "b": rich_arm(series="news", step=2)}, "news"),
    ):
        rich_results(arms).save(path)
        assert f"<h1>{title}</h1>" in write_report(path).read_text(encoding="utf-8")


def test_what_is_no_results_file_is_an_error(tmp_path):
    with pytest.raises(RunError, match=r"no such results file.*gradloc evaluate"):
        write_report(tmp_path / "nothing.json")
    (tmp_path / "plan.json").write_text('{"kind": "plan"}', encoding="utf-8")
    with pytest.raises(GradlocError, match="not a results file"):
        write_report(tmp_path / "plan.json")
    replace(rich_results(), arms={}).save(tmp_path / "empty.json")
    with pytest.raises(RunError, match="holds no arm"):
        write_report(tmp_path / "empty.json")
    assert not list(tmp_path.glob("*.html"))
