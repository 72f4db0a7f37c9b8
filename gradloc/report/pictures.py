"""The pictures of the report, each with its text equivalent.

Comes in: results, profile and plan. Goes out: ``Picture`` values, a Vega-Lite specification with
the table that says the same. It renders nothing: the browser does, or ``save_pictures``.
"""

import math
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from gradloc.errors import GradlocError
from gradloc.plan import LayerPlan
from gradloc.profile import GradientProfile, UnitInfo
from gradloc.report.formatting import (
    by_unit,
    interval,
    metric_label,
    number,
    unit_name,
)
from gradloc.report.labels import place_labels
from gradloc.report.style import CONFIG, LEVELS, N_LEVELS, SHAPES, ArmStyle
from gradloc.results import EvalResult

# A longer curve is thinned: more points than pixels only make the page heavy.
MAX_CURVE_POINTS = 400
CURVES = {
    "loss": "Training loss",
    "new_nll": "New facts",
    "invariant_nll": "Known facts",
}
KIND_COLUMNS = {"attention": "Attention", "mlp": "MLP", "block": "Block"}


@dataclass(frozen=True)
class Picture:
    """One drawing and the words and figures that replace it.

    Args:
        key: Unique name within the page.
        title: Heading.
        description: What the picture shows, for readers who cannot see it.
        spec: Vega-Lite specification.
        columns: Heads of the table that says the same.
        rows: Its rows, as text.
        legend: What the template needs to draw a legend, if anything.
    """

    key: str
    title: str
    description: str
    spec: dict[str, Any]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    legend: dict[str, Any] | None = None


def tradeoff_pictures(
    results: EvalResult, styles: dict[str, ArmStyle], uptake: str, metrics: tuple[str, ...]
) -> list[Picture]:
    """Uptake against forgetting, one picture for each forgetting metric."""
    pictures = [_tradeoff(results, styles, uptake, metric) for metric in metrics]
    return [picture for picture in pictures if picture is not None]


def heat_maps(profile: GradientProfile | None, plan: LayerPlan | None) -> list[Picture]:
    """The plan's score and the relative gradient norm over blocks and sublayers."""
    units = (plan.units if plan else ()) or (profile.units if profile else ())
    if not any(unit.in_stack for unit in units):
        return []
    pictures = []
    if plan is not None and plan.scores:
        title = plan.score_name or "score"
        pictures.append(_heat_map("score", title[0].upper() + title[1:], units, plan.scores, plan))
    elif plan is not None:
        pictures.append(_heat_map("score", "Share of the learning rate", units, plan.scale, plan))
    if profile is not None:
        try:
            with np.errstate(divide="ignore", invalid="ignore"):
                title, values = "Relative gradient norm", profile.rgn
        except GradlocError:  # measured without reference text
            title, values = "Gradient norm on probes", profile.probe_norm
        values = dict(zip(profile.names, map(float, values), strict=True))
        if title.lower() != (plan.score_name.lower() if plan else ""):
            pictures.append(_heat_map("rgn", title, units, values, plan))
    return pictures


def curve_pictures(results: EvalResult, styles: dict[str, ArmStyle]) -> list[Picture]:
    """Loss and probe likelihoods over training steps."""
    pictures = [_curve(results, styles, column, title) for column, title in CURVES.items()]
    return [picture for picture in pictures if picture is not None]


def _tradeoff(
    results: EvalResult, styles: dict[str, ArmStyle], uptake: str, metric: str
) -> Picture | None:
    rows, table = [], []
    for name, arm in results.arms.items():
        x, y = arm.forgetting.get(metric), arm.uptake.get(uptake)
        table.append(
            (name, *(_cell(y)), *(_cell(x)), "full training" if styles[name].is_reference else "")
        )
        if x is None or y is None or x.value is None or y.value is None:
            continue
        factor = 100 if x.unit == "fraction" else 1
        rows.append({
            "arm": name, "x": factor * x.value, "y": y.value,
            "x_low": factor * _or(x.low, x.value), "x_high": factor * _or(x.high, x.value),
            "y_low": _or(y.low, y.value), "y_high": _or(y.high, y.value),
            "forgetting": f"{by_unit(x.value, x.unit)} {interval(x, brackets=True)}",
            "uptake": f"{by_unit(y.value, y.unit)} {interval(y, brackets=True)}",
            "reference": styles[name].is_reference,
        })  # fmt: skip
    if not rows:
        return None
    y_unit = next(arm.uptake[uptake].unit for arm in results.arms.values() if uptake in arm.uptake)
    x_unit = next(
        arm.forgetting[metric].unit for arm in results.arms.values() if metric in arm.forgetting
    )
    x_title = f"Forgetting: {metric_label(metric)}, {unit_name(x_unit, difference=True)} lost"
    y_title = f"Uptake: {metric_label(uptake)}, {unit_name(y_unit, difference=True)} gained"
    label = metric_label(metric)
    described = "; ".join(
        f"{row['arm']}: uptake {row['uptake']}, forgetting {row['forgetting']}" for row in rows
    )
    return Picture(
        key=f"tradeoff-{metric}",
        title=label[0].upper() + label[1:],
        description=(
            f"Scatter plot of uptake against forgetting on {label}, one point for each arm; "
            f"up and to the left is better. {described}."
        ),
        spec=_spec(_tradeoff_chart(rows, styles, x_title, y_title)),
        columns=(
            "Arm", f"Uptake, {unit_name(y_unit, difference=True)}", "95 % interval",
            f"Forgetting, {unit_name(x_unit, difference=True)}", "95 % interval", "Note",
        ),
        rows=tuple(table),
    )  # fmt: skip


def _tradeoff_chart(
    rows: list[dict], styles: dict[str, ArmStyle], x_title: str, y_title: str
) -> alt.LayerChart:
    # The origin is the base model: by definition it has learned and lost nothing.
    line = [{"x": 0.0, "y": 0.0}]
    line += sorted((row for row in rows if row["reference"]), key=lambda row: row["y"])
    place_labels(rows, line)
    scales = {
        axis: alt.Scale(
            domain=_padded([row[f"{axis}_{end}"] for row in rows for end in ("low", "high")]),
            nice=False, zero=False,
        )
        for axis in "xy"
    }  # fmt: skip
    x = alt.X("x:Q", title=x_title, scale=scales["x"], axis=alt.Axis(tickCount=5))
    y = alt.Y("y:Q", title=y_title, scale=scales["y"], axis=alt.Axis(tickCount=6))
    color, shape = _color(rows, styles), _shape(rows, styles)
    data = alt.Data(values=rows)
    base = alt.Chart(data)
    bars = {"opacity": 0.55, "strokeWidth": 1.5}
    text = base.mark_text(
        fontSize=12, fontWeight=500, baseline="middle",
        align={"expr": "datum.align"}, dx={"expr": "datum.dx"}, dy={"expr": "datum.dy"},
    ).encode(x, y, alt.Text("arm:N"))  # fmt: skip
    layers = [
        alt.Chart(alt.Data(values=[{"zero": 0}]))
        .mark_rule(color="var(--muted)", strokeWidth=1, opacity=0.6)
        .encode(alt.X("zero:Q", scale=scales["x"])),
        alt.Chart(alt.Data(values=[{"zero": 0}]))
        .mark_rule(color="var(--muted)", strokeWidth=1, opacity=0.6)
        .encode(alt.Y("zero:Q", scale=scales["y"])),
        alt.Chart(alt.Data(values=[{"text": "↖ more learned, less lost"}]))
        .mark_text(align="left", baseline="top", dx=8, dy=-4, color="var(--good)", fontSize=12)
        .encode(x=alt.value(0), y=alt.value(0), text="text:N"),
    ]
    if len(line) > 1:
        layers.append(
            alt.Chart(alt.Data(values=[{"x": p["x"], "y": p["y"]} for p in line]))
            .mark_line(color="var(--reference)", strokeDash=[5, 4], strokeWidth=1.5)
            .encode(x, y, alt.Order("y:Q"))
        )
    layers += [
        alt.Chart(alt.Data(values=[{"x": 0, "y": 0, "name": "base model"}]))
        .mark_point(shape="circle", size=60, filled=True, color="var(--ink)", opacity=1)
        .encode(x, y, tooltip=[alt.Tooltip("name:N", title="arm")]),
        base.mark_rule(**bars).encode(x, alt.Y("y_low:Q"), alt.Y2("y_high:Q"), color=color),
        base.mark_rule(**bars).encode(alt.X("x_low:Q"), y, alt.X2("x_high:Q"), color=color),
        base.mark_point(
            filled=True, size=130, opacity=1, stroke="var(--paper)", strokeWidth=1.5
        ).encode(
            x, y, color=color, shape=shape,
            tooltip=[alt.Tooltip("arm:N"), alt.Tooltip("uptake:N"), alt.Tooltip("forgetting:N")],
        ),
        # A halo in the color of the paper keeps names readable over lines.
        text.mark_text(
            fontSize=12, fontWeight=500, baseline="middle",
            align={"expr": "datum.align"}, dx={"expr": "datum.dx"}, dy={"expr": "datum.dy"},
            stroke="var(--paper)", strokeWidth=4, strokeJoin="round",
        ),
        text.encode(color=alt.value("var(--ink)")),
    ]  # fmt: skip
    return alt.layer(*layers).properties(height=340)


def _heat_map(
    key: str,
    title: str,
    units: tuple[UnitInfo, ...],
    values: dict[str, float | None],
    plan: LayerPlan | None,
) -> Picture:
    stack = [unit for unit in units if unit.in_stack]
    scale = plan.scale if plan else {}
    levels, ends, is_log = _levels({unit.name: values.get(unit.name) for unit in stack})
    bounds = plan.reliability if plan and key == "score" else {}
    rows, table = [], []
    for unit in stack:
        value, trained = values.get(unit.name), scale.get(unit.name, 0)
        low, high = ((bounds.get(end) or {}).get(unit.name) for end in ("low", "high"))
        shown = number(value)
        span = f"{number(low)} to {number(high)}" if low is not None and high is not None else ""
        state = "trained" if trained else "frozen" if plan else ""
        if trained and trained != 1:
            state = f"trained at × {number(trained)}"
        rows.append({
            "unit": unit.name, "block": unit.block, "kind": KIND_COLUMNS.get(unit.kind, unit.kind),
            "level": levels[unit.name], "value": f"{shown} [{span}]" if span else shown,
            "state": state, "trained": bool(trained),
        })  # fmt: skip
        table.append((unit.name, shown, span, f"{unit.n_parameters:,}", state))
    best = sorted(
        (u for u in stack if _finite(values.get(u.name))), key=lambda u: -values[u.name]
    )[:5]
    described = ", ".join(f"{unit.name} {number(values[unit.name])}" for unit in best)
    trained_names = ", ".join(row["unit"] for row in rows if row["trained"]) or "none"
    return Picture(
        key=f"heat-{key}",
        title=title,
        description=(
            f"Heat map of {title.lower()} over {len({u.block for u in stack})} blocks. Highest: "
            f"{described}." + (f" Trained units: {trained_names}." if plan else "")
        ),
        spec=_spec(_heat_chart(rows, bool(plan))),
        columns=("Unit", title, "95 % interval", "Parameters", "Plan"),
        rows=tuple(table),
        legend={
            "low": number(ends[0]), "high": number(ends[1]), "log": is_log, "colors": LEVELS,
            "missing": any(row["level"] < 0 for row in rows),
        },
    )  # fmt: skip


def _heat_chart(rows: list[dict], has_plan: bool) -> alt.LayerChart:
    blocks = sorted({row["block"] for row in rows})
    every = 1 if len(blocks) <= 12 else 5 if len(blocks) <= 60 else 10
    step = 15 if len(blocks) <= 40 else 10
    base = alt.Chart(alt.Data(values=rows))
    x = alt.X(
        "kind:N", title=None, sort=list(KIND_COLUMNS.values()),
        scale=alt.Scale(paddingInner=0.04, paddingOuter=0),
        axis=alt.Axis(orient="top", labelAngle=0, domain=False, labelPadding=8),
    )  # fmt: skip
    y = alt.Y(
        "block:O", title="Block", scale=alt.Scale(paddingInner=0.14, paddingOuter=0.1),
        axis=alt.Axis(values=[b for b in blocks if b % every == 0], domain=False),
    )  # fmt: skip
    scale = alt.Scale(domain=[-1, *range(N_LEVELS)], range=["var(--missing)", *LEVELS])
    tips = [alt.Tooltip("unit:N"), alt.Tooltip("value:N")]
    tips += [alt.Tooltip("state:N", title="plan")] if has_plan else []
    cells = base.mark_rect(cornerRadius=2).encode(
        x, y, alt.Color("level:O", scale=scale, legend=None), tooltip=tips
    )
    # Outline and dot together: readable on the palest and on the darkest cell.
    chosen = base.transform_filter("datum.trained")
    outline = chosen.mark_rect(
        cornerRadius=2, fillOpacity=0, stroke="var(--ink)", strokeWidth=1.5
    ).encode(x, y)
    dots = chosen.mark_point(
        shape="circle", filled=True, size=34, opacity=1,
        fill="var(--dot)", stroke="var(--dot-edge)", strokeWidth=1.5,
    ).encode(x, y, tooltip=tips)  # fmt: skip
    return alt.layer(cells, outline, dots).properties(height=len(blocks) * step)


def _curve(
    results: EvalResult, styles: dict[str, ArmStyle], column: str, title: str
) -> Picture | None:
    rows = []
    for name, arm in results.arms.items():
        points = [
            (step, value)
            for step, value in zip(
                arm.curve.get("step", ()), arm.curve.get(column, ()), strict=False
            )
            if _finite(value)
        ]
        stride = max(1, math.ceil(len(points) / MAX_CURVE_POINTS))
        kept = points[::stride]
        if points and kept[-1] != points[-1]:
            kept.append(points[-1])
        rows += [{"arm": name, "step": step, "value": value} for step, value in kept]
    if not rows:
        return None
    by_arm = {name: [r for r in rows if r["arm"] == name] for name in results.arms}
    by_arm = {name: points for name, points in by_arm.items() if points}
    unit = "nats per token"
    described = "; ".join(
        f"{name} from {number(points[0]['value'])} to {number(points[-1]['value'])}"
        for name, points in by_arm.items()
    )
    steps = sorted({row["step"] for row in rows})
    table = tuple(
        (f"{step:,}", *(_at(points, step) for points in by_arm.values())) for step in steps
    )
    return Picture(
        key=f"curve-{column.replace('_', '-')}",
        title=title,
        description=f"{title} over training steps, {unit}, one line for each arm: {described}.",
        spec=_spec(_curve_chart(rows, by_arm, styles, unit)),
        columns=("Step", *by_arm),
        rows=table,
    )


def _curve_chart(
    rows: list[dict], by_arm: dict[str, list], styles: dict[str, ArmStyle], y_title: str
) -> alt.LayerChart:
    base = alt.Chart(alt.Data(values=rows))
    color = _color(rows, styles)
    names = list(by_arm)
    dash = alt.StrokeDash(
        "arm:N", legend=None,
        scale=alt.Scale(domain=names, range=[list(styles[name].dash) for name in names]),
    )  # fmt: skip
    x = alt.X("step:Q", title="Step", axis=alt.Axis(tickCount=5, grid=False, format=",d"))
    y = alt.Y("value:Q", title=y_title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5))
    tips = [
        alt.Tooltip("arm:N"),
        alt.Tooltip("step:Q", format=",d"),
        alt.Tooltip("value:Q", title="nats per token", format=".3f"),
    ]
    layers = [base.mark_line(strokeWidth=2).encode(x, y, color=color, strokeDash=dash)]
    # Signs sit on every point of a sparse curve, and only on the last of a dense one.
    sparse = max(len(points) for points in by_arm.values()) <= 16
    marked = rows if sparse else [points[-1] for points in by_arm.values()]
    layers.append(
        alt.Chart(alt.Data(values=marked))
        .mark_point(filled=True, size=50, opacity=1, stroke="var(--paper)", strokeWidth=1)
        .encode(x, y, color=color, shape=_shape(rows, styles), tooltip=tips)
    )
    return alt.layer(*layers).properties(height=220)


def _spec(chart: alt.LayerChart) -> dict[str, Any]:
    """A specification that fills its box; without ``$schema``, which names a web address."""
    spec = chart.properties(
        width="container", autosize=alt.AutoSizeParams(type="fit-x", contains="padding")
    ).to_dict()
    spec.pop("$schema", None)
    spec["config"] = CONFIG
    return spec


def _color(rows: list[dict], styles: dict[str, ArmStyle]) -> alt.Color:
    names = list(dict.fromkeys(row["arm"] for row in rows))
    scale = alt.Scale(domain=names, range=[styles[name].color for name in names])
    return alt.Color("arm:N", scale=scale, legend=None)


def _shape(rows: list[dict], styles: dict[str, ArmStyle]) -> alt.Shape:
    names = list(dict.fromkeys(row["arm"] for row in rows))
    assert all(styles[name].shape in SHAPES for name in names)
    scale = alt.Scale(domain=names, range=[styles[name].shape for name in names])
    return alt.Shape("arm:N", scale=scale, legend=None)


def _levels(
    values: dict[str, float | None],
) -> tuple[dict[str, int], tuple[float | None, float | None], bool]:
    """Sort values into color levels; logarithmic where they span more than two decades.

    Returns:
        Level of each (-1 for a missing value), the lowest and highest value, and whether the
        levels are logarithmic.
    """
    found = [value for value in values.values() if _finite(value)]
    if not found:
        return dict.fromkeys(values, -1), (None, None), False
    low, high = min(found), max(found)
    is_log = low > 0 and high / low > 100
    to = math.log10 if is_log else float
    width = to(high) - to(low)
    levels = {}
    for name, value in values.items():
        if not _finite(value):
            levels[name] = -1
        elif width == 0:
            levels[name] = N_LEVELS // 2
        else:
            share = (to(value) - to(low)) / width
            levels[name] = min(N_LEVELS - 1, int(share * N_LEVELS))
    return levels, (low, high), is_log


def _padded(values: list[float]) -> list[float]:
    """A domain around the values and zero, with room for the marks."""
    low, high = min([0.0, *values]), max([0.0, *values])
    room = (high - low or 1.0) * 0.08
    return [low - room, high + room]


def _cell(figure: Any) -> tuple[str, str]:
    if figure is None:
        return number(None), ""
    return by_unit(figure.value, figure.unit), interval(figure)


def _at(points: list[dict], step: int) -> str:
    return next((number(p["value"]) for p in points if p["step"] == step), "")


def _or(value: float | None, fallback: float) -> float:
    return fallback if value is None else value


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)
