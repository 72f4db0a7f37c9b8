"""The heat map, used for layers and for score matrices."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gradloc.report.charts import fill_spec, tooltips
from gradloc.report.formatting import is_finite, number
from gradloc.report.styles import LEVELS, SHADES


class Tile(NamedTuple):
    """One cell of the map.

    Args:
        x: Its column.
        y: Its row.
        value: What colors it; ``None`` for no color.
        text: The value in words, for the pointer.
        label: What stands in it.
        marked: Whether it has a frame.
    """

    x: str
    y: str
    value: float | None
    text: str
    label: str = ""
    marked: bool = False


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
    values = [tile.value for tile in tiles]
    levels, ends, is_log = color_levels(values, is_change, top)
    data = [
        {key: value for key, value in tile._asdict().items() if key != "value"} | {"level": level}
        for tile, level in zip(tiles, levels, strict=True)
    ]
    columns = list(dict.fromkeys(tile.x for tile in tiles))
    rows = list(dict.fromkeys(tile.y for tile in tiles))
    colors = SHADES if is_change else LEVELS
    low, high = (number(end, 2) for end in ends)
    top_axis = {"orient": "top", "labelAngle": -45 if len(columns) > 5 else 0, "domain": False}
    return fill_spec(
        "map",
        height=row_height * len(rows),
        tiles=data,
        labels=data if any(tile.label for tile in tiles) else [],
        x=_bands("x", x_title, columns, top_axis),
        y=_bands("y", y_title, rows, {"values": rows[::every], "domain": False}),
        tips=tooltips(y=y_title, x=x_title or "kind", text="value"),
        levels=list(range(len(colors))),
        n_levels=len(colors),
        colors=list(colors),
        legend_title="logarithmic" if is_log else None,
        legend_labels=f"datum.value == 0 ? '{low}' : "
        f"datum.value == {len(colors) - 1} ? '{high}' : ''",
        font_size=11 if len(columns) <= 8 else 9.5,
    )


def color_levels(
    values: Sequence[float | None], is_change: bool = False, top: float = 0.0
) -> tuple[list[int], tuple[float | None, float | None], bool]:
    """Sort values into color levels; logarithmic where they span more than two decades.

    Args:
        values: The values.
        is_change: As in ``heat_spec``.
        top: As in ``heat_spec``.

    Returns:
        Level of each (-1 for a missing value), the values at both ends, and whether the levels
        are logarithmic.
    """
    numbers = np.array([value if is_finite(value) else np.nan for value in values], float)
    if np.isnan(numbers).all():
        return [-1] * len(numbers), (None, None), False
    low, high = ends = float(np.nanmin(numbers)), float(np.nanmax(numbers))
    is_log = not is_change and low > 0 and high / low > 100
    if is_change:
        top = top or max(-low, high) or 1.0
        middle, ends = len(SHADES) // 2, (-top, top)
        levels = middle + np.round(middle * np.clip(numbers / top, -1, 1))
    else:
        to = np.log10 if is_log else np.asarray
        # Equal values stand in the middle.
        shares = (to(numbers) - to(low)) / (to(high) - to(low)) if high > low else 0 * numbers + 0.5
        levels = np.minimum(np.floor(shares * len(LEVELS)), len(LEVELS) - 1)
    return [-1 if np.isnan(level) else int(level) for level in levels], ends, is_log


def _bands(field: str, title: str | None, names: list[str], axis: dict[str, Any]) -> dict[str, Any]:
    scale = {"domain": names, "paddingInner": 0.06, "paddingOuter": 0.02}
    return {"field": field, "type": "nominal", "title": title, "scale": scale, "axis": axis}
