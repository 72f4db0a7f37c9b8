"""The report page of a run folder.

Comes in: ``recipe.yaml``, ``profile.json``, ``plan.json`` and ``results.json``. Goes out:
``report.html``, one file that opens without network. It computes no figure; it says which stage
is missing and how to make it.
"""

import functools
import json
from dataclasses import replace
from pathlib import Path

import jinja2
import vl_convert
from markupsafe import Markup, escape

from gradloc.artifacts import write_text
from gradloc.profile import UnitInfo
from gradloc.report import (
    curves,
    formatting,
    headline,
    layer_maps,
    style,
    tables,
    tradeoff,
    verdict,
)
from gradloc.report.pictures import Picture
from gradloc.report.run_folder import COMMANDS, Run, read_run
from gradloc.results import Figure


def write_report(run_dir: str | Path) -> Path:
    """Write ``report.html`` of a run.

    Args:
        run_dir: Folder with ``results.json``; ``recipe.yaml``, ``profile.json`` and
            ``plan.json`` are shown where they exist.

    Returns:
        Path of the page.

    Raises:
        RunError: There is no such folder, or it has no results.
        GradlocError: A file cannot be read, or the page cannot be written.
    """
    run = read_run(run_dir)
    return write_text(Path(run_dir) / "report.html", render(run))


def save_pictures(run_dir: str | Path, out_dir: str | Path, width: int = 520) -> list[Path]:
    """Write every picture of a run as a light SVG file, for a README or a paper.

    Args:
        run_dir: Folder with ``results.json``.
        out_dir: Folder of the files.
        width: Width of the plots in pixels.

    Returns:
        Paths of the files.
    """
    paths = []
    groups = _pictures(read_run(run_dir))
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
    columns, rows = headline.headline(results, styles, main, uptake)
    drawn = _pictures(run)
    everything = [picture for group in drawn.values() for picture in group]
    return _environment().get_template("page.html.j2").render(
        run=run,
        results=results,
        main=main,
        main_arm=results.arms[main],
        verdict=verdict.judge(results, main),
        key_figures=_key_figures(run, main),
        styles=styles,
        columns=columns,
        column_groups=_column_groups(columns),
        rows=rows,
        footnotes=headline.footnotes(results, columns),
        uptake_label=formatting.metric_label(uptake or ""),
        pictures=drawn,
        plan_words=_plan_words(run),
        outside=_outside(run),
        missing=[
            (name, COMMANDS[name])
            for name, value in (("profile.json", run.profile), ("plan.json", run.plan))
            if value is None
        ],
        examples=tables.examples(results, styles),
        specs={picture.key: picture.spec for picture in everything},
        tables=tables,
        column_unit=headline.column_unit,
        number=formatting.number,
        percent=formatting.percent,
        css=Markup(_source("page.css")),
        colors={"light": Markup(style.css_variables(False)),
                "dark": Markup(style.css_variables(True)), "font": Markup(style.FONT)},
        script=Markup(_source("page.js")),
        library=Markup(_library()),
    )  # fmt: skip


def _pictures(run: Run) -> dict[str, list[Picture]]:
    results = run.results
    main = verdict.main_arm(results, list(run.recipe.get("arms") or ()))
    styles = style.arm_styles(results, main)
    uptake = verdict.uptake_metric(results)
    points = []
    if uptake is not None:
        metrics = ("general_text", "known_facts")
        points = tradeoff.tradeoff_pictures(results, styles, uptake, metrics)
    return {
        "tradeoff": points,
        "heat": layer_maps.heat_maps(run.profile, run.plan),
        "curves": curves.curve_pictures(results, styles),
    }


def _key_figures(run: Run, main: str) -> list[dict[str, str]]:
    """The main arm in four numbers, those that exist."""
    arm = run.results.arms[main]
    found = []
    share = arm.versus_full.get("uptake_share")
    if share is not None and share.value is not None:
        found.append({
            "value": formatting.percent(share.value),
            "label": "of full training’s uptake",
            "interval": _percent_interval(share),
        })  # fmt: skip
    ratio = arm.versus_full.get(f"{verdict.RATIO}{verdict.FORGETTING}")
    if ratio is not None and ratio.value is not None:
        found.append({
            "value": f"{formatting.number(ratio.value)} ×",
            "label": "full training’s forgetting of general text, at equal uptake",
            "interval": formatting.interval(ratio),
        })  # fmt: skip
    if arm.trainable_fraction is not None:
        found.append({
            "value": formatting.percent(arm.trainable_fraction),
            "label": "of the parameters trained",
        })  # fmt: skip
    if arm.train_seconds is not None:
        found.append({"value": formatting.duration(arm.train_seconds), "label": "of training"})
    return found


def _percent_interval(share: Figure) -> str:
    text = formatting.interval(replace(share, unit="fraction"))
    return f"{text}{formatting.THIN}%" if text else ""


def _column_groups(columns: tuple[headline.Column, ...]) -> list[tuple[str, int]]:
    names = list(dict.fromkeys(column.group for column in columns))
    return [(name, sum(column.group == name for column in columns)) for name in names]


def _units(run: Run) -> tuple[UnitInfo, ...]:
    return (run.plan.units if run.plan else ()) or (run.profile.units if run.profile else ())


def _plan_words(run: Run) -> list[tuple[str, str]]:
    """What was chosen, as pairs of a term and its words."""
    plan, units = run.plan, _units(run)
    if plan is None:
        return []
    words = [("Policy", plan.policy or "a plan written by hand")]
    words += [(key, str(value)) for key, value in plan.options.items()]
    trained = [unit for unit in units if plan.scale.get(unit.name, 0) > 0]
    for kind, label in (("mlp", "MLP"), ("attention", "Attention"), ("block", "Blocks")):
        if any(unit.kind == kind for unit in units):
            blocks = [unit.block for unit in trained if unit.kind == kind]
            words.append((f"{label} trained", formatting.ranges(blocks) or "none"))
    if not units:
        words.append(("Units trained", ", ".join(plan.trained) or "none"))
    else:
        n_stack = sum(unit.in_stack for unit in units)
        words.append(("Units", f"{sum(u.in_stack for u in trained)} of {n_stack} in the blocks"))
        words.append(("Parameters", f"{formatting.percent(plan.trainable_fraction)} trained"))
    for key, label in (("time_ratio", "Predicted time"), ("memory_ratio", "Predicted memory")):
        if isinstance(plan.predicted.get(key), (int, float)):
            words.append((label, f"{formatting.number(plan.predicted[key])} × full training"))
    return words


def _outside(run: Run) -> list[tuple[str, str, str]]:
    """Units outside the blocks: name, size, and what the plan does with them."""
    scale = run.plan.scale if run.plan else {}
    return [
        (unit.name, f"{unit.n_parameters:,}", "trained" if scale.get(unit.name) else "frozen")
        for unit in _units(run)
        if not unit.in_stack
    ]


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gradloc.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    return environment


def _breakable(text: str) -> Markup:
    """Let a long name break after its underscores."""
    return escape(text).replace("_", Markup("_<wbr>"))


def _source(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


@functools.cache
def _library() -> str:
    """The drawing library as one script without network addresses that it would load."""
    return vl_convert.javascript_bundle().replace("</script", "<\\/script")
