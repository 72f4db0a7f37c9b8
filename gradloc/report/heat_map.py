"""The heat map, used for layers and for score matrices."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt

from gradloc.report.charts import fill_spec
from gradloc.report.formatting import is_finite, number
from gradloc.report.styles import LEVELS, N_LEVELS, SHADES


class Tile(NamedTuple):
    """One cell of the map.

    Args:
        x: Its column.
        y: Its row.
        value: What colors it; ``None`` for no color.
        text: The value in words, for the pointer.
        label: What stands in it.
        is_marked: Whether it has a frame.
    """

    x: str
    y: str
    value: float | None
    text: str
    label: str = ""
    is_marked: bool = False


def heat_spec(
    tiles: Sequence[Tile],
    *,
    x_title: str | None,
    y_title: str,
    row_height: int,
    is_change: bool = False,
    top: float = 0.0,
    every: int = 1,
) -> dict[str, Any]:
    """A map over columns and rows in the order in which they first appear.

    Args:
        tiles: The cells.
        x_title: What the columns are.
        y_title: What the rows are.
        row_height: Height of a row in pixels.
        is_change: Whether zero is the middle of the colors, blue above and orange below it;
            else they run from the lowest to the highest value.
        top: For changes, where the colors end; 0: at the largest change.
        every: Name each so many rows.

    Returns:
        The Vega-Lite specification.
    """
    values = {place: tile.value for place, tile in enumerate(tiles)}
    levels, extent, is_log = shade_levels(values, top) if is_change else color_levels(values)
    rows = [
        {"x": tile.x, "y": tile.y, "level": levels[place], "text": tile.text, "label": tile.label,
         "marked": tile.is_marked}
        for place, tile in enumerate(tiles)
    ]  # fmt: skip
    columns = list(dict.fromkeys(tile.x for tile in tiles))
    lines = list(dict.fromkeys(tile.y for tile in tiles))
    angle = -45 if len(columns) > 5 else 0
    x = alt.X(
        "x:N", title=x_title, scale=_bands(columns),
        axis=alt.Axis(orient="top", labelAngle=angle, domain=False),
    )  # fmt: skip
    y = alt.Y(
        "y:N", title=y_title, scale=_bands(lines),
        axis=alt.Axis(values=lines[::every], domain=False),
    )  # fmt: skip
    tips = [alt.Tooltip("y:N", title=y_title), alt.Tooltip("x:N", title=x_title or "kind"),
            alt.Tooltip("text:N", title="value")]  # fmt: skip
    colors = SHADES if is_change else LEVELS
    base = alt.Chart(alt.Data(values=rows))
    layers = [
        base.mark_rect(color="var(--missing)", cornerRadius=2).encode(x, y, tooltip=tips),
        base.transform_filter("datum.level >= 0")
        .mark_rect(cornerRadius=2)
        .encode(x, y, _ramp(colors, extent, is_log), tooltip=tips),
        base.transform_filter("datum.marked")
        .mark_rect(cornerRadius=2, fillOpacity=0, stroke="var(--ink)", strokeWidth=1.8)
        .encode(x, y),
    ]
    if any(tile.label for tile in tiles):
        text = base.mark_text(fontSize=11 if len(columns) <= 8 else 9.5, color="var(--ink)")
        layers.append(text.encode(x, y, alt.Text("label:N"), tooltip=tips))
    return fill_spec(layers, height=row_height * len(lines))


def color_levels(
    values: Mapping[Any, float | None],
) -> tuple[dict[Any, int], tuple[float | None, float | None], bool]:
    """Sort values into color levels; logarithmic where they span more than two decades.

    Returns:
        Level of each (-1 for a missing value), the lowest and highest value, and whether the
        levels are logarithmic.
    """
    found = [value for value in values.values() if is_finite(value)]
    if not found:
        return dict.fromkeys(values, -1), (None, None), False
    low, high = min(found), max(found)
    is_log = low > 0 and high / low > 100
    to = math.log10 if is_log else float
    width = to(high) - to(low)
    levels = {}
    for name, value in values.items():
        if not is_finite(value):
            levels[name] = -1
        elif width == 0:
            levels[name] = N_LEVELS // 2
        else:
            share = (to(value) - to(low)) / width
            levels[name] = min(N_LEVELS - 1, int(share * N_LEVELS))
    return levels, (low, high), is_log


def shade_levels(
    values: Mapping[Any, float | None], top: float = 0.0
) -> tuple[dict[Any, int], tuple[float, float], bool]:
    """Sort changes into shades around zero, the same way as ``color_levels``."""
    middle = len(SHADES) // 2
    top = top or max((abs(value) for value in values.values() if is_finite(value)), default=0) or 1
    levels = {
        name: middle + max(-middle, min(middle, round(value / top * middle)))
        if is_finite(value)
        else -1
        for name, value in values.items()
    }
    return levels, (-top, top), False


def _bands(names: list[str]) -> alt.Scale:
    return alt.Scale(domain=names, paddingInner=0.06, paddingOuter=0.02)


def _ramp(colors: Sequence[str], extent: tuple, is_log: bool) -> alt.Color:
    """The color channel, whose legend names its two ends."""
    last = len(colors) - 1
    scale = alt.Scale(domain=list(range(len(colors))), range=list(colors))
    low, high = (number(end, 2) for end in extent)
    legend = alt.Legend(
        title="logarithmic" if is_log else None,
        orient="bottom",
        direction="horizontal",
        columns=len(colors),
        columnPadding=2,
        symbolType="square",
        symbolSize=180,
        symbolStrokeWidth=0,
        labelExpr=f"datum.value == 0 ? '{low}' : datum.value == {last} ? '{high}' : ''",
    )
    return alt.Color("level:O", scale=scale, legend=legend)
