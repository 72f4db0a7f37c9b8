"""The picture of lines, and what every picture shares: channels, and the table that replaces it.

Pictures are Vega-Lite specifications in ``templates/``, filled in here; the browser draws them.
"""

import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from gradloc.config.yaml_source import parse_yaml
from gradloc.evaluation.results import MetricValue
from gradloc.report.formatting import figure_text, is_finite, number
from gradloc.report.styles import ArmStyle
from gradloc.report.table import Table, figure_cell, make_table

# A longer curve is thinned: more points than pixels only make the page heavy.
MAX_POINTS = 400
# Up to so many points a line shows its signs and intervals, beyond it a band.
_SPARSE = 16
BETTER = {True: "↑ higher is better", False: "↓ lower is better"}


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
    is_sparse = max(Counter(row["arm"] for row in rows).values()) <= _SPARSE
    ranged = rows if any(row["low"] != row["high"] for row in rows) else []
    spec = fill_spec(
        "lines",
        height=240,
        x={"field": "x", "type": "quantitative", "title": x_title, **_x_axis(places, is_log)},
        y={
            "field": "value", "type": "quantitative", "title": y_title, "axis": {"tickCount": 5},
            "scale": {"domain": list(domain), "nice": False} if domain else {"zero": has_zero},
        },
        zero=[{"value": 0.0}] if has_zero else [],
        marks=[{"x": mark} for mark in marks],
        rows=rows,
        bars=ranged if is_sparse else [],
        band=[] if is_sparse else ranged,
        seen=rows if is_sparse else list({row["arm"]: row for row in rows}.values()),
        unseen=[] if is_sparse else rows,
        tips=tooltips(arm="line", place="at", text=y_title),
        **arm_channels({line.name: line.style for line in lines}),
    )  # fmt: skip
    ends = "; ".join(f"{line.name} {figure_text(line.points[max(line.points)])}" for line in lines)
    return Picture(
        key=key,
        title=title,
        description=f"{title}: {y_title} over {x_title.lower()}, one line for each of "
        f"{', '.join(line.name for line in lines)}. At the end: {ends}.",
        spec=spec,
        table=_line_table(lines, x_title, places),
        direction=direction,
    )


def plain_points(places: Sequence[float], values: Sequence[float | None], unit="nats/token"):
    """Points of a line whose figures have no interval."""
    return {
        x: MetricValue(value, None, None, 0, unit, False)
        for x, value in zip(places, values, strict=False)
    }


def fill_spec(name: str, height: int, **values: Any) -> dict[str, Any]:
    """The specification ``templates/NAME.yaml``, its ``$names`` replaced; it fills its box.

    Layers without data are left out.
    """

    def filled(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: filled(value) for key, value in part.items()}
        if isinstance(part, list):
            return [filled(value) for value in part]
        return values[part[1:]] if isinstance(part, str) and part.startswith("$") else part

    spec = filled(_template(name))
    spec["layer"] = [own for own in spec["layer"] if "data" not in own or own["data"]["values"]]
    fit = {"type": "fit-x", "contains": "padding"}
    return {"width": "container", "height": height, "autosize": fit, **spec}


def arm_channels(styles: Mapping[str, ArmStyle]) -> dict[str, Any]:
    """Color, sign and dash of each name, with one legend of those that are not in the background.

    ``bare`` is the color of a layer that adds nothing to the legend: a legend that is ``None`` in
    one layer would take away that of all.

    Args:
        styles: Name -> look; the data names it ``arm``.
    """
    shown = [name for name, style in styles.items() if not style.is_quiet]
    legend = {"title": None, "orient": "top", "columns": 2, "values": shown}

    def channel(looks: list) -> dict[str, Any]:
        scale = {"domain": list(styles), "range": looks}
        return {"field": "arm", "type": "nominal", "scale": scale}

    bare = channel([style.color for style in styles.values()])
    channels = {
        "color": bare,
        "shape": channel([style.shape for style in styles.values()]),
        "dash": channel([list(style.dash) for style in styles.values()]),
    }
    own = {"legend": legend if len(styles) > 1 else None}
    return {"bare": bare} | {name: channel | own for name, channel in channels.items()}


def tooltips(**titles: str) -> list[dict[str, str]]:
    """What a pointer shows: field -> its title."""
    return [{"field": name, "title": text, "type": "nominal"} for name, text in titles.items()]


def drawn_ends(
    figure: MetricValue, name: str = "value", low="low", high="high"
) -> dict[str, float]:
    """Value and interval as they are drawn: percent for fractions, a missing end at the value."""
    factor = 100 if figure.unit == "fraction" else 1
    middle = factor * figure.value if figure.value is not None else math.nan
    ends = [factor * end if is_finite(end) else middle for end in (figure.low, figure.high)]
    return {name: middle, low: ends[0], high: ends[1]}


@functools.cache
def _template(name: str) -> dict[str, Any]:
    file = files("gradloc.report").joinpath("templates", f"{name}.yaml")
    return parse_yaml(file.read_text(encoding="utf-8"))


def _rows(line: Line, turn: int, n_lines: int, places: Mapping) -> list[dict[str, Any]]:
    """The points of a line; few of them stand side by side, so that none hides another."""
    width = max(places) - min(places)
    step = min(0.012, 0.05 / n_lines) * width if len(places) <= _SPARSE else 0
    has_interval = any(is_finite(figure.low) for figure in line.points.values())
    shift = step * (turn - (n_lines - 1) / 2) if has_interval else 0
    return [
        {"arm": line.name, "x": x + shift, "place": places[x], "text": figure_text(figure),
         **drawn_ends(figure)}
        for x, figure in line.points.items()
    ]  # fmt: skip


def _x_axis(places: Mapping[float, str], is_log: bool) -> dict[str, Any]:
    axis: dict[str, Any] = {"grid": False, "tickCount": 5, "format": ",d"}
    if any(text != _place_text(x) for x, text in places.items()):
        shown = list(places)[:: 1 if len(places) <= 13 else 3]
        words = [f"datum.value == {x} ? '{_quoted(places[x])}'" for x in shown]
        angle = -45 if len(shown) > 5 else 0
        label = " : ".join([*words, "''"])
        axis = {"grid": False, "values": shown, "labelExpr": label, "labelAngle": angle}
    elif len(places) <= 6:
        axis["values"] = sorted(places)
    scale = {"type": "log"} if is_log else {"type": "linear", "zero": False}
    return {"axis": axis, "scale": {**scale, "nice": False, "padding": 10}}


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
