"""What the command line shows: layer bars and result tables.

Comes in: the values of the line. Goes out: rich renderables. It computes nothing that the
values do not hold, and prints nothing (``gradloc.cli.main`` does).
"""

import math

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from gradloc.evaluation.results import ArmResult, EvalResult, MetricValue
from gradloc.localization.plan import LayerPlan
from gradloc.localization.profile import GradientProfile
from gradloc.models.unit_info import UnitInfo

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
    return Group(bars, *plan_lines(plan))


def plan_lines(plan: LayerPlan) -> list[Text]:
    """The plan in a few lines: size, predicted cost, how far the ranking can be trusted."""
    lines = [
        Text(
            f"trains {len(plan.trained)} of {len(plan.scale)} units, "
            f"{plan.trainable_fraction:.1%} of the parameters"
        )
    ]
    predicted = plan.predicted
    if predicted.get("time_ratio") is not None:
        lines.append(
            Text(
                f"predicted: {predicted['time_ratio']:.2f} of full training's step time, "
                f"{predicted['memory_ratio']:.2f} of its memory above the weights; "
                f"the backward pass reaches down to block {predicted['lowest_block']}"
            )
        )
    split_half = plan.reliability.get("split_half")
    if split_half is not None:
        lines.append(Text(f"split-half rank correlation of the scores: {split_half:.2f}"))
    if plan.reliability.get("warning"):
        lines.append(Text(f"warning: {plan.reliability['warning']}", style="bold yellow"))
    return lines


def result_table(result: EvalResult) -> Table:
    """Arms as rows, the headline figures as columns, each with its 95 % interval."""
    columns = _headline(result)
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"suite {result.suite}, baseline {result.baseline}",
        caption="\n".join(_caption(result, columns)),
    )
    table.add_column("arm", no_wrap=True)
    for kind, name in columns:
        figure = next(
            getattr(a, kind)[name] for a in result.arms.values() if name in getattr(a, kind)
        )
        arrow = "↑" if figure.higher_is_better else "↓"
        table.add_column(f"{_words(name)} {arrow}\n[dim]{figure.unit}[/dim]", justify="right")
    costs = {name: _costs(arm) for name, arm in result.arms.items()}
    heads = ("trained", "seconds", "peak MiB")
    known = [place for place in range(3) if any(row[place] != "–" for row in costs.values())]
    for place in known:
        table.add_column(heads[place], justify="right")
    for name, arm in result.arms.items():
        cells = [_figure(getattr(arm, kind).get(metric)) for kind, metric in columns]
        table.add_row(name, *cells, *(costs[name][place] for place in known))
    return table


def _caption(result: EvalResult, columns: list[tuple[str, str]]) -> list[str]:
    """How to read the table, and what is not in it."""
    lines = ["95 % intervals in brackets; ↑ higher is better, ↓ lower is better"]
    sizes = [
        f"{_words(name)} {next(getattr(a, kind)[name].n for a in arms)}"
        for kind, name in columns
        if kind != "versus_full"
        for arms in [[a for a in result.arms.values() if name in getattr(a, kind)]]
    ]
    lines.append(f"n: {', '.join(sizes)}")
    shown = {name for _, name in columns}
    more = {name for arm in result.arms.values() for name in arm.scores} - shown
    if more:
        lines.append(f"{len(more)} more measures: --json, or gradloc report")
    asked = result.counts.get("invariant_candidates", 0)
    if result.baseline and asked and not result.counts.get("invariant_screened"):
        lines.append(
            f"no known facts: the baseline has none of {asked} right, so none can be forgotten"
        )
    return lines


def figure_text(figure: MetricValue | None) -> str:
    """A figure as ``value [low, high]``, or a dash."""
    if figure is None or figure.value is None:
        return "–"
    value = _number(figure.value, figure.unit)
    if figure.low is None or figure.high is None:
        return value
    return f"{value} [{_number(figure.low, figure.unit)}, {_number(figure.high, figure.unit)}]"


def _headline(result: EvalResult) -> list[tuple[str, str]]:
    """The few metrics that a table has room for, in the order in which people ask for them."""
    wanted = [
        ("uptake", "new_paraphrase_nll"),
        ("uptake", "new_paraphrase_exact"),
        ("uptake", "updated_prefers_new"),
        ("forgetting", "known_facts"),
        ("forgetting", "general_text"),
        ("versus_full", "uptake_share"),
        ("versus_full", "forgetting_ratio_known_facts"),
        ("versus_full", "forgetting_ratio_general_text"),
    ]
    have = [
        (kind, name)
        for kind, name in wanted
        if any(name in getattr(arm, kind) for arm in result.arms.values())
    ]
    if have:
        return have
    names = list(dict.fromkeys(name for arm in result.arms.values() for name in arm.scores))
    return [("scores", name) for name in names[:7]]


def _figure(figure: MetricValue | None) -> Text:
    head, _, tail = figure_text(figure).partition(" [")
    return Text.assemble((head, "bold"), (f"\n[{tail}" if tail else "", "dim"))


def _costs(arm: ArmResult) -> list[str]:
    return [
        "–" if arm.trainable_fraction is None else f"{arm.trainable_fraction:.1%}",
        "–" if arm.train_seconds is None else f"{arm.train_seconds:,.0f}",
        "–" if arm.peak_rss_mib is None else f"{arm.peak_rss_mib:,.0f}",
    ]


def _number(value: float, unit: str) -> str:
    if unit == "fraction":
        return f"{value:.1%}".replace("-", "−")
    return f"{value:.2f}".replace("-", "−")


def _words(name: str) -> str:
    return name.replace("_nll", " NLL").replace("_", " ")


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
    for block in sorted({unit.block for unit in stack}):
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
