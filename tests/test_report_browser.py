"""The report as headless Chromium shows it: pictures drawn, console silent, nothing fetched."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from test_report import CHOSEN, N_BLOCKS, make_run
from test_report_changes import rich_results, series_results

from gradloc.report import write_report
from gradloc.report.changes import change_panels
from gradloc.report.metric_names import metric_label

pytestmark = pytest.mark.browser

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--window-size=1280,900",
)  # fmt: skip
N_ARMS = 7
PICTURES = {
    "tradeoff-general_text", "tradeoff-known_facts", "heat-score", "heat-rgn", "curve-loss",
    "curve-new-nll", "curve-invariant-nll",
}  # fmt: skip


def find_program(*names):
    for name in names:
        if Path("/usr/bin", name).is_file():
            return f"/usr/bin/{name}"
        if found := shutil.which(name):
            return found
    return None


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = find_program("chromium", "chromium-browser", "google-chrome")
    driver = find_program("chromedriver")
    if chromium is None or driver is None:
        reason = (
            "Chromium and its driver are needed to look at the report and were not found; "
            "on Debian: apt-get install chromium chromium-driver"
        )
        if os.environ.get("GRADLOC_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    opened = webdriver.Chrome(options=options, service=service)
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return write_report(make_run(tmp_path_factory.mktemp("run"))).as_uri()


def show(browser, address, width=1280, dark=False, media=""):
    """Open the page and wait until every picture is drawn or has failed."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})
    browser.get(address)
    ready = "return document.documentElement.dataset.ready === 'yes'"
    WebDriverWait(browser, 60).until(lambda opened: opened.execute_script(ready))


def count(browser, picture, marks):
    """How many marks of a kind (``mark-symbol``, ``mark-rect`` ...) a picture shows."""
    return browser.execute_script(
        """
        const [picture, marks] = arguments;
        const box = document.querySelector(`[data-picture="${picture}"]`);
        return box.querySelectorAll(`svg .${marks}.role-mark path`).length;
        """,
        picture,
        marks,
    )


def rgb(text):
    return [int(part) for part in re.findall(r"\d+", text)[:3]]


def style_of(browser, selector, name):
    return browser.execute_script(
        "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]",
        selector,
        name,
    )


def test_every_picture_is_drawn(browser, address):
    show(browser, address)
    drawn = browser.execute_script(
        "return Array.from(document.querySelectorAll('[data-picture]'),"
        " e => [e.dataset.picture, e.dataset.drawn, e.parentElement.getAttribute('role'),"
        "       e.parentElement.getAttribute('aria-label'), e.querySelector('svg').clientHeight])"
    )
    assert {row[0] for row in drawn} == PICTURES
    for key, state, role, label, height in drawn:
        assert (state, role) == ("yes", "img"), key
        assert len(label) > 40 and height > 150, key
    # The base model is one more point; the foreign arm has no figure for known facts.
    assert count(browser, "tradeoff-general_text", "mark-symbol") == N_ARMS + 1
    assert count(browser, "tradeoff-known_facts", "mark-symbol") == N_ARMS
    for key in ("heat-score", "heat-rgn"):
        assert count(browser, key, "mark-rect") == 2 * N_BLOCKS + len(CHOSEN)
        assert count(browser, key, "mark-symbol") == len(CHOSEN)
    for key in ("curve-loss", "curve-new-nll", "curve-invariant-nll"):
        assert count(browser, key, "mark-line") == N_ARMS - 1, "the foreign arm has no curve"


def test_console_is_silent_and_nothing_is_fetched(browser, address):
    browser.get_log("browser"), browser.get_log("performance")
    show(browser, address)
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert address in requested, "the log must show requests at all"
    assert [url for url in requested if not url.startswith(("file:", "data:"))] == []
    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert [name for name in loaded if not name.startswith("data:")] == []


def test_injected_scripts_do_not_run(browser, address):
    show(browser, address)
    assert browser.execute_script("return [typeof window.hacked, typeof window.escaped]") == [
        "undefined",
        "undefined",
    ]
    assert "</script><script>window.hacked" in browser.find_element("id", "examples").text


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_page_never_scrolls_sideways(browser, address, width):
    show(browser, address, width=width)
    browser.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true })")
    wide, window = browser.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert window == width and wide <= window
    overflowing = browser.execute_script(
        "return Array.from(document.querySelectorAll('.chart svg'))"
        ".filter(svg => svg.getBoundingClientRect().right > innerWidth).length"
    )
    assert overflowing == 0


def test_dark_mode_reaches_the_pictures(browser, address):
    def look(dark):
        show(browser, address, dark=dark)
        return [
            rgb(style_of(browser, "body", "backgroundColor")),
            rgb(style_of(browser, "body", "color")),
            rgb(style_of(browser, ".chart svg .role-axis-label text", "fill")),
        ]

    paper, ink, label = look(dark=True)
    assert max(paper) < 60 and min(ink) > 200 and min(label) > 120
    paper, ink, label = look(dark=False)
    assert min(paper) > 240 and max(ink) < 60 and max(label) < 130


def test_print_is_light_even_in_dark_mode(browser, address):
    show(browser, address, dark=True, width=720, media="print")
    assert min(rgb(style_of(browser, "body", "backgroundColor"))) > 240
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 720


def test_tooltip_names_the_arm_as_text(browser, address):
    from selenium.webdriver.common.action_chains import ActionChains

    show(browser, address)
    points = browser.find_elements(
        "css selector", "[data-picture='tradeoff-general_text'] .mark-symbol.role-mark path"
    )
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", points[-1])
    ActionChains(browser).move_to_element(points[-1]).perform()
    tooltip = browser.find_element("id", "vg-tooltip-element")
    assert "<b>foreign</b> & co" in tooltip.text
    assert tooltip.is_displayed()


# ---- what was learned, what was lost ----------------------------------------------------------


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of many metrics, and one of a training run's checkpoints, from results files."""
    folder = tmp_path_factory.mktemp("files")
    found = {}
    for name, results in (("rich", rich_results()), ("series", series_results())):
        results.save(folder / f"{name}.json")
        found[name] = write_report(folder / f"{name}.json").as_uri()
    return found


def open_details(browser):
    browser.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true })")


def panel_marks(browser, panel):
    """Boxes of the signs that a panel shows at once: row, left, right, width; and of its plots."""
    return browser.execute_script(
        """
        const rows = document.querySelectorAll(
            `#panel-${arguments[0]} > .forest .row:not(.top):not(.ticks)`);
        return Array.from(rows, row => {
            const plot = row.querySelector('.plot > svg').getBoundingClientRect();
            const marks = Array.from(row.querySelectorAll('g path'), p => {
                const box = p.getBoundingClientRect();
                return [box.left - plot.left, plot.right - box.right, box.width,
                        box.top - plot.top, plot.bottom - box.bottom];
            });
            return {
                label: row.querySelector('.name').textContent, marks: marks,
                values: Array.from(row.querySelectorAll('.values > div'), v => v.textContent),
                spans: Array.from(row.querySelectorAll('line.span'),
                                  l => l.getBoundingClientRect().width),
                described: row.querySelector('svg').getAttribute('aria-label'),
            };
        });
        """,
        panel,
    )


@pytest.mark.parametrize("width", [390, 1280])
def test_both_panels_are_drawn(browser, pages, width):
    show(browser, pages["rich"], width=width)
    for panel in change_panels(rich_results()):
        drawn = {row["label"]: row for row in panel_marks(browser, panel.key)}
        assert set(drawn) == {row.label for row in panel.rows}
        for row in panel.rows:
            shown = drawn[row.label]
            assert len(shown["marks"]) == len(shown["spans"]) == len(row.figures) == 2
            for left, right, size, top, bottom in shown["marks"]:
                assert size > 5 and min(left, right, top, bottom) > -1, "a sign leaves its plot"
            assert min(shown["spans"]) > 3
            for name in row.figures:
                assert f"{name}: " in shown["described"]
            assert shown["described"].count("95 % interval") == 2
    learned, lost = (
        browser.execute_script(
            "return document.querySelector(arguments[0]).getBoundingClientRect().toJSON()",
            f"#panel-{key}",
        )
        for key in ("learned", "lost")
    )
    if width > 1000:
        assert learned["top"] == lost["top"] and learned["right"] < lost["left"]
    else:
        assert learned["bottom"] < lost["top"]


def test_gain_and_loss_are_said_in_signs_and_words(browser, pages):
    show(browser, pages["rich"])
    values = {
        row["label"]: row["values"]
        for panel in ("learned", "lost") for row in panel_marks(browser, panel)
    }  # fmt: skip
    assert [text.split()[:2] for text in values["ECBD, perplexity"]] == [["▲", "gained"]] * 2
    clear, unclear = values["BLiMP, choice"]
    assert clear.split()[:2] == ["▼", "lost"] and unclear == "≈ no clear change"
    assert style_of(browser, "#panel-lost .mark-unclear", "opacity") < "0.6"
    assert style_of(browser, "#panel-lost .mark-worse", "opacity") == "1"


@pytest.mark.parametrize("name", ["rich", "series"])
@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_pages_of_results_files_never_scroll_sideways(browser, pages, name, width):
    show(browser, pages[name], width=width)
    for _ in range(2):
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width
        open_details(browser)


def test_every_metric_is_in_a_table(browser, pages):
    show(browser, pages["rich"])
    results = rich_results()
    tables = browser.execute_script(
        "return Array.from(document.querySelectorAll('#details table.grouped'),"
        " table => Array.from(table.rows, row => row.cells[1]?.textContent))"
    )
    assert len(tables) == len(results.arms)
    for labels, arm in zip(tables, results.arms.values(), strict=True):
        assert len(arm.forgetting) > 67
        for key in (*arm.uptake, *arm.forgetting):
            assert labels.count(metric_label(key)) == 1, key
    for panel in change_panels(results):
        cells = browser.execute_script(
            "return Array.from(document.querySelectorAll(arguments[0]), r => r.textContent)",
            f"#panel-{panel.key} table tbody tr",
        )
        assert len(cells) == 2 * len(panel.every_row)


def test_what_is_behind_a_click_is_drawn_as_well(browser, pages):
    show(browser, pages["rich"])
    seen = "return document.querySelector('#panel-learned details .plot svg').checkVisibility()"
    assert not browser.execute_script(seen)
    open_details(browser)
    assert browser.execute_script(seen)
    heights = browser.execute_script(
        "return Array.from(document.querySelectorAll('#panel-learned details .row:not(.top)"
        ":not(.ticks) .plot > svg'), svg => [svg.clientHeight, svg.querySelectorAll('g').length])"
    )
    (panel, _) = change_panels(rich_results())
    assert len(heights) == len(panel.every_row) - len(panel.rows)
    assert all(height > 30 and marks == 2 for height, marks in heights)


def test_checkpoints_of_a_run_are_drawn_over_its_steps(browser, pages):
    show(browser, pages["series"])
    for key in ("new_paraphrase_nll", "known_facts", "general_text"):
        assert count(browser, f"series-{key}", "mark-symbol") == 6
        assert count(browser, f"series-{key}", "mark-line") == 1
        assert count(browser, f"series-{key}", "mark-area") == 1
    # All eight arms and the base model; only two bear a name, each with its halo.
    assert count(browser, "tradeoff-general_text", "mark-symbol") == 9
    names = browser.execute_script(
        "return Array.from(document.querySelectorAll("
        "'[data-picture=\"tradeoff-general_text\"] .role-mark.mark-text text'), t => t.textContent)"
    )
    assert sorted(name for name in names if name) == ["final", "final", "lone", "lone"]
    rows = "table.headline tbody tr"
    shown = (
        "return Array.from(document.querySelectorAll(arguments[0]))"
        ".filter(row => row.checkVisibility())"
    )
    assert len(browser.execute_script(shown, rows)) == 2
    open_details(browser)
    assert len(browser.execute_script(shown, rows)) == 2 + 7


def test_panels_follow_dark_mode_and_need_no_script(browser, pages):
    def look(dark):
        show(browser, pages["rich"], dark=dark)
        return [
            rgb(style_of(browser, "#panel-lost .values .worse", "color")),
            rgb(style_of(browser, "#panel-lost .forest text", "fill")),
        ]

    assert min(look(dark=True)[1]) > 120 and max(look(dark=False)[1]) < 130
    assert look(dark=True)[0] != look(dark=False)[0]
    assert browser.get_log("browser") == []
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(pages["rich"])
        shown = browser.find_elements("css selector", "#panel-learned > .forest g path")
        assert len(shown) > 20 and all(sign.size["width"] > 5 for sign in shown)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
