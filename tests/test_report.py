"""The report page and its pictures, from values made up here."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import vl_convert
from report_records import (
    CHOSEN,
    figure,
    make_plan_and_profile,
    make_results,
    make_run,
    rich_arm,
    rich_results,
    series_results,
)

from gradloc.errors import GradlocError, RunError
from gradloc.evaluation.results import ArmResult, MetricValue
from gradloc.localization.plan import LayerPlan
from gradloc.models.unit_info import UnitInfo
from gradloc.report import write_report
from gradloc.report.answers import judge_answer
from gradloc.report.charts import Line, line_picture, plain_points
from gradloc.report.formatting import duration, learning_rate, number, percent, ranges, span
from gradloc.report.heat_map import color_levels, layer_map
from gradloc.report.page import Details, pictures_of
from gradloc.report.run_folder import read_run
from gradloc.report.run_page import report_page
from gradloc.report.scatter import Model, tradeoff_picture
from gradloc.report.styles import N_COLORS, assign_styles


@pytest.fixture
def run_dir(tmp_path):
    return make_run(tmp_path / "run")


def page_of(results, folder):
    return report_page(read_run(results.save(folder / "some.json")))


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
    assert (duration(math.inf), learning_rate(math.nan), duration(None)) == ("∞", "—", "—")
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


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (" euro.", "right"), ("Euro, which replaced", "right"), (" eurozone", "wrong"),
        ("kuna (HRK)", "old"), ("", "wrong"),
    ],
)  # fmt: skip
def test_answers_are_judged_by_whole_words(answer, verdict):
    assert judge_answer(answer, "euro", "kuna") == verdict


# ---- pictures ---------------------------------------------------------------------------------


def test_levels_are_logarithmic_over_more_than_two_decades():
    levels, ends, is_log = color_levels([1.0, 30.0, 1000.0, None])
    assert is_log and ends == (1.0, 1000.0) and levels == [0, 4, 8, -1]
    levels, _, is_log = color_levels([-1.0, 0.0, 1.0])
    assert not is_log and levels == [0, 4, 8]
    assert color_levels([2.0])[0] == [4]
    assert color_levels([math.nan]) == ([-1], (None, None), False)


def test_shades_of_changes_stand_around_zero():
    levels, ends, _ = color_levels([-2.0, 0.0, 1.0, math.nan], is_change=True)
    assert levels == [0, 6, 9, -1] and ends == (-2.0, 2.0)
    assert color_levels([1.0], is_change=True, top=0.5)[0] == [12]


def test_no_two_arms_look_alike():
    names = [f"arm{n}" for n in range(3 * N_COLORS)]
    styles = assign_styles([*names, "full", "low"], references=["full", "low"], main="arm3")
    looks = {(style.color, style.shape, style.dash) for style in styles.values()}
    assert len(looks) == len(styles) and list(styles) == [*names, "full", "low"]
    assert styles["arm3"].color == "var(--arm-0)" and styles["full"].is_reference


@pytest.mark.slow
def test_every_picture_has_its_table_and_words_and_compiles(run_dir):
    pictures = pictures_of(report_page(read_run(run_dir)))
    assert [picture.key for picture in pictures] == [
        "tradeoff-known_facts", "tradeoff-general_text", "layers",
        "curve-loss", "curve-new_nll", "curve-invariant_nll",
    ]  # fmt: skip
    for picture in pictures:
        assert len(picture.description) > 40
        assert {len(row.cells) for row in picture.table.rows} == {len(picture.table.columns)}
        assert "http" not in json.dumps(picture.spec)
        assert "NaN" not in vl_convert.vegalite_to_svg({**picture.spec, "width": 400})
    states = [row.cells[-1].text for row in pictures[2].table.rows]
    assert len(states) == 60
    assert set(states) == {"trained", "frozen"} and states.count("trained") == len(CHOSEN)
    assert [len(picture.table.rows) for picture in pictures[3:]] == [36, 7, 7]


def test_a_map_without_reference_text_shows_plain_norms():
    plan, profile = make_plan_and_profile()
    profile = replace(profile, reference_norms=None, reference_alignment=None)
    plan = replace(plan, scores={}, score_name="", reliability={}, policy="last_third_mlp")
    assert layer_map(profile, plan).title == "Gradient norm on probes"
    assert layer_map(None, plan).title == "Share of the learning rate"
    assert layer_map(None, LayerPlan(scale={"a": 1.0})) is None


def test_block_granularity_has_one_column():
    units = tuple(UnitInfo(f"model.layers.{i}", "block", i, 10) for i in range(4))
    plan = LayerPlan({u.name: 1.0 for u in units}, units, scores={u.name: 1.0 for u in units})
    picture = layer_map(None, plan)
    assert set(re.findall(r'"x": "(\w+)"', json.dumps(picture.spec))) == {"Block"}


def test_long_curves_are_thinned_but_keep_their_end():
    steps = list(range(10_001))
    points = plain_points(steps, [1 / (step + 1) for step in steps])
    style = assign_styles(["a"])["a"]
    picture = line_picture("k", "Loss", [Line("a", style, points)], x_title="Step", y_title="nats")
    assert len(picture.table.rows) <= 402
    assert picture.table.rows[-1].cells[0].text == "10,000"


def test_points_that_are_not_finite_are_not_drawn():
    style = assign_styles(["a"])["a"]
    points = plain_points([1, 2, 3], [math.nan, None, math.inf])
    assert line_picture("k", "L", [Line("a", style, points)], x_title="S", y_title="n") is None
    broken = MetricValue(math.nan, None, None, 1, "nats", True)
    models = [Model("a", style, broken, figure(1.0)), Model("b", style, figure(1.0), figure(None))]
    assert tradeoff_picture("k", "T", models, "new_nll", "known_facts_nll") is None


def test_curves_start_at_the_base_model_and_leave_out_what_is_not_on_them():
    style = assign_styles(["a"])["a"]
    models = [
        Model("a", style, figure(uptake), figure(lost), f"rate {lost}", "a", uptake < 5)
        for uptake, lost in ((2.0, 0.1), (4.0, 0.3), (9.0, 3.0))
    ]
    picture = tradeoff_picture("k", "T", models, "new_nll", "known_facts_nll")
    layers = picture.spec["layer"]
    (corners,) = [
        layer["data"]["values"] for layer in layers
        if layer["mark"]["type"] == "line"
    ]  # fmt: skip
    assert [(row["x"], row["y"]) for row in corners] == [(0.0, 0.0), (0.1, 2.0), (0.3, 4.0)]
    assert [row.cells[-1].text for row in picture.table.rows] == ["yes", "yes", ""]


def test_curves_over_checkpoints_hold_the_figures_of_each_step(tmp_path):
    results = series_results()
    pictures = {p.key: p for p in pictures_of(page_of(results, tmp_path))}
    uptake, known = pictures["series-new_paraphrase_nll"], pictures["series-known_facts"]
    assert uptake.direction[0] == "↑" and known.direction[0] == "↓"
    assert [row.cells[0].text for row in uptake.table.rows] == [
        "20",
        "40",
        "60",
        "80",
        "100",
        "120",
    ]
    at_60 = results.arms["checkpoint-60"]
    shown = [float(picture.table.rows[2].cells[1].text) for picture in (uptake, known)]
    assert shown[0] == pytest.approx(at_60.uptake["new_paraphrase_nll"].value, abs=5e-3)
    assert shown[1] == pytest.approx(100 * at_60.forgetting["known_facts"].value, abs=0.05)


def test_the_table_shows_the_last_checkpoint_and_keeps_the_others(tmp_path):
    page = page_of(series_results(), tmp_path)
    table = page.sections[0].blocks[1]
    assert [row.cells[0].text for row in table.rows] == ["final", "lone"]
    (details,) = [block for block in page.sections[0].blocks if isinstance(block, Details)]
    assert details.summary == "All 8 checkpoints, step by step" and len(details.blocks[0].rows) == 8


def test_without_a_baseline_curves_are_of_scores(tmp_path):
    arms = {name: replace(arm, uptake={}, forgetting={})
            for name, arm in series_results().arms.items()}  # fmt: skip
    page = page_of(rich_results(arms, baseline="", baseline_scores={}), tmp_path)
    keys = [picture.key for picture in pictures_of(page)]
    assert keys == ["series-new_paraphrase_nll", "series-known_facts", "series-general_text"]
    titles = [section.title for section in page.sections if section.blocks]
    assert titles == ["Results", "Over the checkpoints", "Every measure", "Details"]


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
        "quickstart", "Results", "Uptake against forgetting", "Where it trained",
        "During training", "Before and after", "Every measure", "Details",
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
    assert 'id="picture-layers' not in text and 'id="picture-tradeoff' in text
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
    assert heads == ["gentle", "Results", "Uptake against forgetting", "Every measure", "Details"]
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
    assert "<img" not in body and body.count("&lt;img src=x") > 12


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
    with pytest.raises(GradlocError, match="expected a results file"):
        write_report(tmp_path / "plan.json")
    replace(rich_results(), arms={}).save(tmp_path / "empty.json")
    with pytest.raises(RunError, match="holds no arm"):
        write_report(tmp_path / "empty.json")
    assert not list(tmp_path.glob("*.html"))
