"""The report page of a run folder, or of a results file.

Comes in: ``recipe.yaml``, ``profile.json``, ``plan.json`` and ``results.json``, or the last alone.
Goes out: one file that opens without network. It computes no figure; of a run folder it says
which stage is missing and how to make it.
"""

import json
from pathlib import Path

import vl_convert

from gradloc.report import (
    changes,
    curves,
    formatting,
    headline,
    key_figures,
    layer_maps,
    panels,
    series,
    series_curves,
    style,
    tables,
    tradeoff,
    verdict,
)
from gradloc.report.frame import page_parts, page_template
from gradloc.report.pictures import Picture
from gradloc.report.run_folder import COMMANDS, Run, read_run
from gradloc.utils.io import write_text


def write_report(run_dir: str | Path) -> Path:
    """Write the page of a run or of a results file.

    Args:
        run_dir: Folder with ``results.json``, whose ``recipe.yaml``, ``profile.json`` and
            ``plan.json`` are shown where they exist; or a file that ``gradloc evaluate`` wrote,
            of any checkpoints.

    Returns:
        Path of the page: ``report.html`` in the folder, or ``NAME.html`` beside ``NAME.json``.

    Raises:
        RunError: There is no such folder or file, or it has no results.
        GradlocError: A file cannot be read or is no results file, or the page cannot be written.
    """
    run = read_run(run_dir)
    return write_text(run.page, render(run))


def save_pictures(path: str | Path, out_dir: str | Path, width: int = 520) -> list[Path]:
    """Write every picture of a run as a light SVG file, for a README or a paper.

    Args:
        path: Folder with ``results.json``, or a results file.
        out_dir: Folder of the files.
        width: Width of the plots in pixels.

    Returns:
        Paths of the files.
    """
    paths = []
    groups = _pictures(read_run(path))
    for picture in [picture for group in groups.values() for picture in group]:
        text = style.resolve(json.dumps({**picture.spec, "width": width, "background": "white"}))
        svg = vl_convert.vegalite_to_svg(json.loads(text))
        paths.append(write_text(Path(out_dir) / f"{picture.key}.svg", svg))
    return paths


def render(run: Run) -> str:
    """Make the page."""
    results = run.results
    main = verdict.main_arm(results, list(run.recipe.get("arms") or ()))
    uptake = verdict.uptake_metric(results)
    styles = style.arm_styles(results, main)
    leading = series.leading_arms(results)
    runs = series.checkpoint_series(results)
    in_series = [name for names in runs.values() for name in names]
    columns, rows = headline.headline(results, styles, main, uptake, leading)
    drawn = _pictures(run)
    everything = [picture for group in drawn.values() for picture in group]
    return page_template("gradloc.report", "page.html.j2").render(
        run=run,
        results=results,
        main=main,
        main_arm=results.arms[main],
        verdict=verdict.judge(results, main),
        key_figures=key_figures.key_figures(run, main),
        styles=styles,
        columns=columns,
        column_groups=_column_groups(columns),
        rows=rows,
        checkpoint_rows=headline.headline(results, styles, main, uptake, in_series)[1],
        panels=panels.panel_views(results, styles, main),
        drawn_arms=[styles[name] for name in panels.drawn_arms(results, main)],
        n_leading=len(leading),
        series_looks={name: styles[names[-1]] for name, names in runs.items()},
        footnotes=headline.footnotes(results, columns),
        uptake_label=formatting.metric_label(uptake or ""),
        pictures=drawn,
        plan_words=key_figures.plan_words(run),
        outside=key_figures.outside_units(run),
        missing=[
            (name, COMMANDS[name])
            for name, value in (("profile.json", run.profile), ("plan.json", run.plan))
            if value is None and run.is_folder
        ],
        examples=tables.examples(results, styles),
        specs={picture.key: picture.spec for picture in everything},
        tables=tables,
        column_unit=headline.column_unit,
        number=formatting.number,
        percent=formatting.percent,
        **page_parts(),
    )  # fmt: skip


def _pictures(run: Run) -> dict[str, list[Picture]]:
    results = run.results
    main = verdict.main_arm(results, list(run.recipe.get("arms") or ()))
    styles = style.arm_styles(results, main)
    uptake = verdict.uptake_metric(results)
    points = []
    if uptake is not None:
        metrics = tuple(reversed(changes.main_losses(results)))
        points = tradeoff.tradeoff_pictures(results, styles, uptake, metrics)
    return {
        "tradeoff": points,
        "heat": layer_maps.heat_maps(run.profile, run.plan),
        "curves": curves.curve_pictures(results, styles),
        "series": series_curves.series_pictures(results, styles, uptake),
    }


def _column_groups(columns: tuple[headline.Column, ...]) -> list[tuple[str, int]]:
    names = list(dict.fromkeys(column.group for column in columns))
    return [(name, sum(column.group == name for column in columns)) for name in names]
