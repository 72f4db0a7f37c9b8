"""The pictures of a sweep."""

from typing import Any

import altair as alt

from gradloc.evaluation.results import MetricValue
from gradloc.experiments.sweep.frontier_values import CorpusFrontier
from gradloc.experiments.sweep.looks import is_background
from gradloc.report.formatting import (
    by_unit,
    interval,
    learning_rate,
    metric_label,
    unit_name,
)
from gradloc.report.labels import place_labels
from gradloc.report.pictures import Picture, arm_color, arm_shape, fill_spec
from gradloc.report.style import ArmStyle

Looks = dict[str, ArmStyle]


def frontier_picture(
    key: str, corpus: CorpusFrontier, looks: Looks, axis: str, loss: str
) -> Picture | None:
    """Uptake (up) against forgetting (right), one curve an arm from the base model."""
    rows = [
        row
        for name, arm in corpus.arms.items()
        for point in arm.points
        if (row := _point_row(name, looks[name], point, axis, loss)) is not None
    ]
    if not rows:
        return None
    x_unit, y_unit = rows[0].pop("x_unit"), rows[0].pop("y_unit")
    for row in rows[1:]:
        del row["x_unit"], row["y_unit"]
    label = metric_label(loss)
    titles = (
        f"Forgetting: {label}, {unit_name(x_unit, difference=True)} lost",
        f"Uptake: {metric_label(axis)}, {unit_name(y_unit, difference=True)} gained",
    )
    described = "; ".join(
        f"{row['arm']} at {row['rate']}: uptake {row['uptake']}, forgetting {row['forgetting']}"
        for row in rows
        if row["label"]
    )
    return Picture(
        key=key,
        title="Uptake against forgetting",
        description=(
            f"Uptake against forgetting on {label}, one curve for each arm over its learning "
            f"rates; up and to the left is better. At the rate of largest uptake: {described}."
        ),
        spec=fill_spec(_frontier_chart(rows, looks, titles)),
        columns=("Arm", "Learning rate", titles[1], "95 % interval", titles[0], "95 % interval",
                 "On its curve"),
        rows=tuple(
            (row["arm"], row["rate"], row["y_text"], row["y_interval"], row["x_text"],
             row["x_interval"], "yes" if row["on_curve"] else "no")
            for row in rows
        ),
        direction="↖ better: more learned, less lost",
    )  # fmt: skip


def _point_row(name: str, style: ArmStyle, point: Any, axis: str, loss: str) -> dict | None:
    y, x = point.metrics.get(axis), point.metrics.get(loss)
    if x is None or y is None or x.value is None or y.value is None:
        return None
    return {
        "arm": name, "rate": learning_rate(point.learning_rate),
        "order": point.learning_rate, "on_curve": point.on_curve[loss], "quiet":
        is_background(style),
        "reference": style.is_reference, "label": "", "x_unit": x.unit, "y_unit": y.unit,
        **_ends("x", x), **_ends("y", y),
        "uptake": f"{by_unit(y.value, y.unit)} {interval(y, brackets=True)}",
        "forgetting": f"{by_unit(x.value, x.unit)} {interval(x, brackets=True)}",
        "x_text": by_unit(x.value, x.unit), "x_interval": interval(x),
        "y_text": by_unit(y.value, y.unit), "y_interval": interval(y),
    }  # fmt: skip


def _frontier_chart(rows: list[dict], looks: Looks, titles: tuple[str, str]) -> alt.LayerChart:
    on_curve = [row for row in rows if row["on_curve"]]
    ends = {row["arm"]: row for row in sorted(on_curve, key=lambda row: row["y"])}
    for name, row in ends.items():
        row["label"] = name
    _place_names(rows, on_curve)
    # Rates beyond the curves may lie far out: the curves decide what is seen of them.
    seen = on_curve or rows
    scales = {
        axis: alt.Scale(
            domain=_padded([row[f"{axis}_{end}"] for row in seen for end in ("low", "high")]),
            nice=False, zero=False, clamp=False,
        )
        for axis in "xy"
    }  # fmt: skip
    x = alt.X("x:Q", title=titles[0], scale=scales["x"], axis=alt.Axis(tickCount=5))
    y = alt.Y("y:Q", title=titles[1], scale=scales["y"], axis=alt.Axis(tickCount=6))
    color, shape = arm_color(rows, looks), arm_shape(rows, looks)
    layers = [
        alt.Chart(alt.Data(values=[{"zero": 0}]))
        .mark_rule(color="var(--muted)", strokeWidth=1, opacity=0.6)
        .encode(encoding)
        for encoding in (alt.X("zero:Q", scale=scales["x"]), alt.Y("zero:Q", scale=scales["y"]))
    ]
    # Background first, then the line, then the arms with a color.
    for kept, width, opacity, dash in (
        ([row for row in rows if row["quiet"]], 1.2, 0.45, [1, 0]),
        ([row for row in rows if row["reference"]], 2.2, 1.0, [5, 4]),
        ([row for row in rows if not row["quiet"] and not row["reference"]], 2.2, 0.9, [1, 0]),
    ):
        if kept:
            layers += _curves(kept, x, y, color, shape, (width, opacity, dash))
    layers += [
        alt.Chart(alt.Data(values=[{"x": 0, "y": 0, "name": "base model"}]))
        .mark_point(shape="circle", size=60, filled=True, color="var(--ink)", opacity=1)
        .encode(x, y, tooltip=[alt.Tooltip("name:N", title="arm")]),
        *_names([row for row in rows if row["label"]], x, y, color),
    ]
    return alt.layer(*layers).properties(height=360)


def _curves(
    rows: list[dict], x: alt.X, y: alt.Y, color: alt.Color, shape: alt.Shape, look: tuple
) -> list[alt.Chart]:
    """Curves of arms with their points, and the intervals of those that are no background."""
    width, opacity, dash = look
    quiet = rows[0]["quiet"]
    tips = [
        alt.Tooltip("arm:N"),
        alt.Tooltip("rate:N", title="learning rate"),
        alt.Tooltip("uptake:N"),
        alt.Tooltip("forgetting:N"),
    ]
    data = alt.Chart(alt.Data(values=rows))
    layers = [
        alt.Chart(alt.Data(values=_path(rows)))
        .mark_line(strokeWidth=width, opacity=opacity, strokeDash=dash, clip=True)
        .encode(x, y, alt.Order("place:Q"), color)
    ]
    if not quiet:
        bars = {"opacity": 0.4, "strokeWidth": 1.2, "clip": True}
        own = alt.Chart(alt.Data(values=[row for row in rows if row["on_curve"]]))
        layers += [
            own.mark_rule(**bars).encode(x, alt.Y("y_low:Q"), alt.Y2("y_high:Q"), color=color),
            own.mark_rule(**bars).encode(alt.X("x_low:Q"), y, alt.X2("x_high:Q"), color=color),
        ]
    layers.append(
        data.mark_point(
            size=28 if quiet else 70, strokeWidth=1.5, clip=True, opacity=0.6 if quiet else 1
        ).encode(
            x, y, color=color, shape=shape, tooltip=tips,
            # A point that its curve leaves out is hollow.
            fill=alt.condition("datum.on_curve", color, alt.value("var(--paper)")),
        )
    )  # fmt: skip
    return layers


def _names(rows: list[dict], x: alt.X, y: alt.Y, color: alt.Color) -> list[alt.Chart]:
    """Names of arms in their colors: where curves crowd, a name may stand nearer to another's end.

    A halo in the color of the paper keeps them readable over lines.
    """
    layers = []
    for quiet, size, weight in ((True, 11, 400), (False, 12, 600)):
        own = [row for row in rows if row["quiet"] == quiet]
        if not own:
            continue
        how = {
            "fontSize": size, "fontWeight": weight, "baseline": "middle",
            "align": {"expr": "datum.align"}, "dx": {"expr": "datum.dx"},
            "dy": {"expr": "datum.dy"},
        }  # fmt: skip
        text = alt.Chart(alt.Data(values=own))
        halo = {"stroke": "var(--paper)", "strokeWidth": 3.5, "strokeJoin": "round"}
        layers += [
            text.mark_text(**how, **halo).encode(x, y, alt.Text("label:N")),
            text.mark_text(**how).encode(x, y, alt.Text("label:N"), color=color),
        ]
    return layers


def _place_names(rows: list[dict], on_curve: list[dict]) -> None:
    """Put a name beside the end of each curve; strong arms choose their places first."""
    shown = sorted(on_curve or rows, key=lambda row: (row["quiet"], not row["label"]))
    line = [{"x": 0.0, "y": 0.0}]
    line += sorted((row for row in shown if row["reference"]), key=lambda row: row["y"])
    place_labels(shown, line)


def _path(rows: list[dict]) -> list[dict]:
    """Corners of the arms' curves, each from the base model."""
    corners = []
    for name in dict.fromkeys(row["arm"] for row in rows):
        own = [(row["y"], row["x"]) for row in rows if row["arm"] == name and row["on_curve"]]
        corners += [
            {"arm": name, "x": x, "y": y, "place": place}
            for place, (y, x) in enumerate(sorted([(0.0, 0.0), *own]))
        ]
    return corners


def _padded(values: list[float]) -> list[float]:
    """A domain around the values and zero, with room for the marks."""
    low, high = min([0.0, *values]), max([0.0, *values])
    room = (high - low or 1.0) * 0.08
    return [low - room, high + room]


def _ends(axis: str, found: MetricValue) -> dict[str, float]:
    """Value and interval as a picture takes them: percent for fractions."""
    factor = 100 if found.unit == "fraction" else 1
    low = found.value if found.low is None else found.low
    high = found.value if found.high is None else found.high
    return {
        axis: factor * found.value,
        f"{axis}_low": factor * low,
        f"{axis}_high": factor * high,
    }
