"""The page of a localization analysis.

Comes in: a ``LocalizationAnalysis``. Goes out: one HTML file that opens without network, in the
look of the report. It computes no figure.
"""

from pathlib import Path

from gradloc.experiments.analysis import localization_pictures as pictures
from gradloc.experiments.analysis import localization_tables as tables
from gradloc.experiments.analysis.localization import LocalizationAnalysis
from gradloc.experiments.analysis.localization_figures import VARIANTS
from gradloc.report.frame import page_parts, page_template
from gradloc.utils.io import write_text


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
    return page_template("gradloc.experiments.analysis", "localization.html.j2").render(
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
        **page_parts(),
    )  # fmt: skip
