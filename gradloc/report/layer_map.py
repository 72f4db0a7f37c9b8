"""Where it trained: the score of every unit as a map."""

from collections.abc import Mapping

import numpy as np

from gradloc.localization.plan import LayerPlan
from gradloc.localization.profile import GradientProfile
from gradloc.models.unit_info import UnitInfo
from gradloc.report.charts import Picture
from gradloc.report.formatting import capitalize, is_finite, number, span
from gradloc.report.heat_map import Tile, heat_spec
from gradloc.report.table import Cell, make_table

KIND_COLUMNS = {"attention": "Attention", "mlp": "MLP", "block": "Block"}


def layer_map(profile: GradientProfile | None, plan: LayerPlan | None) -> Picture | None:
    """The plan's score over blocks and sublayers; without scores, the measured gradient norm."""
    units = (plan.units if plan else ()) or (profile.units if profile else ())
    stack = [unit for unit in units if unit.in_stack]
    if not stack:
        return None
    if plan is not None and plan.scores:
        title, values = capitalize(plan.score_name or "score"), plan.scores
    elif profile is None:
        title, values = "Share of the learning rate", plan.scale if plan else {}
    elif profile.reference_norms is None:
        title = "Gradient norm on probes"
        values = dict(zip(profile.names, profile.probe_norm.tolist(), strict=True))
    else:
        title = "Relative gradient norm"
        with np.errstate(divide="ignore", invalid="ignore"):
            values = dict(zip(profile.names, profile.rgn.tolist(), strict=True))
    return _draw(title, stack, values, plan)


def _draw(
    title: str, stack: list[UnitInfo], values: Mapping[str, float], plan: LayerPlan | None
) -> Picture:
    tiles, rows = [], []
    for unit in sorted(stack, key=lambda unit: (unit.block, list(KIND_COLUMNS).index(unit.kind))):
        shown, small, state = number(values.get(unit.name)), _ends(plan, unit), _state(plan, unit)
        text = " · ".join(filter(None, (f"{shown} [{small}]" if small else shown, state)))
        is_trained = state.startswith("trained")
        kind, label = KIND_COLUMNS[unit.kind], "●" if is_trained else ""
        tiles.append(Tile(kind, str(unit.block), values.get(unit.name), text, label, is_trained))
        rows.append([unit.name, Cell(shown, small), f"{unit.n_parameters:,}", state])
    scored = {unit.name: values[unit.name] for unit in stack if is_finite(values.get(unit.name))}
    best = sorted(scored, key=lambda name: -scored[name])[:5]
    described = ", ".join(f"{name} {number(scored[name])}" for name in best)
    n_blocks = len({unit.block for unit in stack})
    trained = f" Trained units: {', '.join(plan.trained) or 'none'}." if plan else ""
    return Picture(
        key="layers",
        title=title,
        description=f"Heat map of {title.lower()} over {n_blocks} blocks. Highest: {described}."
        + trained,
        spec=heat_spec(
            tiles,
            x_title=None,
            y_title="Block",
            row_height=15 if n_blocks <= 40 else 10,
            every=1 if n_blocks <= 12 else 5 if n_blocks <= 60 else 10,
        ),
        table=make_table(["Unit", title, "Parameters", "Plan"], rows),
        direction="● trained" if plan else "",
    )


def _ends(plan: LayerPlan | None, unit: UnitInfo) -> str:
    """The interval of a unit's score, where the plan has one."""
    bounds = plan.reliability if plan and plan.scores else {}
    low, high = ((bounds.get(end) or {}).get(unit.name) for end in ("low", "high"))
    return span(low, high) if is_finite(low) and is_finite(high) else ""


def _state(plan: LayerPlan | None, unit: UnitInfo) -> str:
    scale = plan.scale.get(unit.name, 0) if plan else None
    if scale is None:
        return ""
    if not scale:
        return "frozen"
    return "trained" if scale == 1 else f"trained at × {number(scale)}"
