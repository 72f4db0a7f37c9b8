"""The documentation builds without a warning, every link leads somewhere, tables are complete."""

import dataclasses
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import gradloc
from gradloc import errors
from gradloc.config import recipe
from gradloc.data.probes import Probe

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "-q"]
    done = subprocess.run(
        [*command, "-d", str(folder / ".doctrees"), str(ROOT / "docs"), str(folder)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


class Page(HTMLParser):
    """Links, ids and text of an HTML page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.ids, self.text = [], [], set(), ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        elif tag in ("script", "img", "link") and (
            target := attributes.get("src") or attributes.get("href")
        ):
            self.loads.append(target)

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def pages(site):
    """Name, such as ``how-to/install``, -> page."""
    found = {path.relative_to(site) for path in site.rglob("*.html")}
    found = {path for path in found if path.parts[0] != "_static"}
    return {path.with_suffix("").as_posix(): Page(site / path) for path in found}


def broken(path, targets, ids_of):
    """Those of the targets that stay on this disk and lead nowhere."""
    for target in targets:
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            continue
        file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if file.is_dir():
            continue
        fragment = unquote(parts.fragment)
        if not file.is_file() or (fragment and fragment not in ids_of(file)):
            yield target


@pytest.mark.slow
def test_every_link_of_the_site_leads_somewhere(pages, site):
    sources = [path.relative_to(ROOT / "docs") for path in SOURCES]
    assert pages.keys() >= {path.with_suffix("").as_posix() for path in sources}
    checked = 0
    for name, page in pages.items():
        path = site / f"{name}.html"
        targets = page.links + page.loads
        checked += len(targets)
        # The search page's own script makes the anchors of these.
        targets = [target for target in targets if target not in ("#", "")]
        assert list(broken(path, targets, lambda file: Page(file).ids)) == [], name
    assert checked > 100


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(pages):
    for name, page in pages.items():
        assert [target for target in page.loads if "//" in target] == [], name


def heading_ids(path):
    """Anchors of a Markdown file's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def links_of(path):
    """Targets of the links and pictures of a Markdown file."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", *SOURCES, *sorted((ROOT / "evaluation").rglob("*.md"))],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_every_link_of_a_markdown_file_leads_somewhere(path):
    """As a code host shows it, where no documentation is built."""
    assert list(broken(path, links_of(path), heading_ids)) == []


def test_the_readme_links_to_the_documentation_and_no_page_is_out_of_reach():
    assert any(link.startswith("docs/") for link in links_of(ROOT / "README.md"))
    linked = {
        (path.parent / link.split("#")[0]).resolve() for path in SOURCES for link in links_of(path)
    }
    # index.md is where readers begin.
    assert [path for path in SOURCES if path not in linked and path.name != "index.md"] == []


def test_the_link_check_sees_a_broken_link(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("# A heading, here\n")
    good = ["page.md", "#a-heading-here", "page.md#a-heading-here", "https://example.org/x", "."]
    bad = ["other.md", "#nowhere", "page.md#nowhere"]
    assert list(broken(path, good + bad, heading_ids)) == bad


@pytest.mark.slow
def test_every_field_of_the_default_and_of_a_probe_is_documented(pages):
    fields = [item.name for item in dataclasses.fields(gradloc.GradLocConfig)]
    assert [name for name in fields if name not in pages["reference/callback"].text] == []
    fields = [item.name for item in dataclasses.fields(Probe)]
    assert [name for name in fields if name not in pages["reference/run-folder"].text] == []


@pytest.mark.slow
def test_every_recipe_key_is_documented(pages):
    text = pages["reference/recipes"].text
    classes = [item for item in vars(recipe).values() if dataclasses.is_dataclass(item)]
    classes = [item for item in classes if item.__module__ == recipe.__name__]
    assert recipe.Recipe in classes and len(classes) >= 8
    for cls in classes:
        for item in dataclasses.fields(cls):
            assert re.search(rf"^{item.name}$", text, flags=re.MULTILINE), item.name


@pytest.mark.slow
def test_every_entry_of_a_table_is_documented(pages):
    from gradloc.cli.main import COMMANDS
    from gradloc.data.benchmarks import BENCHMARKS
    from gradloc.data.corpora.readers import READERS
    from gradloc.evaluation.metrics import PROBE_METRICS
    from gradloc.localization.policies import POLICIES
    from gradloc.training.methods.method_table import METHODS

    api = pages["reference/api"]
    assert {f"gradloc.{name}" for name in gradloc.__all__ if name[0] != "_"} <= api.ids
    for name, known in {
        "reference/policies": POLICIES,
        "reference/methods": METHODS,
        "reference/metrics": PROBE_METRICS,
        "reference/benchmarks": BENCHMARKS,
        "reference/recipes": READERS,
        "reference/command-line": [f"gradloc {command}" for command in COMMANDS],
        "reference/errors": [
            item
            for item in vars(errors)
            if item.endswith("Error") and item not in ("GradlocError", "ProblemsError")
        ],
    }.items():
        text = pages[name].text
        assert [item for item in known if item not in text] == [], name


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs" / "stored").glob("*.json")), ids=lambda path: path.stem
)
def test_stored_runs_name_no_path_of_the_machine_they_ran_on(path):
    """Anybody should be able to repeat the command as it stands."""
    assert re.findall(r'[" =]/\w+/[^" ]*', path.read_text(encoding="utf-8")) == []


def test_the_path_check_sees_a_path():
    assert re.findall(r'[" =]/\w+/[^" ]*', '"command": "gradloc continual /data/news.yaml"')
