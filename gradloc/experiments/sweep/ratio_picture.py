"""The picture of ratios at matched uptake: one row an arm, 1 is the line."""

import math

import altair as alt

from gradloc.evaluation.results import MetricValue
from gradloc.experiments.sweep.frontier_values import CorpusFrontier
from gradloc.experiments.sweep.looks import is_background, share_text
from gradloc.report.formatting import interval, metric_label, number, percent
from gradloc.report.pictures import Picture, fill_spec
from gradloc.report.style import ArmStyle

# The axis goes no further: a ratio beyond says "much", and small ones need the room.
_WIDEST = (0.02, 50.0)
SIGNS = {0.5: "triangle-up", 0.75: "circle", 0.9: "diamond"}
_OFF = "triangle-left"
_TICKS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]


def ratio_picture(
    key: str, corpus: CorpusFrontier, looks: dict[str, ArmStyle], line: str, loss: str
) -> Picture | None:
    """Forgetting as a ratio to the line's, at shares of the line's best uptake."""
    others = [name for name in looks if name in corpus.arms and name != line]
    rows, absent, table = [], [], []
    for name in others:
        levels = corpus.arms[name].forgetting[loss].at_uptake
        for place, at in enumerate(levels):
            table.append((name, share_text(at.share), number(at.ratio.value), interval(at.ratio),
                          at.ratio.note))  # fmt: skip
            if at.ratio.value is not None:
                rows.append(_row(name, looks[name], at.share, place, at.ratio))
        if all(at.ratio.value is None for at in levels):
            absent.append({"arm": name, "text": _why(corpus.arms[name].uptake_share, levels)})
    if not rows:
        return None
    label = metric_label(loss)
    described = "; ".join(
        f"{row['arm']} at {row['share']}: {row['text']}" for row in rows if row["place"] == 1
    )
    return Picture(
        key=key,
        title=f"Forgetting, ratio to {line} at equal uptake",
        description=(
            f"Forgetting on {label} divided by that of {line} at shares of the best uptake of "
            f"{line}, one row for each arm, on a logarithmic axis; below 1 is better. {described}."
        ),
        spec=fill_spec(_chart(rows, absent, others, looks, line)),
        columns=("Arm", f"Share of {line}'s best uptake", "Ratio", "95 % interval", "Note"),
        rows=tuple(table),
        direction=f"← better: forgets less than {line}",
    )


def _row(name: str, style: ArmStyle, share: float, place: int, ratio: MetricValue) -> dict:
    text = f"{number(ratio.value)} {interval(ratio, brackets=True)}".strip()
    if ratio.low is None and ratio.high is None:
        low = high = ratio.value
    else:  # an end that is not bounded is drawn to the edge
        low = 0.0 if ratio.low is None else ratio.low
        high = math.inf if ratio.high is None else ratio.high
    return {
        "arm": name, "share": share_text(share), "place": place,
        # Nothing forgotten, or less than nothing, lies left of any logarithmic axis.
        "sign": SIGNS[share] if ratio.value > 0 else _OFF,
        "value": _within(ratio.value), "low": _within(low), "high": _within(high),
        "text": text, "quiet": is_background(style), "color": style.color,
    }  # fmt: skip


def _chart(
    rows: list[dict], absent: list[dict], names: list[str], looks: dict[str, ArmStyle], line: str
) -> alt.LayerChart:
    ends = [row[end] for row in rows for end in ("low", "high", "value")]
    # An end far out must not squeeze the values together: from each side a factor of 4 at most.
    values = [row["value"] for row in rows] + [1.0]
    domain = [
        max(min(ends), min(values) / 4, _WIDEST[0]) / 1.15,
        min(max([*ends, 1.0]), max(values) * 4, _WIDEST[1]) * 1.15,
    ]
    scale = alt.Scale(type="log", domain=domain, nice=False, clamp=True)
    x = alt.X(
        "value:Q", title=f"ratio to {line}, logarithmic", scale=scale,
        axis=alt.Axis(values=[t for t in _TICKS if domain[0] <= t <= domain[1]], format="~g"),
    )  # fmt: skip
    y = alt.Y(
        "arm:N", sort=names, title=None, scale=alt.Scale(domain=names, paddingInner=0.25),
        axis=alt.Axis(labelLimit=150, labelColor="var(--ink)", domain=False, grid=False),
    )  # fmt: skip
    offset = alt.YOffset("place:O", scale=alt.Scale(domain=[0, 1, 2], paddingOuter=0.35))
    domain_colors = list(dict.fromkeys(row["arm"] for row in rows))
    color = alt.Color(
        "arm:N",
        scale=alt.Scale(domain=domain_colors, range=[looks[name].color for name in domain_colors]),
        legend=None,
    )
    signs = alt.Scale(domain=[*SIGNS.values(), _OFF], range=[*SIGNS.values(), _OFF])
    data = alt.Chart(alt.Data(values=rows))
    layers = [
        alt.Chart(alt.Data(values=[{"value": 1}]))
        .mark_rule(color="var(--reference)", strokeWidth=1.5, strokeDash=[5, 4])
        .encode(x),
        data.mark_rule(strokeWidth=1.6, opacity=0.6, clip=True).encode(
            alt.X("low:Q", scale=scale), y, offset, alt.X2("high:Q"), color=color
        ),
        data.mark_point(
            filled=True, size=70, opacity=1, stroke="var(--paper)", strokeWidth=1
        ).encode(
            x, y, offset, color=color, shape=alt.Shape("sign:N", scale=signs, legend=None),
            tooltip=[
                alt.Tooltip("arm:N"),
                alt.Tooltip("share:N", title=f"share of {line}'s best uptake"),
                alt.Tooltip("text:N", title="ratio"),
            ],
        ),
    ]  # fmt: skip
    if absent:
        layers.append(
            alt.Chart(alt.Data(values=[{**row, "value": domain[0]} for row in absent]))
            .mark_text(align="left", dx=6, fontSize=11, color="var(--muted)")
            .encode(alt.X("value:Q", scale=scale), y, alt.Text("text:N"))
        )
    return alt.layer(*layers).properties(height=max(120, 42 * len(names)))


def _why(share: MetricValue, levels) -> str:
    """Why an arm has no ratio, in a few words."""
    if share.value is not None and share.value < levels[0].share:
        return f"reaches {percent(share.value)} of the uptake"
    return "no ratio: see the table"


def _within(value: float) -> float:
    """A value that a logarithmic axis can hold."""
    return min(max(value, _WIDEST[0] / 10), _WIDEST[1] * 10)
