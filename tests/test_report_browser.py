"""The report as headless Chromium shows it: pictures drawn, console silent, nothing fetched."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from report_records import CHOSEN, N_BLOCKS, make_run, rich_results, series_results

from gradloc.report import write_report
from gradloc.report.metric_names import metric_label

pytestmark = pytest.mark.browser

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--window-size=1280,900",
)  # fmt: skip
N_ARMS = 7
PICTURES = {
    "tradeoff-general_text", "tradeoff-known_facts", "layers", "curve-loss",
    "curve-new_nll", "curve-invariant_nll",
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


@pytest.mark.slow
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
    # Each cell has a gray one below it, which a missing value shows; trained ones have a frame.
    assert count(browser, "layers", "mark-rect") == 4 * N_BLOCKS + len(CHOSEN)
    for key in ("curve-loss", "curve-new_nll", "curve-invariant_nll"):
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
    assert [url for url in requested if not url.startswith(("file:", "data:", "chrome:"))] == []
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


@pytest.mark.slow
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
    foreign = points[-2]  # the last point is the base model
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", foreign)
    ActionChains(browser).move_to_element(foreign).perform()
    tooltip = browser.find_element("id", "vg-tooltip-element")
    assert "<b>foreign</b> & co" in tooltip.text
    assert tooltip.is_displayed()


# ---- results files ----------------------------------------------------------------------------


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
    tables = browser.execute_script(
        "return Array.from(document.querySelectorAll('#measures details table'),"
        " table => Array.from(table.rows, row => row.cells[0].textContent))"
    )
    (labels,) = tables
    for arm in rich_results().arms.values():
        assert len(arm.forgetting) > 67
        for key in (*arm.uptake, *arm.forgetting):
            assert metric_label(key) in labels, key


def test_checkpoints_of_a_run_are_drawn_over_its_steps(browser, pages):
    show(browser, pages["series"])
    for key in ("new_paraphrase_nll", "known_facts", "general_text"):
        assert count(browser, f"series-{key}", "mark-symbol") == 6
        assert count(browser, f"series-{key}", "mark-line") == 1
    # All eight arms and the base model.
    assert count(browser, "tradeoff-general_text", "mark-symbol") == 9
    rows = "#results table tbody tr"
    shown = (
        "return Array.from(document.querySelectorAll(arguments[0]))"
        ".filter(row => row.checkVisibility())"
    )
    assert len(browser.execute_script(shown, rows)) == 2
    open_details(browser)
    assert len(browser.execute_script(shown, rows)) == 2 + 8


def test_tables_follow_dark_mode_and_need_no_script(browser, pages):
    def tone(dark):
        show(browser, pages["rich"], dark=dark)
        return rgb(style_of(browser, "#measures td.worse span", "color"))

    assert tone(dark=True) != tone(dark=False)
    assert browser.get_log("browser") == []
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(pages["rich"])
        assert len(browser.find_elements("css selector", "#measures tbody tr")) > 30
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
