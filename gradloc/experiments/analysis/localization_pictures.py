"""The heat maps of a localization analysis.

Comes in: a ``LocalizationAnalysis``. Goes out: ``Picture`` values: units over depth for each
measure, and what each group has above known facts. It computes no figure.
"""

import math

import altair as alt
import numpy as np

from gradloc.experiments.analysis.localization import LocalizationAnalysis
from gradloc.experiments.analysis.localization_figures import TEXT, VARIANTS, Contrast
from gradloc.experiments.analysis.localization_tables import GROUPS, SHORT, units_in_words
from gradloc.report.formatting import number, span
from gradloc.report.layer_maps import KIND_COLUMNS
from gradloc.report.pictures import Picture, fill_spec
from gradloc.report.style import LEVELS, N_LEVELS

ABOVE, BELOW = "var(--arm-1)", "var(--arm-0)"


def profile_pictures(analysis: LocalizationAnalysis) -> list[Picture]:
    """One heat map a measure: each group's values over its mean, so that shapes compare."""
    return [_profiles(analysis, variant) for variant in VARIANTS]


def contrast_pictures(analysis: LocalizationAnalysis, *, centred: bool) -> list[Picture]:
    """One heat map a contrast of facts, in RGN and in its length-matched form."""
    return [
        _contrast(analysis, found)
        for found in analysis.figures.contrasts
        if found.centred == centred and found.variant != "rgn_whole" and found.control != TEXT
    ]


def _profiles(analysis: LocalizationAnalysis, variant: str) -> Picture:
    profiles = {name: found[variant] for name, found in analysis.figures.profiles.items()}
    shapes = {name: found.values / found.values.mean() for name, found in profiles.items()}
    low = min(float(shape.min()) for shape in shapes.values())
    high = max(float(shape.max()) for shape in shapes.values())
    to = math.log10 if high / low > 100 else float
    rows = []
    for name, shape in shapes.items():
        for place, unit in enumerate(analysis.units):
            share = (to(shape[place]) - to(low)) / ((to(high) - to(low)) or 1.0)
            rows.append({
                **_place(unit), "group": GROUPS[name],
                "fill": LEVELS[min(N_LEVELS - 1, int(share * N_LEVELS))],
                "text": f"{number(float(shape[place]))} × mean",
            })  # fmt: skip
    return Picture(
        key=f"profile-{variant.replace('_', '-')}",
        title=SHORT[variant],
        description=(
            f"Heat map of {VARIANTS[variant]} over {len(analysis.units)} units, for "
            + "; ".join(
                f"{GROUPS[name]} facts (largest over mean {number(found.max_over_mean)})"
                for name, found in profiles.items()
            )
        ),
        spec=fill_spec(_chart(rows, [GROUPS[name] for name in profiles])),
        columns=("Unit", *(GROUPS[name] for name in profiles)),
        rows=tuple(
            (unit.name, *(number(float(found.values[place])) for found in profiles.values()))
            for place, unit in enumerate(analysis.units)
        ),
        legend={"low": number(low, 2), "high": number(high, 2), "colors": LEVELS},
    )


def _contrast(analysis: LocalizationAnalysis, found: Contrast) -> Picture:
    against = f"{GROUPS[found.group]} / {GROUPS[found.control]}"
    widest = float(np.abs(found.difference).max()) or 1.0
    rows, table = [], []
    for place, unit in enumerate(analysis.units):
        ends = np.exp([found.low[place], found.high[place]])
        shown = number(math.exp(found.difference[place]))
        text = f"{shown} [{span(*map(float, ends))}]"
        state = "above" if found.above[place] else "below" if found.below[place] else ""
        rows.append({
            **_place(unit), "group": against, "text": text, "state": state,
            "fill": ABOVE if found.difference[place] > 0 else BELOW,
            "strength": 0.08 + 0.92 * abs(float(found.difference[place])) / widest,
        })  # fmt: skip
        table.append((unit.name, shown, span(*map(float, ends)), state))
    beyond = ", beyond the mean factor" if found.centred else ""
    return Picture(
        key=f"{'shape' if found.centred else 'level'}-{found.group}-{found.control}-"
        f"{found.variant.replace('_', '-')}",
        title=f"{SHORT[found.variant]}: {against}",
        description=(
            f"Heat map of the factor by which {SHORT[found.variant]} of {GROUPS[found.group]} "
            f"facts differs from that of {GROUPS[found.control]} facts{beyond}. Above in "
            f"{int(found.above.sum())} units ({units_in_words(analysis, found) or 'none'}), below "
            f"in {int(found.below.sum())}."
        ),
        spec=fill_spec(_chart(rows, [against])),
        columns=("Unit", "Factor", "95 % interval, all units at once", "Distinct"),
        rows=tuple(table),
    )


def _place(unit) -> dict:
    return {
        "unit": unit.name,
        "block": unit.block,
        "kind": KIND_COLUMNS.get(unit.kind, unit.kind),
    }


def _chart(rows: list[dict], groups: list[str]) -> alt.LayerChart:
    """Cells over depth; a dot marks what is distinct."""
    blocks = sorted({row["block"] for row in rows})
    every = 1 if len(blocks) <= 12 else 5 if len(blocks) <= 60 else 10
    step = 15 if len(blocks) <= 40 else 10
    for row in rows:
        row["column"] = f"{row['group']}, {row['kind']}" if len(groups) > 1 else row["kind"]
    kinds = [kind for kind in KIND_COLUMNS.values() if any(row["kind"] == kind for row in rows)]
    order = [f"{group}, {kind}" for group in groups for kind in kinds] if groups[1:] else kinds
    base = alt.Chart(alt.Data(values=rows))
    x = alt.X(
        "column:N", title=None, sort=order,
        scale=alt.Scale(paddingInner=0.04, paddingOuter=0),
        axis=alt.Axis(orient="top", labelAngle=-40 if groups[1:] else 0, domain=False,
                      labelPadding=8, labelLimit=160),
    )  # fmt: skip
    y = alt.Y(
        "block:O", title="Block", scale=alt.Scale(paddingInner=0.14, paddingOuter=0.1),
        axis=alt.Axis(values=[b for b in blocks if b % every == 0], domain=False),
    )  # fmt: skip
    tips = [alt.Tooltip("unit:N"), alt.Tooltip("group:N"), alt.Tooltip("text:N", title="value")]
    cells = base.mark_rect(cornerRadius=2).encode(
        x, y, alt.Color("fill:N", scale=None, legend=None), tooltip=tips
    )
    layers = [cells]
    if "strength" in rows[0]:
        opacity = alt.Opacity("strength:Q", scale=None, legend=None)
        layers = [cells.encode(opacity=opacity)]
        layers.append(
            base.transform_filter("datum.state != ''").mark_point(
                shape="circle", filled=True, size=34, opacity=1,
                fill="var(--dot)", stroke="var(--dot-edge)", strokeWidth=1.5,
            ).encode(x, y, tooltip=tips)
        )  # fmt: skip
    return alt.layer(*layers).properties(height=len(blocks) * step)
