"""What a picture of the report is, and the channels that all pictures share.

Comes in: a chart. Goes out: a Vega-Lite specification that fills its box. The pictures themselves
stand in ``tradeoff``, ``layer_maps``, ``curves`` and ``series_curves``; the browser draws them.
"""

import math
from dataclasses import dataclass
from typing import Any

import altair as alt

from gradloc.report.style import CONFIG, SHAPES, ArmStyle


@dataclass(frozen=True)
class Picture:
    """One drawing and the words and figures that replace it.

    Args:
        key: Unique name within the page.
        title: Heading.
        description: What the picture shows, for readers who cannot see it.
        spec: Vega-Lite specification.
        columns: Heads of the table that says the same.
        rows: Its rows, as text.
        direction: Which way is better, with its arrow.
        legend: What the template needs to draw a legend, if anything.
    """

    key: str
    title: str
    description: str
    spec: dict[str, Any]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    direction: str = ""
    legend: dict[str, Any] | None = None


def fill_spec(chart: alt.LayerChart) -> dict[str, Any]:
    """A specification that fills its box; without ``$schema``, which names a web address."""
    spec = chart.properties(
        width="container", autosize=alt.AutoSizeParams(type="fit-x", contains="padding")
    ).to_dict()
    spec.pop("$schema", None)
    spec["config"] = CONFIG
    return spec


def arm_color(rows: list[dict], styles: dict[str, ArmStyle]) -> alt.Color:
    """The color channel of arms, in the looks of the page."""
    names = list(dict.fromkeys(row["arm"] for row in rows))
    scale = alt.Scale(domain=names, range=[styles[name].color for name in names])
    return alt.Color("arm:N", scale=scale, legend=None)


def arm_shape(rows: list[dict], styles: dict[str, ArmStyle]) -> alt.Shape:
    """The shape channel of arms."""
    names = list(dict.fromkeys(row["arm"] for row in rows))
    assert all(styles[name].shape in SHAPES for name in names)
    scale = alt.Scale(domain=names, range=[styles[name].shape for name in names])
    return alt.Shape("arm:N", scale=scale, legend=None)


def is_finite(value: Any) -> bool:
    """Whether there is a number to draw."""
    return value is not None and math.isfinite(value)
