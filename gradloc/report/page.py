"""One page for every kind of result: a file by itself that opens without a network.

A page is a list of sections, a section a list of blocks. Everything they hold is escaped.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import vl_convert
from markupsafe import Markup, escape

from gradloc.report.charts import Picture
from gradloc.report.headline import BigFigure
from gradloc.report.styles import ArmStyle
from gradloc.utils.io import write_text


class Text(NamedTuple):
    """A paragraph; its tone is ``note``, ``empty``, ``warning``, or nothing for plain text."""

    text: str
    tone: str = ""


class Notes(NamedTuple):
    """Short remarks as a list."""

    items: Sequence[str]


class Figures(NamedTuple):
    """A few large numbers."""

    items: Sequence[BigFigure]


class Pictures(NamedTuple):
    """Pictures side by side; ``size`` is ``wide``, ``medium`` or ``narrow``."""

    items: Sequence[Picture]
    size: str = "wide"


class Terms(NamedTuple):
    """Terms and their words."""

    pairs: Sequence[tuple[str, str]]


class Code(NamedTuple):
    """Text as it was written in a file or typed."""

    text: str


class Details(NamedTuple):
    """Blocks behind a click."""

    summary: str
    blocks: Sequence[Any]
    is_open: bool = False


class Answer(NamedTuple):
    """What one model writes: its name and look, its text, and ``right``, ``old`` or ``wrong``."""

    arm: str
    text: str
    verdict: str
    style: ArmStyle | None = None


class Example(NamedTuple):
    """One prompt and every model's answer."""

    prompt: str
    note: str
    answers: Sequence[Answer]


class Examples(NamedTuple):
    """Prompts with answers, side by side."""

    items: Sequence[Example]


class Section(NamedTuple):
    """A part of the page with a heading."""

    key: str
    title: str
    blocks: Sequence[Any]


class Page(NamedTuple):
    """A page.

    Args:
        title: Its heading.
        command: The command that it is of, such as ``report``.
        lead: Blocks below the heading.
        sections: The rest; those without blocks are left out.
        source: What it was made from, in words.
    """

    title: str
    command: str
    lead: Sequence[Any] = ()
    sections: Sequence[Section] = ()
    source: str = ""


def write_page(page: Page, path: str | Path) -> Path:
    """Write a page.

    Raises:
        GradlocError: The file cannot be written.
    """
    return write_text(path, render(page))


def render(page: Page) -> str:
    """The page as HTML."""
    return _template().render(
        page=page,
        specs={picture.key: picture.spec for picture in pictures_of(page)},
        css=Markup(_source("page.css")),
        script=Markup(_source("page.js")),
        library=Markup(_library()),
    )


def picture_blocks(items: Iterable[Picture | None], size: str = "wide") -> list[Pictures]:
    """A block of the pictures that there are; none where there is no picture."""
    found = [picture for picture in items if picture is not None]
    return [Pictures(found, size)] if found else []


def pictures_of(page: Page) -> list[Picture]:
    """Every picture of a page, in its order."""
    return [*_pictures(page.lead), *_pictures(b for own in page.sections for b in own.blocks)]


def environment_rows(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Versions and machine as terms."""
    rows = []
    for key, value in environment.items():
        if isinstance(value, dict):
            rows += [(str(name), str(own)) for name, own in value.items()]
        else:
            rows.append((str(key).replace("_", " "), str(value)))
    return rows


def _pictures(blocks: Iterable[Any]) -> Iterator[Picture]:
    for block in blocks:
        if isinstance(block, Pictures):
            yield from block.items
        elif isinstance(block, Details):
            yield from _pictures(block.blocks)


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gradloc.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    # A long name may break after its underscores.
    environment.filters["breakable"] = lambda text: escape(text).replace("_", Markup("_<wbr>"))
    return environment.get_template("page.html.j2")


def _source(name: str) -> str:
    return files("gradloc.report").joinpath("templates", name).read_text(encoding="utf-8")


@functools.cache
def _library() -> str:
    """The drawing library as one script without network addresses that it would load."""
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("</script", "<\\/script")
