"""The heat map: of any values, and of the layers that were trained."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gradloc.localization.plan import LayerPlan
from gradloc.localization.profile import GradientProfile
from gradloc.models.unit_info import UnitInfo
from gradloc.report.charts import Picture, fill_spec, tooltips
from gradloc.report.formatting import capitalize, is_finite, number, span
from gradloc.report.styles import LEVELS, SHADES
from gradloc.report.table import Cell, make_table

KIND_COLUMNS = {"attention": "Attention", "mlp": "MLP", "block": "Block"}


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


def layer_map(profile: GradientProfile | None, plan: LayerPlan | None) -> Picture | None:
    """The plan's score over blocks and sublayers; without scores, the measured gradient norm."""
    units = (plan.units if plan else ()) or (profile.units if profile else ())
    stack = [unit for unit in units if unit.in_stack]
    if not stack:
        return None
    if plan is not None and plan.scores:
        title, values = capitalize(plan.score_name or "score"), plan.scores
    elif profile is None:
        title, values = "Share of the learning rate", plan.scale if plan else {}
    elif profile.reference_norms is None:
        title = "Gradient norm on probes"
        values = dict(zip(profile.names, profile.probe_norm.tolist(), strict=True))
    else:
        title = "Relative gradient norm"
        with np.errstate(divide="ignore", invalid="ignore"):
            values = dict(zip(profile.names, profile.rgn.tolist(), strict=True))
    return _draw(title, stack, values, plan)


def _draw(
    title: str, stack: list[UnitInfo], values: Mapping[str, float], plan: LayerPlan | None
) -> Picture:
    tiles, rows = [], []
    for unit in sorted(stack, key=lambda unit: (unit.block, list(KIND_COLUMNS).index(unit.kind))):
        shown, small, state = number(values.get(unit.name)), _ends(plan, unit), _state(plan, unit)
        text = " · ".join(filter(None, (f"{shown} [{small}]" if small else shown, state)))
        is_trained = state.startswith("trained")
        kind, label = KIND_COLUMNS[unit.kind], "●" if is_trained else ""
        tiles.append(Tile(kind, str(unit.block), values.get(unit.name), text, label, is_trained))
        rows.append([unit.name, Cell(shown, small), f"{unit.n_parameters:,}", state])
    scored = {unit.name: values[unit.name] for unit in stack if is_finite(values.get(unit.name))}
    best = sorted(scored, key=lambda name: -scored[name])[:5]
    described = ", ".join(f"{name} {number(scored[name])}" for name in best)
    n_blocks = len({unit.block for unit in stack})
    trained = f" Trained units: {', '.join(plan.trained) or 'none'}." if plan else ""
    return Picture(
        key="layers",
        title=title,
        description=f"Heat map of {title.lower()} over {n_blocks} blocks. Highest: {described}."
        + trained,
        spec=heat_spec(
            tiles,
            x_title=None,
            y_title="Block",
            row_height=15 if n_blocks <= 40 else 10,
            every=1 if n_blocks <= 12 else 5 if n_blocks <= 60 else 10,
        ),
        table=make_table(["Unit", title, "Parameters", "Plan"], rows),
        direction="● trained" if plan else "",
    )


def _ends(plan: LayerPlan | None, unit: UnitInfo) -> str:
    """The interval of a unit's score, where the plan has one."""
    bounds = plan.reliability if plan and plan.scores else {}
    low, high = ((bounds.get(end) or {}).get(unit.name) for end in ("low", "high"))
    return span(low, high) if is_finite(low) and is_finite(high) else ""


def _state(plan: LayerPlan | None, unit: UnitInfo) -> str:
    scale = plan.scale.get(unit.name, 0) if plan else None
    if scale is None:
        return ""
    if not scale:
        return "frozen"
    return "trained" if scale == 1 else f"trained at × {number(scale)}"
