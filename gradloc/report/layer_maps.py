"""The heat maps: where the score is high, and what the plan trains.

Comes in: a profile and a plan. Goes out: ``Picture`` values over blocks and sublayers.
"""

import math

import altair as alt
import numpy as np

from gradloc.errors import GradlocError
from gradloc.localization.plan import LayerPlan
from gradloc.localization.profile import GradientProfile
from gradloc.models.unit_info import UnitInfo
from gradloc.report.formatting import number, span
from gradloc.report.pictures import Picture, fill_spec, is_finite
from gradloc.report.style import LEVELS, N_LEVELS

KIND_COLUMNS = {"attention": "Attention", "mlp": "MLP", "block": "Block"}


def heat_maps(profile: GradientProfile | None, plan: LayerPlan | None) -> list[Picture]:
    """The plan's score and the relative gradient norm over blocks and sublayers."""
    units = (plan.units if plan else ()) or (profile.units if profile else ())
    if not any(unit.in_stack for unit in units):
        return []
    pictures = []
    if plan is not None and plan.scores:
        title = plan.score_name or "score"
        pictures.append(_heat_map("score", title[0].upper() + title[1:], units, plan.scores, plan))
    elif plan is not None:
        pictures.append(_heat_map("score", "Share of the learning rate", units, plan.scale, plan))
    if profile is not None:
        try:
            with np.errstate(divide="ignore", invalid="ignore"):
                title, values = "Relative gradient norm", profile.rgn
        except GradlocError:  # measured without reference text
            title, values = "Gradient norm on probes", profile.probe_norm
        values = dict(zip(profile.names, map(float, values), strict=True))
        if title.lower() != (plan.score_name.lower() if plan else ""):
            pictures.append(_heat_map("rgn", title, units, values, plan))
    return pictures


def _heat_map(
    key: str,
    title: str,
    units: tuple[UnitInfo, ...],
    values: dict[str, float | None],
    plan: LayerPlan | None,
) -> Picture:
    stack = [unit for unit in units if unit.in_stack]
    scale = plan.scale if plan else {}
    levels, extent, is_log = _levels({unit.name: values.get(unit.name) for unit in stack})
    bounds = plan.reliability if plan and key == "score" else {}
    rows, table = [], []
    for unit in stack:
        value, trained = values.get(unit.name), scale.get(unit.name, 0)
        low, high = ((bounds.get(end) or {}).get(unit.name) for end in ("low", "high"))
        shown = number(value)
        ends = span(low, high) if low is not None and high is not None else ""
        state = "trained" if trained else "frozen" if plan else ""
        if trained and trained != 1:
            state = f"trained at × {number(trained)}"
        rows.append({
            "unit": unit.name, "block": unit.block, "kind": KIND_COLUMNS.get(unit.kind, unit.kind),
            "level": levels[unit.name], "value": f"{shown} [{ends}]" if ends else shown,
            "state": state, "trained": bool(trained),
        })  # fmt: skip
        table.append((unit.name, shown, ends, f"{unit.n_parameters:,}", state))
    scored = [unit for unit in stack if is_finite(values.get(unit.name))]
    best = sorted(scored, key=lambda unit: -values[unit.name])[:5]
    described = ", ".join(f"{unit.name} {number(values[unit.name])}" for unit in best)
    trained_names = ", ".join(row["unit"] for row in rows if row["trained"]) or "none"
    return Picture(
        key=f"heat-{key}",
        title=title,
        description=(
            f"Heat map of {title.lower()} over {len({u.block for u in stack})} blocks. Highest: "
            f"{described}." + (f" Trained units: {trained_names}." if plan else "")
        ),
        spec=fill_spec(_heat_chart(rows, bool(plan))),
        columns=("Unit", title, "95 % interval", "Parameters", "Plan"),
        rows=tuple(table),
        legend={
            "low": number(extent[0], 2), "high": number(extent[1], 2),
            "log": is_log, "colors": LEVELS,
            "missing": any(row["level"] < 0 for row in rows),
        },
    )  # fmt: skip


def _heat_chart(rows: list[dict], has_plan: bool) -> alt.LayerChart:
    blocks = sorted({row["block"] for row in rows})
    every = 1 if len(blocks) <= 12 else 5 if len(blocks) <= 60 else 10
    step = 15 if len(blocks) <= 40 else 10
    base = alt.Chart(alt.Data(values=rows))
    x = alt.X(
        "kind:N", title=None, sort=list(KIND_COLUMNS.values()),
        scale=alt.Scale(paddingInner=0.04, paddingOuter=0),
        axis=alt.Axis(orient="top", labelAngle=0, domain=False, labelPadding=8),
    )  # fmt: skip
    y = alt.Y(
        "block:O", title="Block", scale=alt.Scale(paddingInner=0.14, paddingOuter=0.1),
        axis=alt.Axis(values=[b for b in blocks if b % every == 0], domain=False),
    )  # fmt: skip
    scale = alt.Scale(domain=[-1, *range(N_LEVELS)], range=["var(--missing)", *LEVELS])
    tips = [alt.Tooltip("unit:N"), alt.Tooltip("value:N")]
    tips += [alt.Tooltip("state:N", title="plan")] if has_plan else []
    cells = base.mark_rect(cornerRadius=2).encode(
        x, y, alt.Color("level:O", scale=scale, legend=None), tooltip=tips
    )
    # Outline and dot together: readable on the palest and on the darkest cell.
    chosen = base.transform_filter("datum.trained")
    outline = chosen.mark_rect(
        cornerRadius=2, fillOpacity=0, stroke="var(--ink)", strokeWidth=1.5
    ).encode(x, y)
    dots = chosen.mark_point(
        shape="circle", filled=True, size=34, opacity=1,
        fill="var(--dot)", stroke="var(--dot-edge)", strokeWidth=1.5,
    ).encode(x, y, tooltip=tips)  # fmt: skip
    return alt.layer(cells, outline, dots).properties(height=len(blocks) * step)


def _levels(
    values: dict[str, float | None],
) -> tuple[dict[str, int], tuple[float | None, float | None], bool]:
    """Sort values into color levels; logarithmic where they span more than two decades.

    Returns:
        Level of each (-1 for a missing value), the lowest and highest value, and whether the
        levels are logarithmic.
    """
    found = [value for value in values.values() if is_finite(value)]
    if not found:
        return dict.fromkeys(values, -1), (None, None), False
    low, high = min(found), max(found)
    is_log = low > 0 and high / low > 100
    to = math.log10 if is_log else float
    width = to(high) - to(low)
    levels = {}
    for name, value in values.items():
        if not is_finite(value):
            levels[name] = -1
        elif width == 0:
            levels[name] = N_LEVELS // 2
        else:
            share = (to(value) - to(low)) / width
            levels[name] = min(N_LEVELS - 1, int(share * N_LEVELS))
    return levels, (low, high), is_log
