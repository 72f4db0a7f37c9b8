"""The page of an acquisition analysis.

Comes in: an ``AcquisitionAnalysis``. Goes out: ``acquisition.html``, one file that opens without
network, in the look of the report. It computes no figure.
"""

import json
from pathlib import Path

import vl_convert

from gradloc.experiments.analysis import looks, pictures, tables
from gradloc.experiments.analysis.dynamics import AcquisitionAnalysis
from gradloc.report import formatting, style
from gradloc.report.frame import page_parts, page_template
from gradloc.utils.io import write_text


def write_page(analysis: AcquisitionAnalysis, path: str | Path, *, title: str) -> Path:
    """Write the page.

    Args:
        analysis: What is shown.
        path: The file.
        title: Name of the run.

    Raises:
        GradlocError: The file cannot be written.
    """
    return write_text(path, render(analysis, title))


def render(analysis: AcquisitionAnalysis, title: str) -> str:
    """Make the page."""
    drawn = {
        "learning": pictures.learning_pictures(analysis),
        "effectivity": pictures.effectivity_pictures(analysis),
        "retention": pictures.retention_pictures(analysis),
    }
    return page_template("gradloc.experiments.analysis", "acquisition.html.j2").render(
        title=title,
        analysis=analysis,
        counts=_counts(analysis),
        key_figures=_key_figures(analysis),
        has_control=any(group.control_curve for group in analysis.groups),
        scenarios=_legend(analysis),
        depths=_depths(analysis),
        pictures=drawn,
        group_columns=tables.GROUP_COLUMNS,
        group_rows=tables.group_rows(analysis),
        probe_columns=tables.PROBE_COLUMNS,
        probe_rows=tables.probe_rows(analysis),
        specs={picture.key: picture.spec for group in drawn.values() for picture in group},
        **page_parts(),
    )  # fmt: skip


def save_pictures(
    analysis: AcquisitionAnalysis, out_dir: str | Path, width: int = 520
) -> list[Path]:
    """Write every picture as a light SVG file, for a README or a paper.

    Args:
        analysis: What is shown.
        out_dir: Folder of the files.
        width: Width of the plots in pixels.

    Returns:
        Paths of the files.
    """
    paths = []
    for picture in (
        *pictures.learning_pictures(analysis),
        *pictures.effectivity_pictures(analysis),
        *pictures.retention_pictures(analysis),
    ):
        text = style.resolve(json.dumps({**picture.spec, "width": width, "background": "white"}))
        svg = vl_convert.vegalite_to_svg(json.loads(text))
        paths.append(write_text(Path(out_dir) / f"{picture.key}.svg", svg))
    return paths


def _counts(analysis: AcquisitionAnalysis) -> str:
    """How many facts there are in each scenario, in words."""
    n = {group.scenario: group.n_entities for group in analysis.groups}
    return ", ".join(f"{count} {scenario}" for scenario, count in n.items())


def _key_figures(analysis: AcquisitionAnalysis) -> list[dict[str, str]]:
    """Decay constants of the depth that comes first, one a scenario."""
    depth = analysis.groups[0].depth
    return [
        {
            "value": formatting.number(group.decay.decay_constant),
            "label": f"decay constant, {group.scenario} ({depth})",
            "interval": formatting.interval(group.decay_constant),
        }
        for group in analysis.groups
        if group.depth == depth
    ]


def _legend(analysis: AcquisitionAnalysis) -> list[dict[str, str]]:
    return [
        {
            "name": name,
            "color": color,
            "outline": style.SHAPES[looks.SHAPES.get(name, "square")],
        }
        for name, color in looks.colors(analysis).items()
    ]


def _depths(analysis: AcquisitionAnalysis) -> list[dict[str, str]]:
    names = dict.fromkeys(group.depth for group in analysis.groups)
    return [
        {"name": name, "dash": " ".join(map(str, looks.DASHES.get(name, (8, 3, 2, 3))))}
        for name in names
    ]
