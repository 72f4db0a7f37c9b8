"""The tables and sentences of a sweep, for its page and for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from gradloc.evaluation.results import MetricValue
from gradloc.experiments.sweep.frontier_values import (
    ArmFrontier,
    AtUptake,
    CorpusFrontier,
    Frontier,
)
from gradloc.report.formatting import (
    MISSING,
    arm_methods,
    interval,
    is_finite,
    learning_rate,
    number,
    percent,
    share_text,
    size_text,
    unit_name,
)
from gradloc.report.metric_names import metric_label
from gradloc.report.styles import ArmStyle
from gradloc.report.table import (
    Cell,
    Column,
    Table,
    figure_cell,
    make_row,
    make_table,
    rich_table,
)

RANKED_AT = 0.75  # share of the line's best uptake
# Enough of a reason for a cell of a table; the whole stands in its tooltip.
_SHORT = {
    "takes up": "not reached", "forgets nothing": "no loss to divide by",
    "no finished": "not finished", "not finite": "not finite",
}  # fmt: skip


def frontier_tables(frontier: Frontier) -> list[Any]:
    """For the terminal: one table and one sentence a corpus, ratios to full training's line."""
    shown = []
    for name, corpus in frontier.corpora.items():
        title = (
            f"{frontier.name}, {name}: forgetting / {frontier.line}'s at {share_text(RANKED_AT)} "
            f"of its best uptake ({metric_label(frontier.axis)})"
        )
        caption = "95 % intervals below; ↑ higher is better, ↓ lower is better"
        table = ratio_table(corpus, frontier.line, shares=(RANKED_AT,))
        shown += [rich_table(table, title, caption), Text(verdict(corpus, frontier.line))]
        shown += [Text(note, style="dim") for note in corpus.notes]
    return shown


def verdict(corpus: CorpusFrontier, line: str) -> str:
    """What the figures of a corpus say, in one sentence made from them.

    For each measure of forgetting: how many arms forget less than the line at 75 % of its best
    uptake, how many more, and the lowest ratio with its interval.
    """
    others = {name: arm for name, arm in corpus.arms.items() if name != line}
    best = corpus.best_uptake
    if best.value is None or not others:
        return f"Nothing can be compared yet: {best.note or 'there is one arm only'}."
    opening = (
        f"At {share_text(RANKED_AT)} of the best uptake of {line} "
        f"({size_text(best.value, best.unit)} at rate {learning_rate(corpus.best_rate)})"
    )
    measures = next(iter(others.values())).forgetting
    clauses = [_clause(others, loss, line) for loss in measures]
    return f"{opening}: {'; '.join(clauses)}."


def ratio_table(
    corpus: CorpusFrontier,
    line: str,
    styles: Mapping[str, ArmStyle] | None = None,
    shares: Sequence[float] = (0.5, 0.75, 0.9),
) -> Table:
    """Every arm's forgetting / the line's at equal uptake, its best uptake, and its cost.

    Args:
        corpus: The figures of one corpus.
        line: The arm that the others are divided by; its own ratios are 1.
        styles: Looks of the arms.
        shares: Shares of the line's best uptake to compare at.
    """
    losses = list(next(iter(corpus.arms.values())).forgetting)
    columns = [Column("Arm")]
    for loss in losses:
        group = f"Forgetting, {metric_label(loss)}"
        columns += [Column(f"at {share_text(at)}", "", group, False) for at in shares]
    columns += [
        Column("best uptake", "", f"÷ {line}", True),
        Column("time", "", f"÷ {line}", False),
        Column("memory", "", f"÷ {line}", False),
        Column("parameters", "trained", "Cost"),
    ]
    rows = []
    for name, arm in corpus.arms.items():
        levels = [at.ratio for loss in losses for at in _levels(arm, loss, shares)]
        cells = [
            Cell(name, " + ".join(filter(None, (arm.policy, arm_methods(arm.methods))))),
            *map(_ratio_cell, [*levels, arm.uptake_share]),
            *(
                Cell(number(cost.value), hint=cost.note)
                for cost in (arm.time_ratio, arm.memory_ratio)
            ),
            percent(arm.trainable_fraction),
        ]
        rows.append(make_row(cells, (styles or {}).get(name), name == line))
    return make_table(columns, rows)


def point_table(corpus: CorpusFrontier) -> Table:
    """Every arm at every rate, in every measure."""
    columns = ["Arm", "Learning rate", "Measure", "Change", "Unit", "÷ line at that uptake", "Note"]
    rows = []
    for name, arm in corpus.arms.items():
        for point in arm.points:
            for measure, found in point.metrics.items():
                ratio = point.forgetting_ratio.get(measure)
                rows.append([
                    name, learning_rate(point.learning_rate), metric_label(measure),
                    figure_cell(found), unit_name(found.unit, difference=True),
                    figure_cell(ratio) if ratio else "",
                    found.note or (ratio.note if ratio else ""),
                ])  # fmt: skip
    return make_table(columns, rows)


def ranked_level(arm: ArmFrontier, loss: str) -> AtUptake:
    """The level at which arms are ranked: 75 % of the line's best uptake."""
    return _levels(arm, loss, (RANKED_AT,))[0]


def _levels(arm: ArmFrontier, loss: str, shares: Sequence[float]) -> list[AtUptake]:
    return [at for at in arm.forgetting[loss].at_uptake if at.share in shares]


def _clause(others: dict[str, ArmFrontier], loss: str, line: str) -> str:
    found = {name: ranked_level(arm, loss) for name, arm in others.items()}
    reached = {name: at for name, at in found.items() if at.forgetting.value is not None}
    what = f"on {metric_label(loss)}"
    if not reached:
        return f"{what}, none of {len(found)} arms takes up so much"
    less = [name for name, at in reached.items() if line in at.beats]
    more = [name for name, at in reached.items() if line in at.loses_to]
    counts = f"{what}, {len(less)} of {len(found)} arms forget less and {len(more)} more"
    if len(reached) < len(found):
        counts += f" ({len(found) - len(reached)} do not reach it)"
    ratios = {name: at.ratio.value for name, at in reached.items() if is_finite(at.ratio.value)}
    if not ratios:
        return counts
    best = min(ratios, key=lambda name: ratios[name])
    ends = interval(reached[best].ratio, brackets=True)
    return f"{counts}, lowest {best} at {number(ratios[best])} × {ends}".rstrip()


def _ratio_cell(ratio: MetricValue) -> Cell:
    """A ratio, green or red where its interval lies on one side of 1."""
    if ratio.value is None:
        why = next((short for word, short in _SHORT.items() if word in ratio.note), "")
        return Cell(MISSING, why, ratio.note, "soft")
    low = float("-inf") if ratio.low is None else ratio.low
    high = float("inf") if ratio.high is None else ratio.high
    tone = ""
    if (low > 1 or high < 1) and (ratio.low, ratio.high) != (None, None):
        tone = "better" if (low > 1) == ratio.higher_is_better else "worse"
    return figure_cell(ratio, tone)
