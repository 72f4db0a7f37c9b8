"""The result of a benchmark as a picture.

Comes in: the values of ``bench.json``. Goes out: an SVG and a PNG file. It is drawn for a page
with a light background.
"""

import json
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from gradloc.experiments.bench.steps import PARTS
from gradloc.experiments.bench.table import threads
from gradloc.report import style
from gradloc.utils.io import write_text

# Light to dark along the step; all four differ in lightness, so gray print keeps them apart.
_COLORS = ("var(--arm-0)", "var(--arm-5)", "var(--arm-4)", "var(--line)")
_ROW_HEIGHT = 26


def write_picture(result: dict[str, Any], beside: Path) -> list[Path]:
    """Draw the arms beside the result file, under its name, as ``.svg`` and ``.png``."""
    text = style.resolve(json.dumps(bench_spec(result)))
    spec = json.loads(text)
    svg = write_text(beside.with_suffix(".svg"), vl_convert.vegalite_to_svg(spec))
    png = beside.with_suffix(".png")
    png.write_bytes(vl_convert.vegalite_to_png(spec, scale=2))
    return [svg, png]


def bench_spec(result: dict[str, Any]) -> dict[str, Any]:
    """Horizontal bars of step time by part, and of peak memory where it was measured."""
    names = list(result["arms"])
    panels = [_time_panel(result, names)]
    if result["settings"]["memory_repeats"]:
        panels.append(_memory_panel(result, names))
    settings, machine = result["settings"], result["machine"]
    title = alt.TitleParams(
        f"{result['model']['name']}: what a training step costs",
        subtitle=f"{settings['batch_size']} × {settings['sequence_length']} tokens, "
        f"{settings['dtype']}, {machine.get('gpu') or machine['cpu']}, "
        f"{threads(machine)}. Whiskers: 95 % interval of time, range of memory. "
        "Diamond: predicted.",
        anchor="start",
        fontSize=15,
        subtitleFontSize=12,
        subtitleColor="var(--muted)",
        color="var(--ink)",
        offset=12,
    )
    spec = alt.hconcat(*panels, spacing=28).properties(title=title).to_dict()
    return {**spec, "config": {**style.CONFIG, "background": "white"}, "padding": 16}


def _time_panel(result: dict[str, Any], names: list[str]) -> alt.LayerChart:
    rows = [
        {
            "arm": name,
            "part": part,
            "order": order,
            "share": arm["time_ratio"]["value"] * arm["shares"][part],
        }
        for name, arm in result["arms"].items()
        for order, part in enumerate(PARTS)
    ]
    colors = alt.Scale(domain=list(PARTS), range=list(_COLORS))
    legend = alt.Legend(title=None, orient="top", direction="horizontal", symbolType="square")
    bars = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(height={"band": 0.68})
        .encode(
            x=_x(result, "time_ratio", "share:Q", "time of a step / full training"),
            y=_arms(names),
            color=alt.Color("part:N", scale=colors, legend=legend),
            order="order:Q",
        )
    )
    return _with_marks(bars, result, names, "time_ratio", 430)


def _memory_panel(result: dict[str, Any], names: list[str]) -> alt.LayerChart:
    rows = [
        {"arm": name, "value": arm["memory_ratio"]["value"]} for name, arm in result["arms"].items()
    ]
    bars = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(height={"band": 0.68}, color="var(--arm-2)")
        .encode(
            x=_x(
                result, "memory_ratio", "value:Q", "peak memory above the weights / full training"
            ),
            y=_arms(names, labels=False),
        )
    )
    return _with_marks(bars, result, names, "memory_ratio", 300)


def _with_marks(
    bars: alt.Chart, result: dict[str, Any], names: list[str], key: str, width: int
) -> alt.LayerChart:
    """Whiskers, predictions and figures on top of the bars."""
    limit = _limit(result, key)
    rows = [
        {
            "arm": name,
            **{k: min(v, limit) for k, v in arm[key].items() if v is not None},
            "end": min(max(_ends(arm, key)), limit),
            "text": f"{arm[key]['value']:.2f}",
            "predicted": arm["predicted"][key],
        }
        for name, arm in result["arms"].items()
    ]
    ranged = [row for row in rows if "low" in row]
    guessed = [row for row in rows if row["predicted"] is not None and row["arm"] != "full"]
    y = _arms(names, labels=key == "time_ratio")
    reference = (
        alt.Chart(alt.Data(values=[{"one": 1.0}]))
        .mark_rule(color="var(--muted)", strokeDash=[3, 3])
        .encode(x="one:Q")
    )
    whiskers = (
        alt.Chart(alt.Data(values=ranged))
        .mark_errorbar(ticks={"height": 8, "color": "var(--ink)"}, color="var(--ink)")
        .encode(x=alt.X("low:Q", title=""), x2="high:Q", y=y)
    )
    diamonds = (
        alt.Chart(alt.Data(values=guessed))
        .mark_point(shape="diamond", size=70, fill="white", stroke="var(--bad)", opacity=1)
        .encode(x="predicted:Q", y=y)
    )
    figures = (
        alt.Chart(alt.Data(values=rows))
        .mark_text(align="left", dx=10, fontSize=12, color="var(--ink)")
        .encode(x="end:Q", y=y, text="text:N")
    )
    height = _ROW_HEIGHT * len(names)
    layers = alt.layer(bars, reference, whiskers, diamonds, figures)
    return layers.properties(width=width, height=height)


def _ends(arm: dict[str, Any], key: str) -> list[float]:
    """Where something is drawn in an arm's row."""
    found = [arm[key]["value"], arm[key]["high"], arm["predicted"][key]]
    return [value for value in found if value is not None]


def _limit(result: dict[str, Any], key: str) -> float:
    """Where whiskers are cut: those of two or three rotations may be as long as they like."""
    return 1.5 * max(1.0, *(arm[key]["value"] for arm in result["arms"].values()))


def _x(result: dict[str, Any], key: str, field: str, title: str) -> alt.X:
    """The axis of a panel, with room for figures behind the longest row."""
    longest = max(
        min(end, _limit(result, key)) for arm in result["arms"].values() for end in _ends(arm, key)
    )
    axis = alt.Axis(title=title, format=".1f", tickCount=6)
    scale = alt.Scale(domain=[0, 1.12 * max(1.0, longest)], nice=False)
    return alt.X(field, stack="zero", axis=axis, scale=scale)


def _arms(names: list[str], *, labels: bool = True) -> alt.Y:
    axis = alt.Axis(title=None, labels=labels, domain=False, grid=False, labelColor="var(--ink)")
    return alt.Y("arm:N", sort=names, axis=axis)
