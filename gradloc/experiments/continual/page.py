"""The page of continual training."""

from pathlib import Path

from markupsafe import Markup

from gradloc.experiments.continual import curves, looks, matrices, table
from gradloc.experiments.continual.continual_figures import ContinualFigures, continual_figures
from gradloc.experiments.continual.continual_record import ContinualRecord
from gradloc.report.formatting import number
from gradloc.report.frame import environment_rows, page_parts, page_template
from gradloc.utils.io import write_text

PAGE_FILE = "continual.html"


def write_continual_page(
    record: ContinualRecord, path: str | Path, *, figures: ContinualFigures | None = None
) -> Path:
    """Write the page.

    Args:
        record: The record; it may be unfinished.
        path: The file.
        figures: The figures, where they have been found from this record already.

    Returns:
        Path of the page.

    Raises:
        GradlocError: The record has no finished stage, or the page cannot be written.
    """
    return write_text(path, render(record, figures or continual_figures(record)))


def render(record: ContinualRecord, figures: ContinualFigures) -> str:
    """Make the page."""
    maps, lines = matrices.heat_maps(figures), curves.curve_pictures(figures)
    return page_template("gradloc.experiments.continual", "continual.html.j2").render(
        record=record,
        figures=figures,
        n_items=_n_items(figures),
        looks=looks.arm_looks(figures),
        words=table.WORDS,
        summary_rows=table.summary_rows(figures),
        training_columns=table.TRAINING_COLUMNS,
        training_rows=table.training_rows(figures),
        maps=maps,
        curves=lines,
        top=number(matrices.largest_change(figures), 2),
        shades=matrices.SHADES,
        heat_colors=Markup(_heat_colors()),
        environment_rows=environment_rows(record.environment),
        specs={picture.key: picture.spec for picture in (*maps, *lines)},
        **page_parts(),
    )  # fmt: skip


def _n_items(figures: ContinualFigures) -> dict[str, int]:
    first = next(iter(figures.arms.values()))
    known, texts = (lost[0].n if lost else 0 for lost in (first.known_facts, first.general_text))
    return {"facts": sum(base.n for base in figures.base), "known": known, "texts": texts}


def _heat_colors() -> str:
    """CSS variables of the shades: from the paper to blue for gains and to orange for losses.

    The strongest keep a third of the paper, so that numbers stay readable on them.
    """
    return "".join(
        f"--heat-{shade}:color-mix(in srgb, var(--arm-{0 if shade > 0 else 1}) "
        f"{round(66 * abs(shade) / matrices.N_SHADES)}%, var(--panel));"
        for shade in matrices.SHADES
    )
