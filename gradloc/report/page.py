"""The report page of a run folder.

Comes in: ``recipe.yaml``, ``profile.json``, ``plan.json`` and ``results.json``. Goes out:
``report.html``, one file that opens without network. It computes no figure; it says which stage
is missing and how to make it.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
import yaml
from markupsafe import Markup

from gradloc.artifacts import write_text
from gradloc.errors import RunError
from gradloc.plan import LayerPlan
from gradloc.profile import GradientProfile, UnitInfo
from gradloc.report import formatting, pictures, style, tables, verdict
from gradloc.results import EvalResult

_COMMANDS = {
    "results.json": "gradloc evaluate CHECKPOINT --suite SUITE --baseline MODEL",
    "profile.json": "gradloc measure MODEL --probes PROBES --reference TEXT",
    "plan.json": "gradloc select PROFILE --policy POLICY",
    "recipe.yaml": "gradloc run RECIPE",
}


@dataclass(frozen=True)
class Run:
    """What a run folder holds.

    Args:
        name: Name of the recipe, or of the folder.
        results: The evaluation.
        profile: The gradient profile, if there is one.
        plan: The main arm's plan, if there is one.
        recipe_text: The resolved recipe as it was written.
        recipe: The same as plain values; empty where there is none.
    """

    name: str
    results: EvalResult
    profile: GradientProfile | None
    plan: LayerPlan | None
    recipe_text: str
    recipe: dict[str, Any]


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


def read_run(run_dir: str | Path) -> Run:
    """Read what the report needs from a run folder.

    Raises:
        RunError: There is no such folder, or it has no results.
    """
    folder = Path(run_dir)
    if not folder.is_dir():
        raise RunError(
            f"{folder}: no such run folder, so there is nothing to report. "
            f"Make it with '{_COMMANDS['recipe.yaml']}'."
        )
    if not (folder / "results.json").is_file():
        raise RunError(
            f"{folder / 'results.json'}: missing, and a report is made from it. "
            f"Make it with '{_COMMANDS['results.json']}', or the whole run with "
            f"'{_COMMANDS['recipe.yaml']}'."
        )
    results = EvalResult.load(folder / "results.json")
    if not results.arms:
        raise RunError(
            f"{folder / 'results.json'}: holds no arm, so there is nothing to report. "
            f"Make it again with '{_COMMANDS['results.json']}'."
        )
    profile, plan = folder / "profile.json", folder / "plan.json"
    recipe_path = folder / "recipe.yaml"
    recipe_text = recipe_path.read_text(encoding="utf-8") if recipe_path.is_file() else ""
    recipe = _parse(recipe_text, recipe_path)
    return Run(
        name=str(recipe.get("name") or folder.resolve().name),
        results=results,
        profile=GradientProfile.load(profile) if profile.is_file() else None,
        plan=LayerPlan.load(plan) if plan.is_file() else None,
        recipe_text=recipe_text,
        recipe=recipe,
    )


def render(run: Run) -> str:
    """Make the page."""
    results = run.results
    main = verdict.main_arm(results, list(run.recipe.get("arms") or ()))
    uptake = verdict.uptake_metric(results)
    styles = style.arm_styles(results, main)
    columns, rows = tables.headline(results, styles, main, uptake)
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
        uptake_label=formatting.metric_label(uptake or ""),
        pictures=drawn,
        plan_words=_plan_words(run),
        outside=_outside(run),
        missing=[
            (name, _COMMANDS[name])
            for name, value in (("profile.json", run.profile), ("plan.json", run.plan))
            if value is None
        ],
        examples=tables.examples(results, styles),
        specs={picture.key: picture.spec for picture in everything},
        tables=tables,
        number=formatting.number,
        percent=formatting.percent,
        css=Markup(_source("page.css")),
        colors={"light": Markup(style.css_variables(False)),
                "dark": Markup(style.css_variables(True)), "font": Markup(style.FONT)},
        script=Markup(_source("page.js")),
        library=Markup(_library()),
    )  # fmt: skip


def _pictures(run: Run) -> dict[str, list[pictures.Picture]]:
    results = run.results
    main = verdict.main_arm(results, list(run.recipe.get("arms") or ()))
    styles = style.arm_styles(results, main)
    uptake = verdict.uptake_metric(results)
    tradeoff = []
    if uptake is not None:
        metrics = ("general_text", "known_facts")
        tradeoff = pictures.tradeoff_pictures(results, styles, uptake, metrics)
    return {
        "tradeoff": tradeoff,
        "heat": pictures.heat_maps(run.profile, run.plan),
        "curves": pictures.curve_pictures(results, styles),
    }


def _key_figures(run: Run, main: str) -> list[dict[str, str]]:
    """The main arm in four numbers, those that exist."""
    arm = run.results.arms[main]
    found = []
    share = arm.versus_full.get("uptake_share")
    if share is not None and share.value is not None:
        found.append({"value": formatting.percent(share.value), "label": "of full training's uptake"})
    ratio = arm.versus_full.get(f"{verdict.RATIO}{verdict.FORGETTING}")
    if ratio is not None and ratio.value is not None:
        found.append({
            "value": f"{formatting.number(ratio.value)} ×",
            "label": "its forgetting of general text, at equal uptake",
        })  # fmt: skip
    if arm.trainable_fraction is not None:
        found.append({
            "value": formatting.percent(arm.trainable_fraction),
            "label": "of the parameters trained",
        })  # fmt: skip
    if arm.train_seconds is not None:
        found.append({"value": formatting.duration(arm.train_seconds), "label": "of training"})
    return found


def _column_groups(columns: tuple[tables.Column, ...]) -> list[tuple[str, int]]:
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


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RunError(
            f"{path}: is not YAML, though gradloc wrote it so ({error}). Restore it, or delete "
            "it to get a report without the recipe."
        ) from error
    return data if isinstance(data, dict) else {}


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("gradloc.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _source(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


@functools.cache
def _library() -> str:
    """The drawing library as one script without network addresses that it would load."""
    return vl_convert.javascript_bundle().replace("</script", "<\\/script")
