"""The picture of uptake against forgetting.

Comes in: an ``EvalResult``. Goes out: one ``Picture`` for each forgetting metric, with the line of
full training through the base model.
"""

from typing import Any

import altair as alt

from gradloc.evaluation.results import EvalResult, MetricValue
from gradloc.report.formatting import by_unit, interval, metric_label, number, unit_name
from gradloc.report.labels import place_labels
from gradloc.report.pictures import Picture, arm_color, arm_shape, fill_spec
from gradloc.report.series import checkpoint_series, earlier_checkpoints
from gradloc.report.style import ArmStyle


def tradeoff_pictures(
    results: EvalResult, styles: dict[str, ArmStyle], uptake: str, metrics: tuple[str, ...]
) -> list[Picture]:
    """Uptake against forgetting, one picture for each forgetting metric."""
    pictures = [_tradeoff(results, styles, uptake, metric) for metric in metrics]
    return [picture for picture in pictures if picture is not None]


def _tradeoff(
    results: EvalResult, styles: dict[str, ArmStyle], uptake: str, metric: str
) -> Picture | None:
    rows, table = [], []
    earlier = earlier_checkpoints(results)
    in_series = {name for names in checkpoint_series(results).values() for name in names}
    for name, arm in results.arms.items():
        x, y = arm.forgetting.get(metric), arm.uptake.get(uptake)
        table.append(
            (name, *(_cell(y)), *(_cell(x)), "full training" if styles[name].is_reference else "")
        )
        if x is None or y is None or x.value is None or y.value is None:
            continue
        rows.append({
            "arm": name, "label": "" if name in earlier else name,
            **_ends("x", x), **_ends("y", y),
            "forgetting": f"{by_unit(x.value, x.unit)} {interval(x, brackets=True)}",
            "uptake": f"{by_unit(y.value, y.unit)} {interval(y, brackets=True)}",
            "reference": styles[name].is_reference,
            "run": arm.series if name in in_series else "", "step": arm.step or 0,
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
        spec=fill_spec(_tradeoff_chart(rows, styles, x_title, y_title)),
        columns=(
            "Arm", f"Uptake, {unit_name(y_unit, difference=True)}", "95 % interval",
            f"Forgetting, {unit_name(x_unit, difference=True)}", "95 % interval", "Note",
        ),
        rows=tuple(table),
        direction="↖ better: more learned, less lost",
    )  # fmt: skip


def _tradeoff_chart(
    rows: list[dict], styles: dict[str, ArmStyle], x_title: str, y_title: str
) -> alt.LayerChart:
    # The origin is the base model: by definition it has learned and lost nothing.
    line = [{"x": 0.0, "y": 0.0}]
    line += sorted(
        (row for row in rows if row["reference"] and row["label"]), key=lambda row: row["y"]
    )
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
    color, shape = arm_color(rows, styles), arm_shape(rows, styles)
    base = alt.Chart(alt.Data(values=rows))
    # Earlier checkpoints only show the way: their intervals would hide it.
    named = alt.Chart(alt.Data(values=[row for row in rows if row["label"]]))
    bars = {"opacity": 0.55, "strokeWidth": 1.5}
    text = named.mark_text(
        fontSize=12, fontWeight=500, baseline="middle",
        align={"expr": "datum.align"}, dx={"expr": "datum.dx"}, dy={"expr": "datum.dy"},
    ).encode(x, y, alt.Text("label:N"))  # fmt: skip
    layers = [
        alt.Chart(alt.Data(values=[{"zero": 0}]))
        .mark_rule(color="var(--muted)", strokeWidth=1, opacity=0.6)
        .encode(alt.X("zero:Q", scale=scales["x"])),
        alt.Chart(alt.Data(values=[{"zero": 0}]))
        .mark_rule(color="var(--muted)", strokeWidth=1, opacity=0.6)
        .encode(alt.Y("zero:Q", scale=scales["y"])),
    ]
    if len(line) > 1:
        layers.append(
            alt.Chart(alt.Data(values=[{"x": p["x"], "y": p["y"]} for p in line]))
            .mark_line(color="var(--reference)", strokeDash=[5, 4], strokeWidth=1.5)
            .encode(x, y, alt.Order("y:Q"))
        )
    if paths := [row for row in rows if row["run"]]:
        # The way of a training run: its checkpoints in the order of their steps.
        layers.append(
            alt.Chart(alt.Data(values=paths))
            .mark_line(strokeWidth=1.5, opacity=0.7)
            .encode(x, y, alt.Order("step:Q"), alt.Detail("run:N"), _run_color(paths, styles))
        )
    layers += [
        alt.Chart(alt.Data(values=[{"x": 0, "y": 0, "name": "base model"}]))
        .mark_point(shape="circle", size=60, filled=True, color="var(--ink)", opacity=1)
        .encode(x, y, tooltip=[alt.Tooltip("name:N", title="arm")]),
        named.mark_rule(**bars).encode(x, alt.Y("y_low:Q"), alt.Y2("y_high:Q"), color=color),
        named.mark_rule(**bars).encode(alt.X("x_low:Q"), y, alt.X2("x_high:Q"), color=color),
        base.mark_point(
            filled=True, size={"expr": "datum.label ? 130 : 45"}, opacity=1,
            stroke="var(--paper)", strokeWidth=1.5,
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


def _padded(values: list[float]) -> list[float]:
    """A domain around the values and zero, with room for the marks."""
    low, high = min([0.0, *values]), max([0.0, *values])
    room = (high - low or 1.0) * 0.08
    return [low - room, high + room]


def _cell(figure: Any) -> tuple[str, str]:
    if figure is None:
        return number(None), ""
    return by_unit(figure.value, figure.unit), interval(figure)


def _ends(axis: str, figure: MetricValue) -> dict[str, float]:
    """Value and interval as a picture takes them: percent for fractions."""
    factor = 100 if figure.unit == "fraction" else 1
    low = figure.value if figure.low is None else figure.low
    high = figure.value if figure.high is None else figure.high
    return {
        axis: factor * figure.value,
        f"{axis}_low": factor * low,
        f"{axis}_high": factor * high,
    }


def _run_color(rows: list[dict], styles: dict[str, ArmStyle]) -> alt.Stroke:
    looks = {row["run"]: styles[row["arm"]].color for row in rows}
    scale = alt.Scale(domain=list(looks), range=list(looks.values()))
    return alt.Stroke("run:N", scale=scale, legend=None)
