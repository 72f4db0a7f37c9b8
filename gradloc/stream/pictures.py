"""The pictures of a stream.

Comes in: ``StreamFigures``. Goes out: one heat map an arm, all on one scale, and curves over the
stages with one line an arm. It computes no figure.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import altair as alt

from gradloc.report.formatting import by_unit, interval, number, unit_name
from gradloc.report.pictures import Picture, arm_color, arm_shape, fill_spec, is_finite
from gradloc.report.style import SHAPES, ArmStyle
from gradloc.results import Figure
from gradloc.stream.figures import ArmFigures, StreamFigures
from gradloc.stream.table import figure_text

# Shades on each side of 0; the page defines ``--heat--6`` to ``--heat-6``.
N_SHADES = 6
SHADES = tuple(range(-N_SHADES, N_SHADES + 1))
BEFORE = "before"
# The policy that trains everything; without a method it is what the others are compared with.
FULL_POLICY = "all"
_DASHES = ((5, 4), (2, 3), (8, 3, 2, 3))
# Wider matrices have no room for a number in each cell; the table below has them.
_MAX_NUMBERS = 14


class Curve(NamedTuple):
    """A figure over the stages.

    Args:
        key: Field of ``ArmFigures``.
        title: Heading.
        direction: Which way is better.
    """

    key: str
    title: str
    direction: str


CURVES = (
    Curve("current", "Uptake on the period just trained on", "↑ higher is better"),
    Curve("seen", "Mean uptake on all periods seen so far", "↑ higher is better"),
    Curve("known_facts", "Known facts lost", "↓ lower is better"),
    Curve("general_text", "General text lost", "↓ lower is better"),
)


def arm_looks(figures: StreamFigures) -> dict[str, ArmStyle]:
    """Arm -> its look; ordinary full training is gray and dashed."""
    full = [n for n, arm in figures.arms.items() if arm.policy == FULL_POLICY and not arm.methods]
    others = [name for name in figures.arms if name not in full]
    shapes = [shape for shape in SHAPES if shape != "square"]
    looks = {
        name: ArmStyle(name, "var(--reference)", "square", _DASHES[i % len(_DASHES)], True)
        for i, name in enumerate(full)
    }
    for i, name in enumerate(others):
        # Beyond six arms a color comes again, with another sign.
        shape = shapes[(i + i // 6) % len(shapes)]
        looks[name] = ArmStyle(name, f"var(--arm-{i % 6})", shape, (1, 0), False)
    return {name: looks[name] for name in figures.arms}


def largest_change(figures: StreamFigures) -> float:
    """The largest gain or loss of any arm: where the colors of all heat maps end."""
    found = [
        abs(cell.value)
        for arm in figures.arms.values()
        for row in arm.uptake
        for cell in row
        if is_finite(cell.value)
    ]
    return max(found, default=0.0) or 1.0


def heat_maps(figures: StreamFigures) -> list[Picture]:
    """Uptake on every period after every stage, one picture an arm."""
    top = largest_change(figures)
    return [
        _heat_map(f"matrix-{place}", name, arm, figures, top)
        for place, (name, arm) in enumerate(figures.arms.items())
    ]


def curve_pictures(figures: StreamFigures) -> list[Picture]:
    """Uptake, known facts and general text over the stages, one line an arm."""
    looks = arm_looks(figures)
    drawn = (_curve_picture(curve, figures, looks) for curve in CURVES)
    return [picture for picture in drawn if picture is not None]


def _heat_map(key: str, name: str, arm: ArmFigures, figures: StreamFigures, top: float) -> Picture:
    rows = [
        {"stage": BEFORE, "period": column, "shade": 0, "value": "0", "own": False,
         "text": f"0 (log-probability {number(base.value)})", "n": base.n}
        for column, base in zip(figures.columns, figures.base, strict=True)
    ] + [
        {"stage": stage, "period": column, "shade": _shade(cell.value, top),
         "value": number(cell.value, 2), "own": stage == column, "text": figure_text(cell),
         "n": cell.n}
        for stage, row in zip(arm.stages, arm.uptake, strict=True)
        for column, cell in zip(figures.columns, row, strict=True)
    ]  # fmt: skip
    last = zip(figures.columns, arm.uptake[-1], strict=True)
    described = ", ".join(f"{column} {number(cell.value)}" for column, cell in last)
    return Picture(
        key=key,
        title=name,
        description=(
            f"Heat map of what {name} gained on each period, in nats per token, one row a stage. "
            f"After the last stage, {arm.stages[-1]}: {described}."
        ),
        spec=fill_spec(_heat_chart(rows, (BEFORE, *arm.stages), figures.columns)),
        columns=("After", *figures.columns),
        rows=tuple(
            (stage, *(figure_text(cell) for cell in row))
            for stage, row in zip(arm.stages, arm.uptake, strict=True)
        ),
    )


def _shade(value: float | None, top: float) -> int | None:
    if not is_finite(value):
        return None
    return max(-N_SHADES, min(N_SHADES, round(value / top * N_SHADES)))


def _heat_chart(rows: list[dict], stages: Sequence[str], columns: Sequence[str]) -> alt.LayerChart:
    base = alt.Chart(alt.Data(values=rows))
    gap = {"paddingInner": 0.04, "paddingOuter": 0.02}
    x = alt.X(
        "period:N", title="Evaluated on the facts of", sort=list(columns), scale=alt.Scale(**gap),
        axis=alt.Axis(orient="top", labelAngle=-45 if len(columns) > 5 else 0, domain=False),
    )  # fmt: skip
    y = alt.Y(
        "stage:N", title="After training on", sort=list(stages), scale=alt.Scale(**gap),
        axis=alt.Axis(domain=False),
    )  # fmt: skip
    color = alt.Color(
        "shade:O",
        legend=None,
        scale=alt.Scale(domain=list(SHADES), range=[f"var(--heat-{shade})" for shade in SHADES]),
    )
    tips = [
        alt.Tooltip("stage:N", title="after"),
        alt.Tooltip("period:N", title="facts of"),
        alt.Tooltip("text:N", title="gained"),
        alt.Tooltip("n:Q", title="items"),
    ]
    scored = base.transform_filter("datum.shade !== null")
    layers = [
        base.mark_rect(color="var(--missing)", cornerRadius=2).encode(x, y, tooltip=tips),
        scored.mark_rect(cornerRadius=2).encode(x, y, color, tooltip=tips),
        base.transform_filter("datum.own")
        .mark_rect(cornerRadius=2, fillOpacity=0, stroke="var(--ink)", strokeWidth=1.8)
        .encode(x, y),
    ]
    if len(columns) <= _MAX_NUMBERS:
        text = base.mark_text(fontSize=11 if len(columns) <= 8 else 9.5, color="var(--ink)")
        layers.append(text.encode(x, y, alt.Text("value:N"), tooltip=tips))
    return alt.layer(*layers).properties(height=28 * len(stages))


def _curve_picture(
    curve: Curve, figures: StreamFigures, looks: dict[str, ArmStyle]
) -> Picture | None:
    series = {name: getattr(arm, curve.key) for name, arm in figures.arms.items()}
    rows = [
        row
        for place, (name, found) in enumerate(series.items())
        for row in _curve_rows(name, found, figures, (place - (len(series) - 1) / 2) * 0.05)
    ]
    drawn = [found for line in series.values() for found in line if found.value is not None]
    if not drawn:
        return None
    unit = unit_name(drawn[0].unit, difference=True)
    described = "; ".join(f"{n} {figure_text(line[-1])}" for n, line in series.items() if line)
    way = "lost" if curve.direction.startswith("↓") else "gained"
    return Picture(
        key=f"curve-{curve.key}",
        title=curve.title,
        description=(
            f"{curve.title} after each stage, {unit} {way} against the base model, one line an "
            f"arm. After the last stage: {described}."
        ),
        spec=fill_spec(_curve_chart(rows, figures, looks, f"{unit} {way}")),
        columns=("After", *series),
        rows=tuple(
            (stage, *(_at(figures.arms[name], line, stage) for name, line in series.items()))
            for stage in figures.stages
        ),
        direction=curve.direction,
    )


def _at(arm: ArmFigures, line: Sequence[Figure], stage: str) -> str:
    found = dict(zip(arm.stages, line, strict=False))
    return figure_text(found[stage]) if stage in found else ""


def _curve_rows(
    name: str, line: Sequence[Figure], figures: StreamFigures, shift: float
) -> list[dict[str, Any]]:
    """Points of one arm, the base model's first; arms stand side by side so that none hides."""
    if not line:
        return []
    rows = [{"arm": name, "x": 0.0, "stage": BEFORE, "value": 0, "low": 0, "high": 0, "text": "0"}]
    stages = figures.arms[name].stages
    for stage, found in zip(stages, line, strict=True):
        if not is_finite(found.value):
            continue
        factor = 100 if found.unit == "fraction" else 1
        low, high = (found.value if end is None else end for end in (found.low, found.high))
        rows.append({
            "arm": name, "x": figures.stages.index(stage) + 1 + shift, "stage": stage,
            "value": factor * found.value, "low": factor * low, "high": factor * high,
            "text": f"{by_unit(found.value, found.unit)} {interval(found, brackets=True)}".strip(),
        })  # fmt: skip
    return rows


def _curve_chart(
    rows: list[dict], figures: StreamFigures, looks: dict[str, ArmStyle], title: str
) -> alt.LayerChart:
    places = list(range(len(figures.stages) + 1))
    every = 1 if len(places) <= 13 else 3
    shown = [BEFORE, *figures.stages]
    words = "[" + ",".join(f"'{word}'" for word in shown) + "]"
    x = alt.X(
        "x:Q", title="After training on",
        scale=alt.Scale(domain=[-0.25, places[-1] + 0.25], nice=False),
        axis=alt.Axis(
            values=places[::every], labelExpr=f"{words}[datum.value]", grid=False,
            labelAngle=-45 if len(places) > 5 else 0,
        ),
    )  # fmt: skip
    y = alt.Y("value:Q", title=title, axis=alt.Axis(tickCount=5), scale=alt.Scale(zero=True))
    color, shape = arm_color(rows, looks), arm_shape(rows, looks)
    names = list(dict.fromkeys(row["arm"] for row in rows))
    dash = alt.StrokeDash(
        "arm:N",
        legend=None,
        scale=alt.Scale(domain=names, range=[list(looks[name].dash) for name in names]),
    )
    tips = [
        alt.Tooltip("arm:N"),
        alt.Tooltip("stage:N", title="after"),
        alt.Tooltip("text:N", title=title),
    ]
    base = alt.Chart(alt.Data(values=rows))
    zero = alt.Chart(alt.Data(values=[{"value": 0}]))
    layers = [
        zero.mark_rule(color="var(--muted)", strokeWidth=1, opacity=0.6).encode(y),
        base.mark_rule(strokeWidth=1.4, opacity=0.35).encode(
            x, alt.Y("low:Q"), alt.Y2("high:Q"), color=color
        ),
        base.mark_line(strokeWidth=2, opacity=0.9).encode(x, y, color=color, strokeDash=dash),
        base.mark_point(filled=True, size=55, opacity=1, stroke="var(--paper)").encode(
            x, y, color=color, shape=shape, tooltip=tips
        ),
    ]
    return alt.layer(*layers).properties(height=280)
