"""What the command line shows: layer bars and tables."""

import math

from rich.console import Group
from rich.table import Table
from rich.text import Text

from gradloc.evaluation.results import EvalResult
from gradloc.localization.plan import LayerPlan
from gradloc.localization.profile import GradientProfile
from gradloc.models.unit_info import UnitInfo
from gradloc.report import result_tables
from gradloc.report.arms import arm_styles, main_arm
from gradloc.report.headline import judge
from gradloc.report.plan_tables import plan_words
from gradloc.report.table import rich_table

BAR_WIDTH = 16
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def profile_table(profile: GradientProfile) -> Group:
    """A profile as bars: what each unit's step buys per disturbance, and its relative norm."""
    if profile.reference_norms is None:
        columns = {"probe gradient norm": dict(zip(profile.names, profile.probe_norm, strict=True))}
    else:
        columns = {
            "interference ratio": dict(zip(profile.names, profile.interference_ratio, strict=True)),
            "relative gradient norm": dict(zip(profile.names, profile.rgn, strict=True)),
        }
    n_reference = 0 if profile.reference_norms is None else len(profile.reference_norms)
    title = (
        f"{profile.model or 'model'}: "
        f"{len(profile.probe_norms)} probe and {n_reference} reference sequences"
    )
    return Group(
        *(
            _block_bars(profile.units, values, f"{title}\n{name}", set())
            for name, values in columns.items()
        )
    )


def plan_table(plan: LayerPlan) -> Group:
    """A plan as bars of its scores, trained units marked, with what it costs."""
    trained = set(plan.trained)
    values = plan.scores or {name: float(value) for name, value in plan.scale.items()}
    name = plan.score_name or "learning-rate scale"
    bars = _block_bars(plan.units, values, f"policy {plan.policy}: {name}  (● trained)", trained)
    lines = (
        Text(f"{term}: {words}", style="bold yellow" if term == "Warning" else "")
        for term, words in plan_words(plan)
    )
    return Group(bars, *lines)


def result_table(result: EvalResult) -> Group:
    """Arms as rows, the main figures as columns, each with its 95 % interval."""
    arms = list(result.arms)
    table = result_tables.results_table(result, arm_styles(result), arms)
    title = f"suite {result.suite}, baseline {result.baseline}"
    headline = judge(result, main_arm(result, []))
    said = Text.assemble((f"{headline.arm}. ", "bold"), headline.text)
    return Group(rich_table(table, title, "\n".join(_caption(result))), said)


def _caption(result: EvalResult) -> list[str]:
    """How to read the table, and what is not in it."""
    lines = ["95 % intervals below; ↑ higher is better, ↓ lower is better"]
    n_more = len({name for arm in result.arms.values() for name in arm.scores})
    lines.append(f"all {n_more} measures: --json, or gradloc report")
    asked = result.counts.get("invariant_candidates", 0)
    if result.baseline and asked and not result.counts.get("invariant_screened"):
        lines.append(
            f"no known facts: the baseline has none of {asked} right, so none can be forgotten"
        )
    return lines


def _block_bars(
    units: tuple[UnitInfo, ...], values: dict[str, float], title: str, trained: set[str]
) -> Table:
    """One row a block, one bar a sublayer; units outside the stack below, without bars."""
    table = Table(box=None, title=title, title_justify="left", padding=(0, 1), pad_edge=False)
    stack = [unit for unit in units if unit.in_stack]
    kinds = list(dict.fromkeys(unit.kind for unit in stack))
    table.add_column("block", justify="right", style="dim")
    for kind in kinds:
        table.add_column(kind, no_wrap=True)
    bar = _bar_scale([values[unit.name] for unit in stack])
    for block in sorted({unit.block for unit in stack if unit.block is not None}):
        cells = []
        for kind in kinds:
            cell = Text()
            for unit in stack:
                if (unit.block, unit.kind) == (block, kind):
                    mark = "●" if unit.name in trained else " "
                    style = "green" if unit.name in trained else "blue" if not trained else "dim"
                    cell.append(
                        f"{mark} {bar(values[unit.name])} {values[unit.name]:9.3g}  ", style=style
                    )
            cells.append(cell)
        table.add_row(str(block), *cells)
    outside = [unit for unit in units if not unit.in_stack]
    if outside:
        listed = ", ".join(f"{u.name} {values[u.name]:.3g}" for u in outside)
        table.caption = f"outside the blocks: {listed}"
        table.caption_justify = "left"
    return table


def _bar_scale(values: list[float]):
    """Value -> bar of fixed width; logarithmic where values span more than two decades."""
    finite = [value for value in values if math.isfinite(value) and value > 0]
    top, bottom = max(finite, default=1.0), min(finite, default=1.0)
    logarithmic = top / bottom > 100

    def bar(value: float) -> str:
        if not math.isfinite(value) or value <= 0:
            share = 0.0
        elif logarithmic:
            share = 0.02 + 0.98 * math.log(value / bottom) / math.log(top / bottom)
        else:
            share = value / top
        eighths = round(min(1.0, share) * BAR_WIDTH * 8)
        whole, rest = divmod(eighths, 8)
        return ("█" * whole + (_EIGHTHS[rest] if rest else "")).ljust(BAR_WIDTH)

    return bar
