"""The documentation builds without a warning, every link leads somewhere, tables are complete."""

import dataclasses
import os
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

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "-q"]
    done = subprocess.run(
        [*command, "-d", str(folder / ".doctrees"), str(ROOT / "docs"), str(folder)],
        capture_output=True,
        text=True,
        # Help texts are wrapped to the terminal's width.
        env={**os.environ, "COLUMNS": "88", "NO_COLOR": "1"},
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
    return {path: Page(path) for path in site.glob("*.html")}


def page(pages, name):
    return next(page for path, page in pages.items() if path.name == f"{name}.html")


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


def test_every_link_of_the_site_leads_somewhere(pages, site):
    names = {path.stem for path in pages}
    assert names >= {path.stem for path in (ROOT / "docs").glob("*.md")}
    checked = 0
    for path, page in pages.items():
        targets = page.links + page.loads
        checked += len(targets)
        # The search page's own script makes the anchors of these.
        targets = [target for target in targets if target not in ("#", "")]
        assert list(broken(path, targets, lambda file: Page(file).ids)) == [], path.name
    assert checked > 100


def test_the_site_loads_nothing_from_elsewhere(pages):
    for path, page in pages.items():
        assert [target for target in page.loads if "//" in target] == [], path.name


def heading_ids(path):
    """Anchors of a Markdown file's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("name", ["README.md"])
def test_every_link_of_the_readme_leads_somewhere(name):
    path = ROOT / name
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    assert targets, "the README links to the documentation"
    assert list(broken(path, targets, heading_ids)) == []


def test_the_link_check_sees_a_broken_link(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("# A heading, here\n")
    good = ["page.md", "#a-heading-here", "page.md#a-heading-here", "https://example.org/x", "."]
    bad = ["other.md", "#nowhere", "page.md#nowhere"]
    assert list(broken(path, good + bad, heading_ids)) == bad


def test_every_recipe_key_is_documented(pages):
    text = page(pages, "recipes").text
    classes = [item for item in vars(recipe).values() if dataclasses.is_dataclass(item)]
    classes = [item for item in classes if item.__module__ == recipe.__name__]
    assert recipe.Recipe in classes and len(classes) >= 8
    for cls in classes:
        for item in dataclasses.fields(cls):
            assert re.search(rf"^{item.name}$", text, flags=re.MULTILINE), item.name


def test_every_public_name_policy_reader_error_and_command_is_documented(pages):
    from gradloc.cli.main import COMMANDS
    from gradloc.data.corpora.readers import READERS
    from gradloc.localization.policies import POLICIES

    api = page(pages, "api")
    assert {f"gradloc.{name}" for name in gradloc.__all__ if name[0] != "_"} <= api.ids
    for name, known in {
        "policies": POLICIES,
        "recipes": READERS,
        "command-line": [f"gradloc {command}" for command in COMMANDS],
        "what-can-go-wrong": [
            item
            for item in vars(errors)
            if item.endswith("Error") and item not in ("GradlocError", "ProblemsError")
        ],
    }.items():
        text = page(pages, name).text
        assert [item for item in known if item not in text] == [], name


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs" / "stored").glob("*.json")), ids=lambda path: path.stem
)
def test_stored_runs_name_no_path_of_the_machine_they_ran_on(path):
    """Anybody should be able to repeat the command as it stands."""
    assert re.findall(r'[" =]/\w+/[^" ]*', path.read_text(encoding="utf-8")) == []


def test_the_path_check_sees_a_path():
    assert re.findall(r'[" =]/\w+/[^" ]*', '"command": "gradloc continual /data/news.yaml"')
