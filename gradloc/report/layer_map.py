"""Where it trained: the score of every unit as a map, and the plan in words."""

import numpy as np

from gradloc.errors import GradlocError
from gradloc.localization.plan import LayerPlan
from gradloc.localization.profile import GradientProfile
from gradloc.models.unit_info import UnitInfo
from gradloc.report.charts import Picture
from gradloc.report.formatting import capitalize, is_finite, number, percent, ranges, span
from gradloc.report.heat_map import Tile, heat_spec
from gradloc.report.table import Cell, make_table

KIND_COLUMNS = {"attention": "Attention", "mlp": "MLP", "block": "Block"}


def layer_maps(profile: GradientProfile | None, plan: LayerPlan | None) -> list[Picture]:
    """The plan's score and the relative gradient norm over blocks and sublayers."""
    units = _units(profile, plan)
    if not any(unit.in_stack for unit in units):
        return []
    pictures = []
    if plan is not None and plan.scores:
        title = capitalize(plan.score_name or "score")
        pictures.append(_layer_map("score", title, units, plan.scores, plan))
    elif plan is not None:
        pictures.append(_layer_map("score", "Share of the learning rate", units, plan.scale, plan))
    if profile is not None:
        title, values = _profile_values(profile)
        if title.lower() != (plan.score_name.lower() if plan else ""):
            pictures.append(_layer_map("rgn", title, units, values, plan))
    return pictures


def plan_words(profile: GradientProfile | None, plan: LayerPlan | None) -> list[tuple[str, str]]:
    """What was chosen, as pairs of a term and its words."""
    if plan is None:
        return []
    units = _units(profile, plan)
    words = [("Policy", plan.policy or "a plan written by hand")]
    words += [(key, str(value)) for key, value in plan.options.items()]
    trained = [unit for unit in units if plan.scale.get(unit.name, 0) > 0]
    for kind, label in (("mlp", "MLP"), ("attention", "Attention"), ("block", "Blocks")):
        if any(unit.kind == kind for unit in units):
            blocks = [unit.block for unit in trained if unit.kind == kind]
            words.append((f"{label} trained", ranges(blocks) or "none"))
    if not units:
        words.append(("Units trained", ", ".join(plan.trained) or "none"))
    else:
        n_stack = sum(unit.in_stack for unit in units)
        words.append(("Units", f"{sum(u.in_stack for u in trained)} of {n_stack} in the blocks"))
        words.append(("Parameters", f"{percent(plan.trainable_fraction)} trained"))
    for unit in units:
        if not unit.in_stack:
            state = "trained" if plan.scale.get(unit.name) else "frozen"
            words.append((unit.name, f"{state}, {unit.n_parameters:,} parameters"))
    for key, label in (("time_ratio", "Predicted time"), ("memory_ratio", "Predicted memory")):
        if isinstance(plan.predicted.get(key), (int, float)):
            words.append((label, f"{number(plan.predicted[key])} × full training"))
    return words


def reliability_text(split_half: float | None) -> str:
    """The split-half correlation in a plain sentence."""
    if not is_finite(split_half):
        return "The split-half rank correlation was not computed."
    if split_half >= 0.7:
        words = "the two halves rank the units much alike"
    elif split_half >= 0.4:
        words = "the two halves agree only in part"
    else:
        words = "the two halves hardly agree: the ranking is mostly noise"
    return (
        "Each half of the measured sequences gives a ranking of its own. Their rank correlation "
        f"is {number(split_half)} (1 is perfect agreement, 0 none): {words}."
    )


def _units(profile: GradientProfile | None, plan: LayerPlan | None) -> tuple[UnitInfo, ...]:
    return (plan.units if plan else ()) or (profile.units if profile else ())


def _profile_values(profile: GradientProfile) -> tuple[str, dict[str, float]]:
    try:
        with np.errstate(divide="ignore", invalid="ignore"):
            title, values = "Relative gradient norm", profile.rgn
    except GradlocError:  # measured without reference text
        title, values = "Gradient norm on probes", profile.probe_norm
    return title, dict(zip(profile.names, map(float, values), strict=True))


def _layer_map(
    key: str,
    title: str,
    units: tuple[UnitInfo, ...],
    values: dict[str, float | None],
    plan: LayerPlan | None,
) -> Picture:
    stack = [unit for unit in units if unit.in_stack]
    bounds = plan.reliability if plan and key == "score" else {}
    tiles, rows = [], []
    for unit in sorted(stack, key=lambda unit: (unit.block, list(KIND_COLUMNS).index(unit.kind))):
        ends = [(bounds.get(end) or {}).get(unit.name) for end in ("low", "high")]
        shown = number(values.get(unit.name))
        small = span(*ends) if all(map(is_finite, ends)) else ""
        state = _state(plan, unit.name)
        text = " · ".join(filter(None, (f"{shown} [{small}]" if small else shown, state)))
        is_trained = state.startswith("trained")
        kind = KIND_COLUMNS[unit.kind]
        label = "●" if is_trained else ""
        tiles.append(Tile(kind, str(unit.block), values.get(unit.name), text, label, is_trained))
        rows.append([unit.name, Cell(shown, small), f"{unit.n_parameters:,}", state])
    scored = [unit for unit in stack if is_finite(values.get(unit.name))]
    best = sorted(scored, key=lambda unit: -values[unit.name])[:5]
    described = ", ".join(f"{unit.name} {number(values[unit.name])}" for unit in best)
    n_blocks = len({unit.block for unit in stack})
    trained = ", ".join(plan.trained) or "none" if plan else ""
    return Picture(
        key=f"layers-{key}",
        title=title,
        description=f"Heat map of {title.lower()} over {n_blocks} blocks. Highest: {described}."
        + (f" Trained units: {trained}." if plan else ""),
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


def _state(plan: LayerPlan | None, unit: str) -> str:
    scale = plan.scale.get(unit, 0) if plan else None
    if scale is None:
        return ""
    if not scale:
        return "frozen"
    return "trained" if scale == 1 else f"trained at × {number(scale)}"
