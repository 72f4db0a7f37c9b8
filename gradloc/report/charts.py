"""The picture of lines, and what every picture shares: channels, axes, the table that replaces it.

Pictures are Vega-Lite specifications; the browser draws them.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt

from gradloc.evaluation.results import MetricValue
from gradloc.report.formatting import figure_text, is_finite, number
from gradloc.report.styles import ArmStyle
from gradloc.report.table import Table, figure_cell, make_table

# A longer curve is thinned: more points than pixels only make the page heavy.
MAX_POINTS = 400
# Up to so many points a line shows its signs and intervals, beyond it a band.
_SPARSE = 16
BETTER = {True: "↑ higher is better", False: "↓ lower is better"}
_ZERO = {"color": "var(--muted)", "strokeWidth": 1, "opacity": 0.6}
_HALO = {"stroke": "var(--paper)", "strokeWidth": 1}


class Picture(NamedTuple):
    """One drawing, and the words and figures that replace it.

    Args:
        key: Unique name within the page.
        title: Heading.
        description: What the picture shows, for readers who cannot see it.
        spec: Vega-Lite specification.
        table: The same figures.
        direction: Which way is better, with its arrow.
    """

    key: str
    title: str
    description: str
    spec: dict[str, Any]
    table: Table
    direction: str = ""


class Line(NamedTuple):
    """One line: a figure at each place.

    Args:
        name: What the legend calls it.
        style: How it looks.
        points: Place -> figure.
    """

    name: str
    style: ArmStyle
    points: Mapping[float, MetricValue]


def line_picture(
    key: str,
    title: str,
    lines: Sequence[Line],
    *,
    x_title: str,
    y_title: str,
    direction: str = "",
    places: Mapping[float, str] | None = None,
    is_log: bool = False,
    has_zero: bool = False,
    domain: Sequence[float] | None = None,
    marks: Sequence[float] = (),
) -> Picture | None:
    """Figures over steps, stages or exposures, one line for each arm.

    Args:
        key: Unique name within the page.
        title: Heading.
        lines: The lines; points that are not finite are left out.
        x_title: What the places are.
        y_title: What the figures are, with their unit.
        direction: Which way is better.
        places: Names of the places; ``None``: they are numbers.
        is_log: Whether the places are on a logarithmic axis.
        has_zero: Whether to draw zero, where the base model stands.
        domain: Ends of the vertical axis.
        marks: Places of dotted vertical lines.

    Returns:
        The picture; ``None`` where there is nothing to draw.
    """
    lines = [line._replace(points=_thin(line.points)) for line in lines]
    if not (lines := [line for line in lines if line.points]):
        return None
    places = places or {x: _place_text(x) for line in lines for x in line.points}
    rows = [row for i, line in enumerate(lines) for row in _rows(line, i, len(lines), places)]
    x = _x_axis(places, x_title, is_log)
    scale = alt.Scale(domain=list(domain), nice=False) if domain else alt.Scale(zero=has_zero)
    y = alt.Y("value:Q", title=y_title, axis=alt.Axis(tickCount=5), scale=scale)
    layers = [_rule("value", 0.0, y)] if has_zero else []
    layers += [_rule("x", mark, x, strokeDash=[2, 3]) for mark in marks]
    layers += _line_layers(rows, x, y, {line.name: line.style for line in lines}, y_title)
    ends = [(line.name, line.points[max(line.points)]) for line in lines]
    described = "; ".join(f"{name} {figure_text(figure)}" for name, figure in ends)
    return Picture(
        key=key,
        title=title,
        description=f"{title}: {y_title} over {x_title.lower()}, one line for each of "
        f"{', '.join(line.name for line in lines)}. At the end: {described}.",
        spec=fill_spec(layers, height=240),
        table=_line_table(lines, x_title, places),
        direction=direction,
    )


def plain_points(places: Sequence[float], values: Sequence[float | None], unit="nats/token"):
    """Points of a line whose figures have no interval."""
    return {
        x: MetricValue(value, None, None, 0, unit, False)
        for x, value in zip(places, values, strict=False)
    }


def fill_spec(layers: Sequence[alt.Chart], height: int) -> dict[str, Any]:
    """A specification that fills its box; without ``$schema``, which names a web address."""
    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    chart = alt.layer(*layers).properties(width="container", height=height, autosize=fit)
    spec = chart.to_dict()
    return {key: part for key, part in spec.items() if key not in ("$schema", "config")}


def arm_channels(styles: Mapping[str, ArmStyle]) -> dict[str, Any]:
    """Color, sign and dash of each name, with one legend of those that are not in the background.

    ``bare`` is the color of a layer that adds nothing to the legend: a legend that is ``None`` in
    one layer would take away that of all.

    Args:
        styles: Name -> look; the data names it ``arm``.
    """
    names, looks = list(styles), list(styles.values())
    shown = [style.name for style in looks if not style.is_quiet]
    legend = (
        alt.Legend(title=None, orient="top", columns=2, values=shown) if len(names) > 1 else None
    )
    colors = alt.Scale(domain=names, range=[style.color for style in looks])
    shapes = alt.Scale(domain=names, range=[style.shape for style in looks])
    dashes = alt.Scale(domain=names, range=[list(style.dash) for style in looks])
    return {
        "color": alt.Color("arm:N", scale=colors, legend=legend),
        "bare": alt.Color("arm:N", scale=colors),
        "fill": alt.Fill("arm:N", scale=colors, legend=legend),
        "shape": alt.Shape("arm:N", scale=shapes, legend=legend),
        "dash": alt.StrokeDash("arm:N", scale=dashes, legend=legend),
    }


def drawn_ends(
    figure: MetricValue, name: str = "value", low="low", high="high"
) -> dict[str, float]:
    """Value and interval as they are drawn: percent for fractions, a missing end at the value."""
    factor = 100 if figure.unit == "fraction" else 1
    middle = factor * figure.value if figure.value is not None else math.nan
    ends = [factor * end if is_finite(end) else middle for end in (figure.low, figure.high)]
    return {name: middle, low: ends[0], high: ends[1]}


def _rule(field_name: str, place: float, encoding: alt.X | alt.Y, **looks: Any) -> alt.Chart:
    data = alt.Data(values=[{field_name: place}])
    return alt.Chart(data).mark_rule(**_ZERO, **looks).encode(encoding)


def _rows(line: Line, turn: int, n_lines: int, places: Mapping) -> list[dict[str, Any]]:
    """The points of a line; few of them stand side by side, so that none hides another."""
    width = max(places) - min(places)
    step = min(0.012, 0.05 / n_lines) * width if len(places) <= _SPARSE else 0
    shift = step * (turn - (n_lines - 1) / 2)
    has_interval = any(is_finite(figure.low) for figure in line.points.values())
    return [
        {
            "arm": line.name, "x": x + (shift if has_interval else 0), "place": places[x],
            "text": figure_text(figure), **drawn_ends(figure),
        }
        for x, figure in line.points.items()
    ]  # fmt: skip


def _line_layers(
    rows: list[dict], x: alt.X, y: alt.Y, styles: dict[str, ArmStyle], y_title: str
) -> list[alt.Chart]:
    channels = arm_channels(styles)
    base = alt.Chart(alt.Data(values=rows))
    is_sparse = max(Counter(row["arm"] for row in rows).values()) <= _SPARSE
    bars, band = {"strokeWidth": 1.5, "strokeOpacity": 0.4}, {"fillOpacity": 0.14}
    layers = []
    if any(row["low"] != row["high"] for row in rows):
        interval = base.mark_rule(**bars) if is_sparse else base.mark_area(**band)
        layers.append(interval.encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), channels["bare"]))
    layers.append(base.mark_line(strokeWidth=2).encode(x, y, channels["color"], channels["dash"]))
    # Every point answers the pointer; a dense line shows the sign of its last one alone.
    last = list({row["arm"]: row for row in rows}.values())
    named = {"arm": "line", "place": "at", "text": y_title}
    tips = [alt.Tooltip(f"{field}:N", title=title) for field, title in named.items()]
    seen = base if is_sparse else alt.Chart(alt.Data(values=last))
    points = seen.mark_point(filled=True, size=55, opacity=1, **_HALO)
    layers.append(points.encode(x, y, channels["color"], channels["shape"], tooltip=tips))
    if not is_sparse:
        layers.append(base.mark_point(filled=True, size=60, opacity=0).encode(x, y, tooltip=tips))
    return layers


def _x_axis(places: Mapping[float, str], title: str, is_log: bool) -> alt.X:
    axis: dict[str, Any] = {"grid": False, "tickCount": 5, "format": ",d"}
    if any(text != _place_text(x) for x, text in places.items()):
        shown = list(places)[:: 1 if len(places) <= 13 else 3]
        words = [f"datum.value == {x} ? '{_quoted(places[x])}'" for x in shown]
        angle = -45 if len(shown) > 5 else 0
        label = " : ".join([*words, "''"])
        axis = {"grid": False, "values": shown, "labelExpr": label, "labelAngle": angle}
    elif len(places) <= 6:
        axis["values"] = sorted(places)
    zero = alt.Undefined if is_log else False
    scale = alt.Scale(type="log" if is_log else "linear", zero=zero, nice=False, padding=10)
    return alt.X("x:Q", title=title, axis=alt.Axis(**axis), scale=scale)


def _line_table(lines: Sequence[Line], x_title: str, places: Mapping[float, str]) -> Table:
    rows = [
        [places[x], *(figure_cell(p[x]) if x in (p := line.points) else "" for line in lines)]
        for x in sorted({x for line in lines for x in line.points})
    ]
    return make_table([x_title, *(line.name for line in lines)], rows)


def _thin(points: Mapping[float, MetricValue]) -> dict[float, MetricValue]:
    found = {x: figure for x, figure in points.items() if is_finite(figure.value)}
    stride = max(1, math.ceil(len(found) / MAX_POINTS))
    kept = dict(list(found.items())[::stride])
    return kept | dict(list(found.items())[-1:])


def _place_text(x: float) -> str:
    return f"{x:,}" if float(x).is_integer() else number(x)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
