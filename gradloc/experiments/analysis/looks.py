"""What all pictures of an acquisition analysis share: colors, signs and the words of figures.

Comes in: groups of an analysis. Goes out: channels and texts. A scenario has one color and sign in
every picture, a depth one dash pattern.
"""

from typing import Any

import altair as alt

from gradloc.evaluation.results import MetricValue
from gradloc.experiments.analysis.dynamics import AcquisitionAnalysis, GroupDynamics
from gradloc.report.formatting import by_unit, interval

COLORS = {"once": "var(--arm-2)", "duplicated": "var(--arm-1)", "paraphrased": "var(--arm-0)"}
_MORE_COLORS = ("var(--arm-3)", "var(--arm-4)", "var(--arm-5)")
DASHES = {"verbatim": (1, 0), "paraphrase": (6, 3), "composition": (2, 2)}
SHAPES = {"once": "diamond", "duplicated": "triangle-up", "paraphrased": "circle"}
CONTROL = "not injected"
RULE = {"color": "var(--muted)", "strokeWidth": 1}
# Ticks of a logarithmic axis, where they lie within it.
_TICKS = [k * 10**power for power in range(7) for k in (1, 3)]


def colors(analysis: AcquisitionAnalysis) -> dict[str, str]:
    """Scenario -> its color; words of the user's own get the colors that are left."""
    names = list(dict.fromkeys(group.scenario for group in analysis.groups))
    own = [name for name in names if name not in COLORS]
    more = {name: _MORE_COLORS[i % len(_MORE_COLORS)] for i, name in enumerate(own)}
    return {name: COLORS.get(name) or more[name] for name in names}


def by_depth(analysis: AcquisitionAnalysis) -> dict[str, list[GroupDynamics]]:
    """Depth -> its groups, in the order of the analysis."""
    depths = list(dict.fromkeys(group.depth for group in analysis.groups))
    return {depth: [g for g in analysis.groups if g.depth == depth] for depth in depths}


def depth_title(depth: str) -> str:
    """Heading of a picture about one depth."""
    return f"{depth.capitalize()} probes"


def ends(found: MetricValue) -> dict[str, Any]:
    """A figure's value and ends as they are drawn; a missing end is at the value."""
    factor = 100 if found.unit == "fraction" else 1
    low, high = (found.value if end is None else end for end in (found.low, found.high))
    return {
        "value": factor * found.value,
        "low": factor * low,
        "high": factor * high,
        "text": figure_text(found),
    }


def figure_text(found: MetricValue) -> str:
    """A figure as ``value [low to high]``."""
    text = by_unit(found.value, found.unit)
    return f"{text} {interval(found, brackets=True)}".strip()


def color_channel(rows: list[dict], shown: dict[str, str]) -> alt.Color:
    """The color channel of scenarios."""
    names = list(dict.fromkeys(row["scenario"] for row in rows))
    scale = alt.Scale(domain=names, range=[shown[name] for name in names])
    return alt.Color("scenario:N", scale=scale, legend=None)


def shape_channel(rows: list[dict]) -> alt.Shape:
    """The shape channel of scenarios."""
    names = list(dict.fromkeys(row["scenario"] for row in rows))
    scale = alt.Scale(domain=names, range=[SHAPES.get(name, "square") for name in names])
    return alt.Shape("scenario:N", scale=scale, legend=None)


def dash_channel(rows: list[dict]) -> alt.StrokeDash:
    """The dash channel of depths."""
    names = list(dict.fromkeys(row["depth"] for row in rows))
    scale = alt.Scale(domain=names, range=[list(DASHES.get(name, (8, 3, 2, 3))) for name in names])
    return alt.StrokeDash("depth:N", scale=scale, legend=None)


def log_ticks(low: int, high: int) -> list[int]:
    """Round numbers within the axis, and its beginning."""
    inside = [tick for tick in _TICKS if low * 1.25 < tick <= high]
    return [low, *inside]


def slug(text: str) -> str:
    """A word as part of a picture's key."""
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower())
