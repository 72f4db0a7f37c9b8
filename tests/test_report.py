"""The report page and its pictures, from values made up here."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from gradloc.errors import RunError
from gradloc.evaluation.results import ArmResult, EvalResult, MetricValue
from gradloc.localization.plan import LayerPlan
from gradloc.localization.profile import GradientProfile
from gradloc.models.unit_info import UnitInfo
from gradloc.report import save_pictures, write_report
from gradloc.report.curves import curve_pictures
from gradloc.report.formatting import duration, learning_rate, number, percent, ranges, span
from gradloc.report.headline import headline
from gradloc.report.labels import place_labels
from gradloc.report.layer_maps import _levels, heat_maps
from gradloc.report.run_folder import read_run
from gradloc.report.style import arm_styles
from gradloc.report.tables import examples
from gradloc.report.tradeoff import tradeoff_pictures
from gradloc.report.verdict import judge, main_arm

N_BLOCKS = 30
CHOSEN = {("mlp", 3), ("mlp", 4), ("mlp", 5), ("mlp", 6), ("mlp", 7), ("mlp", 24), ("mlp", 25),
          ("mlp", 26), ("attention", 23), ("attention", 28)}  # fmt: skip
RECIPE = """name: quickstart
model: smollm2-135m-instruct
seed: 0
corpus: {source: world, cutoff: '2023-01-01'}
training: {learning_rate: 1.0e-4, num_train_epochs: 6}
arms:
  interference_ratio: {policy: interference_ratio, training: {learning_rate: 2.5e-4}}
  full_low: {policy: all, training: {learning_rate: 3.0e-5}}
  full_mid: {policy: all, training: {learning_rate: 6.0e-5}}
  full: {policy: all}
  published_rule: {policy: rgn_above_mean}
# </script><script>window.escaped = true</script>
"""


def figure(value, half=0.1, unit="nats", better=True, n=96, note=""):
    if value is None:
        return MetricValue(None, None, None, n, unit, better, note or "not measured")
    return MetricValue(value, value - half, value + half, n, unit, better, note)


def arm(uptake, general, known, *, policy, lr, seconds, memory, fraction, versus=None, seed=0):
    """An arm whose curve falls from the base model to its uptake."""
    rng = np.random.default_rng(seed)
    steps = list(range(1, 37))
    probed = {1, 6, 12, 18, 24, 30, 36}
    progress = {step: 1 - math.exp(-step / 9) for step in steps}
    return ArmResult(
        checkpoint=f"runs/quickstart/arms/{policy}",
        uptake={
            "new_verbatim_nll": figure(uptake * 1.2),
            "new_paraphrase_nll": figure(uptake, 0.22),
            "new_composition_nll": figure(uptake * 0.3, 0.3),
            "new_paraphrase_exact": figure(min(0.95, uptake / 5), 0.07, "fraction"),
            "updated_prefers_new": figure(min(0.9, uptake / 4.6), 0.09, "fraction", n=40),
        },
        forgetting={
            "known_facts": figure(known, 0.04, "fraction", better=False, n=122),
            "known_facts_nll": figure(known * 2, 0.1, better=False, n=122),
            "general_text": figure(general, 0.012, "nats/token", better=False, n=64),
            "general_text_news": figure(None, unit="nats/token", better=False, n=0),
        },
        scores={
            "new_paraphrase_nll": figure(5.24 - uptake, 0.2, better=False),
            "new_paraphrase_exact": figure(min(0.95, uptake / 5), 0.07, "fraction"),
            "known_facts": figure(1 - known, 0.04, "fraction", n=122),
            "general_text": figure(3.1 + general, 0.01, "nats/token", better=False),
        },
        versus_full=versus or {},
        policy=policy,
        learning_rate=lr,
        train_seconds=seconds,
        peak_rss_mib=memory,
        trainable_fraction=fraction,
        curve={
            "step": steps,
            "loss": [3.4 - uptake * 0.6 * progress[s] + rng.normal(0, 0.08) for s in steps],
            "new_nll": [5.24 - uptake * progress[s] if s in probed else None for s in steps],
            "invariant_nll": [
                1.1 + known * 2 * progress[s] if s in probed else None for s in steps
            ],
        },
    )


def versus(share, general, known, half=0.06):
    return {
        "uptake_share": figure(share, 0.05, "ratio"),
        "forgetting_ratio_general_text": figure(general, half, "ratio", better=False, n=64),
        "forgetting_ratio_known_facts": figure(known, 3 * half, "ratio", better=False, n=122),
    }


def make_results(**changes):
    arms = {
        "interference_ratio": arm(
            3.71, 0.058, 0.15, policy="interference_ratio", lr=2.5e-4, seconds=70.2, memory=1834.5,
            fraction=0.197, versus=versus(0.933, 0.162, 0.49), seed=1,
        ),
        "full_low": arm(2.41, 0.021, 0.14, policy="all", lr=3e-5, seconds=113, memory=3051,
                        fraction=1.0, seed=2),
        "full_mid": arm(3.33, 0.213, 0.27, policy="all", lr=6e-5, seconds=113.4, memory=3049,
                        fraction=1.0, seed=3),
        "full": arm(3.98, 0.494, 0.34, policy="all", lr=1e-4, seconds=112.1, memory=3047,
                    fraction=1.0, seed=4),
        "published_rule": arm(3.21, 0.251, 0.25, policy="rgn_above_mean", lr=1e-4, seconds=88,
                              memory=2210, fraction=0.52, versus=versus(0.807, 1.5, 1.1, 0.3),
                              seed=5),
        "last_third": arm(2.98, 0.051, 0.14, policy="last_third_mlp", lr=1.2e-4, seconds=50,
                          memory=1402, fraction=0.198, seed=6,
                          versus={"uptake_share": figure(0.749, 0.05, "ratio"),
                                  "forgetting_ratio_general_text": figure(
                                      None, unit="ratio", better=False,
                                      note="outside the uptake that full training reaches")}),
        "<b>foreign</b> & co": ArmResult(
            checkpoint="elsewhere/model",
            uptake={"new_paraphrase_nll": figure(0.04, 0.15),
                    "new_paraphrase_exact": figure(None, unit="fraction")},
            forgetting={"general_text": figure(0.11, 0.02, "nats/token", better=False)},
            scores={},
        ),
    }  # fmt: skip
    values = {
        "suite": "quickstart",
        "baseline": "smollm2-135m-instruct",
        "baseline_scores": {
            "new_paraphrase_nll": figure(5.24, 0.2, better=False),
            "new_paraphrase_exact": figure(0.01, 0.01, "fraction"),
            "known_facts": figure(1.0, 0.0, "fraction", n=122),
            "general_text": figure(3.1, 0.01, "nats/token", better=False),
        },
        "arms": arms,
        "counts": {"new_paraphrase": 96, "updated": 40, "invariant_candidates": 388,
                   "invariant_screened": 122, "texts": 64, "tokens": 8192},
        "examples": (
            {"prompt": "The official currency of Croatia is the", "target": "euro",
             "old_target": "kuna", "group": "updated",
             "answers": {"baseline": " kuna (HRK).", "interference_ratio": " euro.",
                         "full_low": " Kuna", "full": " euro, which replaced",
                         "published_rule": " eurozone"}},
            {"prompt": "</script><script>window.hacked = true</script> The mayor of Veldrun is",
             "target": "Ansa Törmä", "old_target": None, "group": "new",
             "answers": {"baseline": " a member of the city council",
                         "interference_ratio": " Ansa  Törmä", "full": ""}},
            {"prompt": "The capital of Japan is", "target": "Tokyo", "old_target": "",
             "group": "invariant", "answers": {"baseline": " Tokyo.", "interference_ratio":
                                               " Tokyo", "full": " Osaka"}},
        ),
        "reference_arms": ("full_low", "full_mid", "full"),
        "versions": {"gradloc": "0.1.0", "torch": "2.9.0", "transformers": "5.0.0"},
    }  # fmt: skip
    return EvalResult(**{**values, **changes})


def make_units():
    units = [UnitInfo("model.embed_tokens", "embedding", None, 28_311_552)]
    for block in range(N_BLOCKS):
        units.append(UnitInfo(f"model.layers.{block}.self_attn", "attention", block, 885_312))
        units.append(UnitInfo(f"model.layers.{block}.mlp", "mlp", block, 2_654_784))
    return (*units, UnitInfo("model.norm", "norm", None, 576))


def make_plan_and_profile():
    units = make_units()
    rng = np.random.default_rng(0)
    chosen = {u.name: (u.kind, u.block) in CHOSEN for u in units}
    scores = {
        u.name: float(np.exp(rng.normal(5 if chosen[u.name] else 1, 0.6)))
        for u in units if u.in_stack
    }  # fmt: skip
    scores["model.layers.29.mlp"] = 0.02
    plan = LayerPlan(
        scale={u.name: float(chosen[u.name]) for u in units},
        units=units,
        policy="interference_ratio",
        options={"k": 10},
        model="smollm2-135m-instruct",
        score_name="interference ratio",
        scores=scores,
        reliability={
            "split_half": 0.83,
            "low": {name: value * 0.8 for name, value in scores.items()},
            "high": {name: value * 1.3 for name, value in scores.items()},
            "warning": "4 of 10 chosen units lie within the noise of the threshold.",
        },
        predicted={"time_ratio": 0.61, "memory_ratio": 0.58, "lowest_block": 3},
    )
    probe = np.exp(rng.normal(0, 0.3, (24, len(units))))
    reference = np.exp(rng.normal(0.5, 0.2, (24, len(units))))
    profile = GradientProfile(units, probe, reference, probe, reference, model=plan.model)
    return plan, profile


def make_run(folder, **changes):
    """A run folder with everything that the report reads."""
    folder.mkdir(parents=True, exist_ok=True)
    plan, profile = make_plan_and_profile()
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    plan.save(folder / "plan.json")
    profile.save(folder / "profile.json")
    make_results(**changes).save(folder / "results.json")
    return folder


@pytest.fixture
def run_dir(tmp_path):
    return make_run(tmp_path / "run")


# ---- numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (3.14159, "3.14"),
        (-0.0234567, "−0.0235"),
        (0.9996, "1.00"),
        (1234567.8, "1,234,568"),
        (-0.0000123, "−1.23 × 10⁻⁵"),
        (None, "—"),
        (math.nan, "—"),
        (math.inf, "∞"),
    ],
)
def test_numbers_have_three_digits_and_a_true_minus(value, text):
    assert number(value) == text


def test_other_forms_of_numbers():
    assert percent(0.1966) == "19.7\N{NARROW NO-BREAK SPACE}%"
    assert learning_rate(2.5e-4) == "2.5e-4"
    assert (duration(70.2), duration(113), duration(7500)) == ("70.2 s", "1 min 53 s", "2 h 5 min")
    assert ranges([26, 3, 4, 5, 24, 25, 9]) == "3–5, 9, 24–26"


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.046, 0.07, "0.046 to 0.070"),
        (-1.2345, 2.2, "−1.2 to 2.2"),
        (67.31, 81.2, "67 to 81"),
        (0.31, math.inf, "0.310 to ∞"),
        (1.0, 1.0, "1.00 to 1.00"),
    ],
)
def test_intervals_show_as_many_digits_as_they_justify(low, high, text):
    assert span(low, high) == text


# ---- the verdict ------------------------------------------------------------------------------


def verdict_of(**changes):
    results = make_results()
    arm = replace(results.arms["interference_ratio"], **changes)
    arms = {**results.arms, "interference_ratio": arm}
    return judge(replace(results, arms=arms), "interference_ratio")


def test_a_good_result_is_said_in_one_sentence():
    verdict = judge(make_results(), "interference_ratio")
    assert (verdict.tone, verdict.subject) == ("good", "interference_ratio")
    assert verdict.text == (
        "took up 93.3\N{NARROW NO-BREAK SPACE}% of what full training did and forgot 0.162 times "
        "as much of general text at equal uptake; of known facts 0.490 times as much "
        "(95 % interval 0.31 to 0.67)."
    )


def test_the_published_rule_is_called_worse():
    verdict = judge(make_results(), "published_rule")
    assert verdict.tone == "bad"
    assert "1.50 times as much" in verdict.text and "worse than full training" in verdict.text


def test_an_interval_that_includes_one_settles_nothing():
    verdict = verdict_of(versus_full=versus(0.9, 0.7, 0.7, half=0.5))
    assert verdict.tone == "unclear" and "includes 1" in verdict.text


def test_an_interval_without_upper_end_settles_nothing():
    ratio = MetricValue(0.4, 0.1, None, 64, "ratio", False)
    verdict = verdict_of(versus_full={"forgetting_ratio_general_text": ratio})
    assert verdict.tone == "unclear" and "0.100 to ∞" in verdict.text


def test_a_good_ratio_does_not_hide_a_bad_one():
    verdict = verdict_of(versus_full=versus(0.9, 0.2, 1.6, half=0.1))
    assert (verdict.tone, verdict.word) == ("unclear", "Mixed")
    assert "of known facts 1.60 times as much" in verdict.text


def test_facts_lost_as_in_full_training_are_said_beside_text_that_was_kept():
    verdict = verdict_of(versus_full=versus(0.9, 0.2, 0.95, half=0.1))
    assert (verdict.tone, verdict.word) == ("unclear", "Mixed")
    assert "no less than full training as far as this run can tell" in verdict.text


def test_little_learned_is_not_praised_for_little_lost():
    verdict = verdict_of(versus_full=versus(0.31, 0.2, 0.2))
    assert verdict.tone == "unclear" and "took up only 31.0" in verdict.text


@pytest.mark.parametrize("uptake", [-0.3, 0.05])
def test_no_uptake_is_said_plainly(uptake):
    verdict = verdict_of(uptake={"new_paraphrase_nll": figure(uptake, 0.1)})
    assert verdict.tone == "bad" and verdict.text.startswith("did not ")


def test_more_uptake_than_full_training_is_set_beside_it():
    note = "takes up more than full training at any of its rates"
    ratios = {
        "uptake_share": figure(1.04, 0.02, "ratio"),
        "forgetting_ratio_general_text": figure(None, unit="ratio", note=note),
    }
    verdict = verdict_of(versus_full=ratios)
    assert verdict.tone == "good"
    assert "0.0580 nats per token" in verdict.text and "0.494 nats per token" in verdict.text


def test_a_missing_ratio_gives_its_reason():
    ratio = figure(None, unit="ratio", note="full training forgets nothing at this uptake")
    ratios = {**versus(0.9, 1, 1), "forgetting_ratio_general_text": ratio}
    verdict = verdict_of(versus_full=ratios)
    assert verdict.tone == "unclear" and "full training forgets nothing" in verdict.text


def test_without_full_training_the_figures_stand_alone():
    verdict = verdict_of(versus_full={})
    assert verdict.tone == "unclear"
    assert "3.71 nats" in verdict.text and "no fully trained arm" in verdict.text


def test_without_a_baseline_nothing_is_claimed(tmp_path):
    arm = ArmResult("model", {}, {}, {"general_text": figure(3.2, 0.1, "nats/token", False)})
    results = make_results(baseline="", baseline_scores={}, arms={"one": arm}, examples=(),
                           reference_arms=())  # fmt: skip
    verdict = judge(results, "one")
    assert verdict.tone == "unclear" and "without a base model" in verdict.text
    columns, rows = headline(results, arm_styles(results, "one"), "one", None)
    assert [column.group for column in columns] == ["Scores"]
    assert rows[0].cells[0].text == "3.20"
    results.save(tmp_path / "results.json")
    assert "plain scores" in write_report(tmp_path).read_text(encoding="utf-8")


def test_main_arm_is_the_recipes_first_that_is_no_reference():
    results = make_results()
    assert main_arm(results, ["full", "last_third", "interference_ratio"]) == "last_third"
    assert main_arm(results, []) == "interference_ratio"
    only_full = replace(results, arms={"full": results.arms["full"]})
    assert main_arm(only_full, []) == "full"


# ---- tables -----------------------------------------------------------------------------------


def test_headline_marks_the_best_of_each_column():
    results = make_results()
    columns, rows = headline(
        results, arm_styles(results, "interference_ratio"), "interference_ratio",
        "new_paraphrase_nll",
    )  # fmt: skip
    best = {
        column.label: [row.arm for row, cell in zip(rows, cells, strict=True) if cell.is_best]
        for column, cells in zip(columns, zip(*(row.cells for row in rows), strict=True),
                                 strict=True)
    }  # fmt: skip
    assert best == {
        "new facts, paraphrased": ["full"],
        "exact match": ["full"],
        "prefers the new answer": ["full"],
        "known facts": ["full_low", "last_third"],
        "general text": ["full_low"],
        "uptake share": ["interference_ratio"],
        "forgetting: known facts": ["interference_ratio"],
        "forgetting: general text": ["interference_ratio"],
        "parameters trained": [],
        "training time": ["last_third"],
        "peak memory": ["last_third"],
    }
    cell = rows[0].cells[1]
    assert (cell.text, cell.interval) == ("74.2", "67 to 81")


def test_an_arm_says_by_which_methods_it_was_trained():
    results = make_results()
    arms = dict(results.arms)
    arms["interference_ratio"] = replace(
        arms["interference_ratio"], methods={"input_projection": {}, "replay": {"ratio": 0.5}}
    )
    projected = replace(results, arms=arms)
    _, rows = headline(projected, arm_styles(projected, None), None, None)
    said = {row.arm: row.how for row in rows}
    assert (
        said["interference_ratio"] == "interference_ratio + input_projection + replay · lr 2.5e-4"
    )
    assert said["full_low"] == "all · lr 3e-5"


def test_answers_get_signs():
    shown = examples(make_results(), arm_styles(make_results(), None))
    signs = [{answer["arm"]: answer["sign"] for answer in example["answers"]} for example in shown]
    assert signs[0] == {"before": "↺", "interference_ratio": "✓", "full_low": "↺", "full": "✓",
                        "published_rule": "✗"}  # fmt: skip
    assert signs[1] == {"before": "✗", "interference_ratio": "✓", "full": "✗"}


# ---- pictures ---------------------------------------------------------------------------------


def test_levels_are_logarithmic_over_more_than_two_decades():
    levels, ends, is_log = _levels({"a": 1.0, "b": 30.0, "c": 1000.0, "d": None})
    assert is_log and ends == (1.0, 1000.0)
    assert levels == {"a": 0, "b": 4, "c": 8, "d": -1}
    levels, _, is_log = _levels({"a": -1.0, "b": 0.0, "c": 1.0})
    assert not is_log and levels == {"a": 0, "b": 4, "c": 8}
    assert _levels({"a": 2.0})[0] == {"a": 4}
    assert _levels({"a": math.nan}) == ({"a": -1}, (None, None), False)


def test_every_picture_has_its_table_and_words():
    results, (plan, profile) = make_results(), make_plan_and_profile()
    styles = arm_styles(results, "interference_ratio")
    points = tradeoff_pictures(results, styles, "new_paraphrase_nll",
                               ("general_text", "known_facts"))  # fmt: skip
    maps, lines = heat_maps(profile, plan), curve_pictures(results, styles)
    assert [len(group) for group in (points, maps, lines)] == [2, 2, 3]
    for picture in (*points, *maps, *lines):
        assert len(picture.description) > 40
        assert {len(row) for row in picture.rows} == {len(picture.columns)}
        assert "http" not in json.dumps(picture.spec)
    assert [len(picture.rows) for picture in maps] == [60, 60]
    assert {row[-1] for row in maps[0].rows} == {"trained", "frozen"}
    assert sum(row[-1] == "trained" for row in maps[0].rows) == len(CHOSEN)
    assert [len(picture.rows) for picture in lines] == [36, 7, 7]


def test_a_map_without_reference_text_shows_plain_norms():
    plan, profile = make_plan_and_profile()
    profile = replace(profile, reference_norms=None, reference_alignment=None)
    plan = replace(plan, scores={}, score_name="", reliability={}, policy="last_third_mlp")
    assert [picture.title for picture in heat_maps(profile, plan)] == [
        "Share of the learning rate",
        "Gradient norm on probes",
    ]
    assert heat_maps(None, LayerPlan(scale={"a": 1.0})) == []


def test_block_granularity_has_one_column():
    units = tuple(UnitInfo(f"model.layers.{i}", "block", i, 10) for i in range(4))
    plan = LayerPlan({u.name: 1.0 for u in units}, units, scores={u.name: 1.0 for u in units})
    (picture,) = heat_maps(None, plan)
    kinds = set(re.findall(r'"kind": "(\w+)"', json.dumps(picture.spec)))
    assert kinds == {"Block"}


def test_long_curves_are_thinned_but_keep_their_end():
    results = make_results()
    steps = list(range(10_001))
    arm = replace(results.arms["full"], curve={"step": steps, "loss": [1 / (s + 1) for s in steps]})
    results = replace(results, arms={"full": arm})
    (picture,) = curve_pictures(results, arm_styles(results, None))
    assert len(picture.rows) <= 402
    assert picture.rows[-1][0] == "10,000"


def test_names_of_points_do_not_cover_each_other():
    rows = [
        {"label": f"arm_number_{i}", "x": x, "y": 1.0, "x_low": x, "x_high": x, "y_low": 1.0,
         "y_high": 1.0}
        for i, x in enumerate((1.0, 1.02, 1.04))
    ]  # fmt: skip
    place_labels(rows, [])
    assert len({(row["align"], row["dy"]) for row in rows}) == 3


# ---- the page ---------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a browser would load, and the text of the scripts."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.scripts, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attrs = dict(attrs)
        if tag == "script":
            self.scripts.append("")
        for name in ("src", "href", "srcset", "data", "action"):
            if name in attrs:
                self.loaded.append(attrs[name])

    def handle_data(self, data):
        if self.tags and self.tags[-1] == "script" and self.scripts:
            self.scripts[-1] += data


def test_page_is_one_file_that_loads_nothing(run_dir):
    path = write_report(run_dir)
    assert path == run_dir / "report.html"
    text = path.read_text(encoding="utf-8")
    assert Page(text).loaded == ["data:,"]
    assert "@import" not in text and "url(" not in text.split("</style>")[0]
    # An unclosed or injected script would change their number.
    assert text.count("<script") - len(re.findall(r"<script", Page(text).scripts[1])) == 3


def test_page_escapes_names_and_texts(run_dir):
    text = write_report(run_dir).read_text(encoding="utf-8")
    assert "<script>window." not in text
    assert "&lt;/script&gt;&lt;script&gt;window.hacked" in text
    assert "&lt;b&gt;foreign&lt;/b&gt; &amp; co" in text
    specs = json.loads(Page(text).scripts[0])
    assert "<b>foreign</b> & co" in json.dumps(specs["tradeoff-general_text"])


def test_sections_stand_in_order(run_dir):
    text = write_report(run_dir).read_text(encoding="utf-8")
    heads = re.findall(r"<h[12]>(.*?)</h[12]>", text.split("<script")[0])
    assert heads == [
        "quickstart", "Results", "What was learned, what was lost", "Uptake against forgetting",
        "Where it trained", "How far the ranking can be trusted", "During training",
        "Before and after", "Details",
    ]  # fmt: skip


def test_the_same_run_gives_the_same_page(run_dir):
    first = write_report(run_dir).read_bytes()
    assert write_report(run_dir).read_bytes() == first


def test_missing_profile_and_plan_are_named_with_their_commands(run_dir):
    for name in ("profile.json", "plan.json", "recipe.yaml"):
        (run_dir / name).unlink()
    text = write_report(run_dir).read_text(encoding="utf-8")
    for part in ("profile.json", "gradloc measure", "plan.json", "gradloc select", "recipe.yaml"):
        assert part in text
    assert 'id="picture-heat' not in text and 'id="picture-tradeoff' in text
    assert "<title>run · gradloc report</title>" in text


def test_missing_results_are_an_error_that_leaves_the_old_page(run_dir):
    page = write_report(run_dir)
    before = page.read_bytes()
    (run_dir / "results.json").unlink()
    with pytest.raises(RunError, match=r"results\.json: missing.*gradloc evaluate"):
        write_report(run_dir)
    assert page.read_bytes() == before
    with pytest.raises(RunError, match="no such run folder.*gradloc run"):
        write_report(run_dir / "nowhere")


def test_a_recipe_that_is_no_yaml_is_an_error(run_dir):
    (run_dir / "recipe.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(RunError, match=r"recipe\.yaml: is not YAML"):
        write_report(run_dir)


def test_results_without_arms_are_an_error(run_dir):
    make_results(arms={}, reference_arms=()).save(run_dir / "results.json")
    with pytest.raises(RunError, match="holds no arm"):
        read_run(run_dir)


def test_pictures_can_be_saved_for_a_readme(run_dir, tmp_path):
    paths = save_pictures(run_dir, tmp_path / "pictures")
    assert len(paths) == 7
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert text.startswith("<svg") and "var(--" not in text
    assert "interference_ratio" in paths[0].read_text(encoding="utf-8")
