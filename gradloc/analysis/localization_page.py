"""The page of a localization analysis.

Comes in: a ``LocalizationAnalysis``. Goes out: one HTML file that opens without network, in the
look of the report. It computes no figure.
"""

from importlib.resources import files
from pathlib import Path

import jinja2
import vl_convert
from markupsafe import Markup

from gradloc.analysis import localization_pictures as pictures
from gradloc.analysis import localization_tables as tables
from gradloc.analysis.localization import LocalizationAnalysis
from gradloc.analysis.localization_figures import VARIANTS
from gradloc.artifacts import write_text
from gradloc.report import style


def write_localization_page(
    analysis: LocalizationAnalysis, path: str | Path, *, title: str
) -> Path:
    """Write the page.

    Args:
        analysis: What is shown.
        path: The file.
        title: Name of the model.

    Raises:
        GradlocError: The file cannot be written.
    """
    return write_text(path, render(analysis, title))


def render(analysis: LocalizationAnalysis, title: str) -> str:
    """Make the page."""
    drawn = {
        "level": pictures.contrast_pictures(analysis, centred=False),
        "shape": pictures.contrast_pictures(analysis, centred=True),
        "profiles": pictures.profile_pictures(analysis),
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gradloc.analysis"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("localization.html.j2").render(
        title=title,
        analysis=analysis,
        answers=tables.answer(analysis),
        pictures=drawn,
        variants={tables.SHORT[key]: text for key, text in VARIANTS.items()},
        tables={
            "facts": (tables.FACT_COLUMNS, tables.fact_rows(analysis)),
            "profiles": (tables.PROFILE_COLUMNS, tables.profile_rows(analysis)),
            "contrasts": (tables.CONTRAST_COLUMNS, tables.contrast_rows(analysis)),
            "correlations": (tables.CORRELATION_COLUMNS, tables.correlation_rows(analysis)),
        },
        specs={picture.key: picture.spec for group in drawn.values() for picture in group},
        css=Markup(_of_report("page.css")),
        colors={"light": Markup(style.css_variables(False)),
                "dark": Markup(style.css_variables(True)), "font": Markup(style.FONT)},
        script=Markup(_of_report("page.js")),
        library=Markup(vl_convert.javascript_bundle().replace("</script", "<\\/script")),
    )  # fmt: skip


def _of_report(name: str) -> str:
    """A file of the report's page, whose look this page shares."""
    return files("gradloc.report").joinpath("templates", name).read_text(encoding="utf-8")
