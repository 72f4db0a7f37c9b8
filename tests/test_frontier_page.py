"""The page and the terminal table of a sweep say what its figures say."""

import io
import json
import re
from dataclasses import replace

import pytest
import vl_convert
from rich.console import Console
from sweep_records import AXIS, CONSTANTS, POLICIES, UPTAKES, make_record
from test_report_browser import browser as browser
from test_report_browser import count, rgb, show, style_of

from gradloc.experiments.sweep.frontier_page import (
    curve_picture,
    frontier_page,
    frontier_styles,
    frontier_tables,
    ratio_table,
    verdict,
    write_frontier,
)
from gradloc.experiments.sweep.frontiers import find_frontier
from gradloc.report.page import render
from gradloc.report.styles import N_COLORS

N = 100
LOSSES = ("known_facts", "general_text")
EVIL = "</script><script>window.hacked=1</script>"


@pytest.fixture(scope="module")
def record():
    """Five arms on two corpora, and a rate of full training beyond its largest uptake."""
    whole = make_record(corpora=("invented", "temporal"), noise=0.5, seeds=(0, 1), losses=LOSSES)
    past = [
        replace(run, learning_rate=3e-4, metrics=changed(run.metrics, 0.7, 2.0))
        for run in whole.runs
        if run.arm == "full" and run.learning_rate == 1e-4
    ]
    return replace(whole, runs=(*whole.runs, *past))


def changed(metrics, uptake, forgetting):
    """Measures whose values are multiplied, by kind."""
    return {
        name: replace(measure, values=tuple(
            value * (uptake if measure.kind == "uptake" else forgetting)
            for value in measure.values
        ))
        for name, measure in metrics.items()
    }  # fmt: skip


@pytest.fixture(scope="module")
def frontier(record):
    return find_frontier(record, n_bootstrap=N)


@pytest.fixture(scope="module")
def page(record, frontier):
    return render(frontier_page(record, frontier))


@pytest.fixture(scope="module")
def address(record, frontier, tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep") / "frontier.html"
    return write_frontier(record, frontier, out).as_uri()


def specs_of(page):
    found = re.search(r'<script type="application/json" id="pictures">(.*?)</script>', page, re.S)
    return json.loads(found[1])


def data_of(spec, **wanted):
    """Rows of a specification that have all of these values."""
    rows = [row for layer in spec["layer"] for row in layer["data"].get("values", [])]
    return [row for row in rows if all(row.get(k) == v for k, v in wanted.items())]


# The verdict


def test_the_verdict_is_made_of_the_figures(frontier):
    text = verdict(frontier.corpora["invented"], "full").replace("\N{NARROW NO-BREAK SPACE}", " ")
    best = frontier.corpora["invented"].best_uptake.value
    assert text.startswith(f"At 75 % of the best uptake of full ({best:.2f} nats at rate 1e-4): ")
    # half forgets less, worse more, chance more or less by its knots; small does not get there.
    ratio = next(
        at.ratio
        for at in frontier.corpora["invented"].arms["half"].forgetting["general_text"].at_uptake
        if at.share == 0.75
    )
    assert f"lowest half at {ratio.value:.3f} × [" in text
    for loss in ("on known facts, ", "on general text, "):
        assert re.search(rf"{loss}[12] of 4 arms forget less and [12] more \(1 do not", text)


def test_the_verdict_says_where_nothing_can_be_compared(record):
    runs = tuple(run for run in record.runs if run.arm != "full")
    alone = find_frontier(replace(record, runs=runs), n_bootstrap=N)
    text = verdict(alone.corpora["invented"], "full")
    assert text == "Nothing can be compared yet: full has no finished run on this corpus."
    assert text in render(frontier_page(replace(record, runs=runs), alone))
    small = tuple(run for run in record.runs if run.arm in ("full", "small"))
    reached = find_frontier(replace(record, runs=small), n_bootstrap=N)
    assert "none of 1 arms takes up so much" in verdict(reached.corpora["invented"], "full")


# Styles


def test_line_controls_and_strong_arms_have_their_styles(frontier):
    styles = frontier_styles(frontier)
    assert next(iter(styles)) == "full" and styles["full"].is_reference
    assert [name for name, style in styles.items() if style.is_quiet] == ["chance"]
    strong = [style for style in styles.values() if not style.is_quiet]
    assert len({(style.color, style.shape) for style in strong}) == 4


def test_only_the_first_arms_get_a_color(monkeypatch):
    names = [f"arm{i}" for i in range(N_COLORS + 2)]
    for name in names:
        monkeypatch.setitem(UPTAKES, name, UPTAKES["full"])
        monkeypatch.setitem(CONSTANTS, name, 0.1)
    found = find_frontier(
        make_record(arms=("full", *names), noise=0.0, seeds=(0,), losses=LOSSES), n_bootstrap=N
    )
    styles = frontier_styles(found)
    assert [name for name in names if styles[name].is_quiet] == names[N_COLORS:]


def test_a_control_with_a_method_is_no_control(monkeypatch):
    monkeypatch.setitem(POLICIES, "half", "random_k")
    plain = make_record(arms=("full", "half"), noise=0.0, seeds=(0,), losses=LOSSES)
    assert frontier_styles(find_frontier(plain, n_bootstrap=N))["half"].is_quiet
    runs = tuple(replace(run, methods={"replay": {"ratio": 0.5}}) for run in plain.runs)
    found = find_frontier(replace(plain, runs=runs), n_bootstrap=N)
    assert not frontier_styles(found)["half"].is_quiet


# Pictures


def test_curves_start_at_the_base_and_leave_out_rates_beyond_the_peak(frontier):
    corpus = frontier.corpora["invented"]
    picture = curve_picture("key", corpus, frontier_styles(frontier), AXIS, "general_text")
    corners = [row for row in data_of(picture.spec, arm="full") if "place" in row]
    points = corpus.arms["full"].points
    assert [row["place"] for row in corners] == [0, 1, 2, 3]
    expected = [0.0, *(point.metrics[AXIS].value for point in points[:3])]
    assert [row["y"] for row in corners] == pytest.approx(expected)
    assert [row["x"] for row in corners][1:] == pytest.approx(
        [point.metrics["general_text"].value for point in points[:3]]
    )
    beyond = data_of(picture.spec, arm="full", detail="3e-4")
    assert beyond and not any(row["on_curve"] for row in beyond)
    assert len(picture.table.rows) == 16
    assert {row.cells[-1].text for row in picture.table.rows} == {"yes", ""}


def test_shares_are_drawn_in_percent_with_their_intervals(frontier):
    corpus = frontier.corpora["invented"]
    picture = curve_picture("key", corpus, frontier_styles(frontier), AXIS, "known_facts")
    found = corpus.arms["half"].points[0].metrics["known_facts"]
    row = next(r for r in data_of(picture.spec, arm="half", detail="1e-5") if "x_low" in r)
    assert (row["x"], row["x_low"], row["x_high"]) == pytest.approx(
        (100 * found.value, 100 * found.low, 100 * found.high)
    )
    assert "% points lost" in picture.table.columns[3].label


def test_every_picture_compiles(page):
    specs = specs_of(page)
    # Two metrics on two corpora.
    assert len(specs) == 2 * 2
    for key, spec in specs.items():
        assert "$schema" not in spec
        svg = vl_convert.vegalite_to_svg({**spec, "width": 400})
        assert ("half" in svg) and "NaN" not in svg, key


# Tables


def row_of(table, arm):
    return next(row.cells for row in table.rows if row.cells[0].text == arm)


def test_the_table_of_ratios_says_what_the_figures_say(frontier):
    corpus = frontier.corpora["invented"]
    table = ratio_table(corpus, "full", frontier_styles(frontier))
    row, place = row_of(table, "half"), 1 + 3 * LOSSES.index("general_text") + 1
    assert list(corpus.arms["half"].forgetting) == list(LOSSES)
    ratio = corpus.arms["half"].forgetting["general_text"].at_uptake[1].ratio
    assert len(table.columns) == len(row) == 11
    assert row[place].text == f"{ratio.value:.3f}" and row[place].tone == "better"
    assert row_of(table, "worse")[place].tone == "worse"
    small = row_of(table, "small")[place]
    assert (small.text, small.small, small.tone) == ("—", "not reached", "soft")
    assert "takes up" in small.hint
    assert [column.arrow for column in table.columns[1:]] == ["↓"] * 6 + ["↑", "↓", "↓", ""]
    assert {cell.text for cell in row_of(table, "full")[1:10]} == {"1.00"}


# The page


def test_the_page_holds_all_it_needs(page, record):
    body = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", body)
    assert "gradloc sweep synthetic.yaml" in body and "2.8" in body
    assert "from 64 trained models" in body
    assert body.count("<h2>invented</h2>") == 1
    assert "prefers-color-scheme: dark" in body
    for run in record.runs[:3]:
        assert run.arm in body


def test_names_cannot_break_the_page(record):
    runs = tuple(replace(run, arm="half" + EVIL) for run in record.runs if run.arm == "half")
    runs += tuple(run for run in record.runs if run.arm == "full")
    evil = replace(record, runs=runs, name=EVIL)
    text = render(frontier_page(evil, find_frontier(evil, n_bootstrap=N)))
    assert "<script>window.hacked" not in text
    assert "&lt;script&gt;window.hacked" in text


# The terminal


def shown(frontier):
    console = Console(width=200, record=True, file=io.StringIO())
    for item in frontier_tables(frontier):
        console.print(item)
    return console.export_text()


def test_the_terminal_shows_ratios_and_the_verdict(frontier):
    text = shown(frontier)
    half = next(line for line in text.splitlines() if line.strip().startswith("half"))
    ratio = frontier.corpora["invented"].arms["half"].forgetting["general_text"].at_uptake[1].ratio
    assert f"{ratio.value:.3f}" in half and "0.405" in half and "25.0" in half
    small = next(line for line in text.splitlines() if line.strip().startswith("small"))
    assert small.count("—") == len(LOSSES)
    assert text.count("best uptake of full") == 2
    assert "full: its curve leaves out 3e-4" in text


# In a browser


@pytest.mark.slow
@pytest.mark.browser
def test_every_picture_is_drawn_and_nothing_is_fetched(browser, address):
    browser.get_log("browser"), browser.get_log("performance")
    show(browser, address)
    drawn = browser.execute_script(
        "return Array.from(document.querySelectorAll('[data-picture]'),"
        " e => [e.dataset.picture, e.dataset.drawn, e.parentElement.getAttribute('aria-label'),"
        "       e.querySelector('svg').clientHeight])"
    )
    assert len(drawn) == 4
    for key, state, label, height in drawn:
        assert state == "yes" and len(label) > 60 and height > 150, key
    # Sixteen points and the base model.
    assert count(browser, "frontier-0-1", "mark-symbol") == 17
    assert browser.get_log("browser") == []
    requests = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [
        event["params"]["request"]["url"]
        for event in requests
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert address in urls
    assert [url for url in urls if not url.startswith(("file:", "data:", "chrome:"))] == []


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_never_scrolls_sideways(browser, address, width):
    show(browser, address, width=width)
    browser.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true })")
    wide, window = browser.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert window == width and wide <= window
    assert browser.execute_script(
        "return Array.from(document.querySelectorAll('.chart svg'))"
        ".filter(svg => svg.getBoundingClientRect().right > innerWidth).length"
    ) == 0  # fmt: skip


@pytest.mark.browser
def test_dark_mode_reaches_the_pictures(browser, address):
    show(browser, address, dark=True)
    assert max(rgb(style_of(browser, "body", "backgroundColor"))) < 60
    assert min(rgb(style_of(browser, ".chart svg .role-axis-label text", "fill"))) > 120
