"""Curves over the checkpoints of a training run: how measures move while it trains.

Comes in: an ``EvalResult`` with arms of one ``series``. Goes out: one ``Picture`` a measure, a
line for each run with the band of its 95 % interval. The curves that training itself recorded
stand in ``gradloc.report.curves``.
"""

import altair as alt

from gradloc.evaluation.results import ArmResult, EvalResult, MetricValue
from gradloc.report.formatting import by_unit, interval, metric_label, unit_name
from gradloc.report.pictures import Picture, fill_spec, is_finite
from gradloc.report.series import checkpoint_series
from gradloc.report.style import ArmStyle
from gradloc.report.verdict import FACTS, FORGETTING, UPTAKE


def series_pictures(
    results: EvalResult, styles: dict[str, ArmStyle], uptake: str | None
) -> list[Picture]:
    """Main uptake, known facts and general text over the steps of the checkpoints."""
    series = checkpoint_series(results)
    wanted = [("uptake", uptake)] if uptake else []
    wanted += [("forgetting", FACTS), ("forgetting", FORGETTING)]
    if not any(arm.uptake or arm.forgetting for arm in results.arms.values()):
        keys = dict.fromkeys(key for arm in results.arms.values() for key in arm.scores)
        of_new = [key for key in keys if key.endswith("_nll") and key != f"{FACTS}_nll"]
        first = UPTAKE if UPTAKE in keys else next(iter(of_new), "")
        wanted = [("scores", key) for key in (first, FACTS, FORGETTING)]
    pictures = [_picture(results, styles, series, kind, key) for kind, key in wanted]
    return [picture for picture in pictures if picture is not None]


def _picture(
    results: EvalResult,
    styles: dict[str, ArmStyle],
    series: dict[str, list[str]],
    kind: str,
    key: str,
) -> Picture | None:
    points: dict[str, list[tuple[int, MetricValue]]] = {}
    for run, names in series.items():
        arms = [results.arms[name] for name in names]
        found = [(arm.step, _figure(arm, kind, key)) for arm in arms if arm.step is not None]
        if found := [(step, figure) for step, figure in found if figure is not None]:
            points[run] = found
    if not points:
        return None
    first = next(iter(points.values()))[0][1]
    label = metric_label(key)
    unit = unit_name(first.unit, difference=kind != "scores")
    verb = {"uptake": "gained", "forgetting": "lost", "scores": ""}[kind]
    y_title = f"{unit} {verb}".strip()
    described = "; ".join(
        f"{run} from {_text(own[0][1])} at step {own[0][0]:,} to {_text(own[-1][1])} "
        f"at step {own[-1][0]:,}"
        for run, own in points.items()
    )
    looks = {run: styles[names[-1]] for run, names in series.items() if run in points}
    columns = ["Step"]
    for run in points:
        columns += [f"{run}, {y_title}", "95 % interval"]
    better = "↑ higher is better" if first.higher_is_better else "↓ lower is better"
    return Picture(
        key=f"series-{key}",
        title=label[0].upper() + label[1:],
        description=f"{label} over the training steps of the checkpoints, {y_title}, "
        f"one line for each run: {described}.",
        spec=fill_spec(_chart(points, looks, y_title, kind != "scores")),
        columns=tuple(columns),
        rows=_table(points),
        direction=better,
    )


def _chart(
    points: dict[str, list[tuple[int, MetricValue]]],
    looks: dict[str, ArmStyle],
    y_title: str,
    is_change: bool,
) -> alt.LayerChart:
    rows = []
    for run, own in points.items():
        for step, figure in own:
            factor = 100 if figure.unit == "fraction" else 1
            rows.append({
                "run": run, "step": step, "value": factor * figure.value,
                "low": factor * _or(figure.low, figure.value),
                "high": factor * _or(figure.high, figure.value),
                "shown": f"{_text(figure)} {interval(figure, brackets=True)}".strip(),
            })  # fmt: skip
    names = list(looks)

    def scale(values: list) -> alt.Scale:
        return alt.Scale(domain=names, range=values)

    color = alt.Color("run:N", legend=None, scale=scale([s.color for s in looks.values()]))
    shape = alt.Shape("run:N", legend=None, scale=scale([s.shape for s in looks.values()]))
    dash = alt.StrokeDash("run:N", legend=None, scale=scale([list(s.dash) for s in looks.values()]))
    # A step is a whole number: a short run has no room for four of them.
    steps = sorted({row["step"] for row in rows})
    ticks = alt.Axis(grid=False, format=",d", **(
        {"values": steps} if len(steps) <= 4 else {"tickCount": 5}
    ))  # fmt: skip
    x = alt.X(
        "step:Q", title="Step", axis=ticks, scale=alt.Scale(zero=False, nice=False, padding=8)
    )
    y = alt.Y("value:Q", title=y_title, axis=alt.Axis(tickCount=5), scale=alt.Scale(zero=False))
    base = alt.Chart(alt.Data(values=rows))
    layers = [
        base.mark_area(opacity=0.16).encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), color=color),
        base.mark_line(strokeWidth=2).encode(x, y, color=color, strokeDash=dash),
        base.mark_point(filled=True, size=60, opacity=1, stroke="var(--paper)", strokeWidth=1)
        .encode(x, y, color=color, shape=shape, tooltip=[
            alt.Tooltip("run:N"), alt.Tooltip("step:Q", format=",d"),
            alt.Tooltip("shown:N", title=y_title),
        ]),
    ]  # fmt: skip
    if is_change:
        zero = alt.Chart(alt.Data(values=[{"zero": 0}]))
        layers.insert(0, zero.mark_rule(color="var(--muted)", opacity=0.6).encode(
            alt.Y("zero:Q", title=y_title)
        ))  # fmt: skip
    return alt.layer(*layers).properties(height=220)


def _table(points: dict[str, list[tuple[int, MetricValue]]]) -> tuple[tuple[str, ...], ...]:
    rows = []
    for step in sorted({step for own in points.values() for step, _ in own}):
        cells = [f"{step:,}"]
        for own in points.values():
            figure = dict(own).get(step)
            cells += ["", ""] if figure is None else [_text(figure), interval(figure)]
        rows.append(tuple(cells))
    return tuple(rows)


def _figure(arm: ArmResult, kind: str, key: str) -> MetricValue | None:
    figure = getattr(arm, kind).get(key)
    return figure if figure is not None and is_finite(figure.value) else None


def _text(figure: MetricValue) -> str:
    return by_unit(figure.value, figure.unit)


def _or(value: float | None, fallback: float) -> float:
    return value if is_finite(value) else fallback
