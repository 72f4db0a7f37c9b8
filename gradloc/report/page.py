"""One page for every kind of result: a file by itself that opens without a network.

A page is a list of sections, a section a list of blocks. Everything they hold is escaped.
"""

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import jinja2
import vl_convert
from markupsafe import Markup, escape

from gradloc.report import styles
from gradloc.report.charts import Picture
from gradloc.report.headline import BigFigure
from gradloc.report.styles import ArmStyle
from gradloc.utils.io import write_text


@dataclass(frozen=True)
class Text:
    """A paragraph; its tone is ``note``, ``empty``, ``warning``, or nothing for plain text."""

    text: str
    tone: str = ""
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Notes:
    """Short remarks as a list."""

    items: Sequence[str]
    kind: ClassVar[str] = "notes"


@dataclass(frozen=True)
class Figures:
    """A few large numbers."""

    items: Sequence[BigFigure]
    kind: ClassVar[str] = "figures"


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side; ``size`` is ``wide``, ``medium`` or ``narrow``."""

    items: Sequence[Picture]
    size: str = "wide"
    kind: ClassVar[str] = "pictures"


@dataclass(frozen=True)
class Terms:
    """Terms and their words."""

    pairs: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "terms"


@dataclass(frozen=True)
class Code:
    """Text as it was written in a file or typed."""

    text: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Details:
    """Blocks behind a click."""

    summary: str
    blocks: Sequence[Any]
    is_open: bool = False
    kind: ClassVar[str] = "details"


@dataclass(frozen=True)
class Answer:
    """What one model writes: its name and look, its text, and ``right``, ``old`` or ``wrong``."""

    arm: str
    text: str
    verdict: str
    style: ArmStyle | None = None

    @property
    def sign(self) -> str:
        """The verdict as a sign."""
        return {"right": "✓", "old": "↺", "wrong": "✗"}[self.verdict]


@dataclass(frozen=True)
class Example:
    """One prompt and every model's answer."""

    prompt: str
    note: str
    answers: Sequence[Answer]


@dataclass(frozen=True)
class Examples:
    """Prompts with answers, side by side."""

    items: Sequence[Example]
    kind: ClassVar[str] = "examples"


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading."""

    key: str
    title: str
    blocks: Sequence[Any]


@dataclass(frozen=True)
class Page:
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
    sections: Sequence[Section] = field(default_factory=tuple)
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
        sections=[section for section in page.sections if section.blocks],
        specs={picture.key: picture.spec for picture in pictures_of(page)},
        css=Markup(_source("page.css")),
        light=Markup(styles.css_variables(False)),
        dark=Markup(styles.css_variables(True)),
        font=Markup(styles.FONT),
        script=Markup(_source("page.js")),
        library=Markup(_library()),
    )


def save_pictures(page: Page, out_dir: str | Path, width: int = 520) -> list[Path]:
    """Write every picture of a page as a light SVG file, for a README or a paper.

    Args:
        page: The page.
        out_dir: Folder of the files.
        width: Width of the plots in pixels.

    Returns:
        Paths of the files.
    """
    paths = []
    for picture in pictures_of(page):
        text = json.dumps({**picture.spec, "width": width, "background": "white"})
        svg = vl_convert.vegalite_to_svg(json.loads(styles.resolve(text)))
        paths.append(write_text(Path(out_dir) / f"{picture.key}.svg", svg))
    return paths


def pictures_of(page: Page) -> list[Picture]:
    """Every picture of a page, in its order."""
    blocks = [*page.lead, *(block for section in page.sections for block in section.blocks)]
    return list(_pictures(blocks))


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
