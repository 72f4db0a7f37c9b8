"""The curves over training steps.

Comes in: the ``curve`` columns of each arm. Goes out: one ``Picture`` for the loss and one for each
kind of probe that was followed.
"""

import math

import altair as alt

from gradloc.evaluation.results import EvalResult
from gradloc.report.formatting import number
from gradloc.report.pictures import Picture, arm_color, arm_shape, fill_spec, is_finite
from gradloc.report.style import ArmStyle

# A longer curve is thinned: more points than pixels only make the page heavy.
MAX_CURVE_POINTS = 400
CURVES = {
    "loss": "Training loss",
    "new_nll": "New facts",
    "invariant_nll": "Known facts",
}


def curve_pictures(results: EvalResult, styles: dict[str, ArmStyle]) -> list[Picture]:
    """Loss and probe likelihoods over training steps."""
    pictures = [_curve(results, styles, column, title) for column, title in CURVES.items()]
    return [picture for picture in pictures if picture is not None]


def _curve(
    results: EvalResult, styles: dict[str, ArmStyle], column: str, title: str
) -> Picture | None:
    rows = []
    for name, arm in results.arms.items():
        points = [
            (step, value)
            for step, value in zip(
                arm.curve.get("step", ()), arm.curve.get(column, ()), strict=False
            )
            if is_finite(value)
        ]
        stride = max(1, math.ceil(len(points) / MAX_CURVE_POINTS))
        kept = points[::stride]
        if points and kept[-1] != points[-1]:
            kept.append(points[-1])
        rows += [{"arm": name, "step": step, "value": value} for step, value in kept]
    if not rows:
        return None
    by_arm = {name: [r for r in rows if r["arm"] == name] for name in results.arms}
    by_arm = {name: points for name, points in by_arm.items() if points}
    unit = "nats per token"
    described = "; ".join(
        f"{name} from {number(points[0]['value'])} to {number(points[-1]['value'])}"
        for name, points in by_arm.items()
    )
    steps = sorted({row["step"] for row in rows})
    table = tuple(
        (f"{step:,}", *(_at(points, step) for points in by_arm.values())) for step in steps
    )
    return Picture(
        key=f"curve-{column.replace('_', '-')}",
        title=title,
        description=f"{title} over training steps, {unit}, one line for each arm: {described}.",
        spec=fill_spec(_curve_chart(rows, by_arm, styles, unit)),
        columns=("Step", *by_arm),
        rows=table,
        direction="↓ lower is better",
    )


def _curve_chart(
    rows: list[dict], by_arm: dict[str, list], styles: dict[str, ArmStyle], y_title: str
) -> alt.LayerChart:
    base = alt.Chart(alt.Data(values=rows))
    color = arm_color(rows, styles)
    names = list(by_arm)
    dash = alt.StrokeDash(
        "arm:N", legend=None,
        scale=alt.Scale(domain=names, range=[list(styles[name].dash) for name in names]),
    )  # fmt: skip
    x = alt.X("step:Q", title="Step", axis=alt.Axis(tickCount=5, grid=False, format=",d"))
    y = alt.Y(
        "value:Q", title=y_title, scale=alt.Scale(zero=False, nice=5), axis=alt.Axis(tickCount=5)
    )
    tips = [
        alt.Tooltip("arm:N"),
        alt.Tooltip("step:Q", format=",d"),
        alt.Tooltip("value:Q", title="nats per token", format=".3f"),
    ]
    layers = [base.mark_line(strokeWidth=2).encode(x, y, color=color, strokeDash=dash)]
    # Signs sit on every point of a sparse curve, and only on the last of a dense one.
    sparse = max(len(points) for points in by_arm.values()) <= 16
    marked = rows if sparse else [points[-1] for points in by_arm.values()]
    layers.append(
        alt.Chart(alt.Data(values=marked))
        .mark_point(filled=True, size=50, opacity=1, stroke="var(--paper)", strokeWidth=1)
        .encode(x, y, color=color, shape=arm_shape(rows, styles), tooltip=tips)
    )
    return alt.layer(*layers).properties(height=220)


def _at(points: list[dict], step: int) -> str:
    return next((number(p["value"]) for p in points if p["step"] == step), "")
