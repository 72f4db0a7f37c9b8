"""What every page of gradloc has in common: one look, one script, no network.

Comes in: the package that holds a template. Goes out: the environment to render it in, and the
parts that make the page a file by itself. It draws nothing and knows no result.
"""

import functools
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup, escape

from gradloc.report import style


def page_template(package: str, name: str) -> jinja2.Template:
    """A template of a package, with everything it shows escaped unless marked as safe.

    Args:
        package: Package with a folder ``templates``, such as ``gradloc.report``.
        name: File in that folder.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    return environment.get_template(name)


def page_parts() -> dict[str, Any]:
    """Look, colors, script and drawing library, as every template takes them."""
    return {
        "css": Markup(_source("page.css")),
        "colors": {
            "light": Markup(style.css_variables(False)),
            "dark": Markup(style.css_variables(True)),
            "font": Markup(style.FONT),
        },
        "script": Markup(_source("page.js")),
        "library": Markup(_library()),
    }


def breakable(text: str) -> Markup:
    """Let a long name break after its underscores."""
    return escape(text).replace("_", Markup("_<wbr>"))


def environment_rows(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Versions and machine, one a row."""
    rows = []
    for key, value in environment.items():
        if isinstance(value, dict):
            rows += [(str(name), str(own)) for name, own in value.items()]
        else:
            rows.append((str(key).replace("_", " "), str(value)))
    return rows


def _source(name: str) -> str:
    return files("gradloc.report").joinpath("templates", name).read_text(encoding="utf-8")


@functools.cache
def _library() -> str:
    """The drawing library as one script without network addresses that it would load."""
    return vl_convert.javascript_bundle().replace("</script", "<\\/script")
