"""The score matrices of continual training as heat maps."""

from collections.abc import Sequence

import altair as alt

from gradloc.experiments.continual.continual_figures import ArmFigures, ContinualFigures
from gradloc.experiments.continual.looks import BEFORE
from gradloc.experiments.continual.table import figure_text
from gradloc.report.formatting import MINUS, MISSING, number
from gradloc.report.pictures import Picture, fill_spec, is_finite

# Shades on each side of 0; the page defines ``--heat--6`` to ``--heat-6``.
N_SHADES = 6
SHADES = tuple(range(-N_SHADES, N_SHADES + 1))
# Wider matrices have no room for a number in each cell; the table below has them.
_MAX_NUMBERS = 14


def largest_change(figures: ContinualFigures) -> float:
    """The largest gain or loss of any arm: where the colors of all heat maps end."""
    found = [
        abs(cell.value)
        for arm in figures.arms.values()
        for row in arm.uptake
        for cell in row
        if is_finite(cell.value)
    ]
    return max(found, default=0.0) or 1.0


def heat_maps(figures: ContinualFigures) -> list[Picture]:
    """Uptake on every period after every stage, one picture an arm."""
    top = largest_change(figures)
    return [
        _heat_map(f"matrix-{place}", name, arm, figures, top)
        for place, (name, arm) in enumerate(figures.arms.items())
    ]


def _heat_map(
    key: str, name: str, arm: ArmFigures, figures: ContinualFigures, top: float
) -> Picture:
    rows = [
        {"stage": BEFORE, "period": column, "shade": 0, "value": "0", "own": False,
         "text": f"0 (log-probability {number(base.value)})", "n": base.n}
        for column, base in zip(figures.columns, figures.base, strict=True)
    ] + [
        {"stage": stage, "period": column, "shade": _shade(cell.value, top),
         "value": _in_cell(cell.value), "own": stage == column, "text": figure_text(cell),
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


def _in_cell(value: float | None) -> str:
    """Two decimals: all cells of a matrix have one scale."""
    if not is_finite(value):
        return MISSING
    return f"{round(value, 2) + 0:.2f}".replace("-", MINUS)


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
