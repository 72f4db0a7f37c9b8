"""The curves of continual training: uptake and forgetting over its stages."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import altair as alt

from gradloc.evaluation.results import MetricValue
from gradloc.experiments.continual.continual_figures import ArmFigures, ContinualFigures
from gradloc.experiments.continual.looks import BEFORE, arm_looks
from gradloc.experiments.continual.table import figure_text
from gradloc.report.formatting import unit_name
from gradloc.report.pictures import Picture, arm_color, arm_shape, fill_spec, is_finite
from gradloc.report.style import ArmStyle


class Curve(NamedTuple):
    """A figure over the stages.

    Args:
        key: Field of ``ArmFigures``.
        title: Heading.
        direction: Which way is better.
        has_base: Whether the base model has a value, which is 0; there is no period that it was
            trained on.
    """

    key: str
    title: str
    direction: str
    has_base: bool


CURVES = (
    Curve("current", "Uptake on the period just trained on", "↑ higher is better", False),
    Curve("seen", "Mean uptake on all periods seen so far", "↑ higher is better", False),
    Curve("known_facts", "Known facts lost", "↓ lower is better", True),
    Curve("general_text", "General text lost", "↓ lower is better", True),
)


def curve_pictures(figures: ContinualFigures) -> list[Picture]:
    """Uptake, known facts and general text over the stages, one line an arm."""
    looks = arm_looks(figures)
    drawn = (_curve_picture(curve, figures, looks) for curve in CURVES)
    return [picture for picture in drawn if picture is not None]


def _curve_picture(
    curve: Curve, figures: ContinualFigures, looks: dict[str, ArmStyle]
) -> Picture | None:
    series = {name: getattr(arm, curve.key) for name, arm in figures.arms.items()}
    rows = []
    for place, (name, found) in enumerate(series.items()):
        if found and curve.has_base:
            rows.append(
                _point(name, 0, BEFORE, MetricValue(0.0, None, None, 0, found[0].unit, True))
            )
        # Arms stand side by side, so that none hides another.
        shift = (place - (len(series) - 1) / 2) * 0.05
        rows += _curve_rows(name, found, figures, shift)
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
        spec=fill_spec(_curve_chart(rows, figures, looks, f"{unit} {way}", curve.has_base)),
        columns=("After", *series),
        rows=tuple(
            (stage, *(_at(figures.arms[name], line, stage) for name, line in series.items()))
            for stage in figures.stages
        ),
        direction=curve.direction,
    )


def _at(arm: ArmFigures, line: Sequence[MetricValue], stage: str) -> str:
    found = dict(zip(arm.stages, line, strict=False))
    return figure_text(found[stage]) if stage in found else ""


def _curve_rows(
    name: str, line: Sequence[MetricValue], figures: ContinualFigures, shift: float
) -> list[dict[str, Any]]:
    """Points of one arm, one a finished stage; the first stage is at 1."""
    stages = figures.arms[name].stages[: len(line)]
    return [
        _point(name, figures.stages.index(stage) + 1 + shift, stage, found)
        for stage, found in zip(stages, line, strict=True)
        if is_finite(found.value)
    ]


def _point(name: str, x: float, stage: str, found: MetricValue) -> dict[str, Any]:
    factor = 100 if found.unit == "fraction" else 1
    low, high = (found.value if end is None else end for end in (found.low, found.high))
    return {
        "arm": name, "x": x, "stage": stage, "text": figure_text(found),
        "value": factor * found.value, "low": factor * low, "high": factor * high,
    }  # fmt: skip


def _curve_chart(
    rows: list[dict],
    figures: ContinualFigures,
    looks: dict[str, ArmStyle],
    title: str,
    has_base: bool,
) -> alt.LayerChart:
    places = list(range(0 if has_base else 1, len(figures.stages) + 1))
    every = 1 if len(places) <= 13 else 3
    shown = [BEFORE, *figures.stages]
    words = "[" + ",".join(f"'{word}'" for word in shown) + "]"
    x = alt.X(
        "x:Q", title="After training on",
        scale=alt.Scale(domain=[places[0] - 0.25, places[-1] + 0.25], nice=False),
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
