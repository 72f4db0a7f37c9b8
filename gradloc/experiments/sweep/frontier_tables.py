"""The tables and sentences of a sweep, for its page and for the terminal."""

from typing import Any

from rich.text import Text

from gradloc.evaluation.bootstrap import item_mean
from gradloc.evaluation.results import MetricValue
from gradloc.experiments.sweep.frontier_values import (
    ArmFrontier,
    AtUptake,
    CorpusFrontier,
    Frontier,
)
from gradloc.experiments.sweep.sweep_record import RunRecord, SweepRecord
from gradloc.report.formatting import (
    DASH,
    MISSING,
    arm_methods,
    by_unit,
    duration,
    interval,
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
        shown += [rich_table(_short_table(corpus, frontier.line), title, caption)]
        shown += [Text(verdict(corpus, frontier.line))]
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


def quantity_table(
    corpus: CorpusFrontier, line: str, loss: str, styles: dict[str, ArmStyle]
) -> Table:
    """Every arm's ratios to the line in one measure of forgetting; those of the line are 1."""
    first = next(iter(corpus.arms.values())).forgetting[loss]
    at_uptake = "Forgetting ratio at share of best uptake"
    at_forgetting = f"Uptake ratio within share of {line}’s forgetting"
    ranked = f"At {share_text(RANKED_AT)}, arms"
    columns = [
        Column("Arm"),
        *(Column(share_text(at.share), "", at_uptake, False) for at in first.at_uptake),
        Column("mean", "", at_uptake, False),
        *(Column(share_text(at.share), "", at_forgetting, True) for at in first.at_forgetting),
        Column("best uptake", "", f"÷ {line}", True),
        Column("time", "", f"÷ {line}", False),
        Column("memory", "", f"÷ {line}", False),
        Column("beats", "", ranked),
        Column("loses to", "", ranked),
    ]
    rows = [
        make_row([name, *_quantities(arm, loss)], styles[name], name == line)
        for name, arm in corpus.arms.items()
    ]
    return make_table(columns, rows)


def level_table(corpus: CorpusFrontier, line: str, loss: str) -> Table:
    """What the ratios are made of, in units."""
    columns = ["Arm", "Where", "Uptake", "Forgetting", f"{line} there", "Difference", "Note"]
    rows = []
    for name, arm in corpus.arms.items():
        for at in arm.forgetting[loss].at_uptake:
            uptake = by_unit(at.uptake, corpus.best_uptake.unit)
            figures = (figure_cell(found) for found in (at.forgetting, at.line, at.difference))
            where = f"{share_text(at.share)} of best uptake"
            rows.append([name, where, uptake, *figures, at.ratio.note])
        for at in arm.forgetting[loss].at_forgetting:
            most = f"at most {by_unit(at.level, arm.forgetting[loss].at_uptake[0].forgetting.unit)}"
            where = f"within {share_text(at.share)} of forgetting"
            rows.append([name, where, figure_cell(at.uptake), most, "", "", at.uptake.note])
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


def run_table(record: SweepRecord) -> Table:
    """Every run: mean change of each measure, and what it cost."""
    units = {name: m.unit for run in record.runs for name, m in run.metrics.items()}
    measures = [
        Column(metric_label(name), "% points" if unit == "fraction" else unit)
        for name, unit in units.items()
    ]
    columns = ["Corpus", "Arm", "Learning rate", "Seed", *measures]
    columns += ["Units trained", "Parameters", "Time", "Peak MiB"]
    rows = [
        [
            run.corpus, run.arm, learning_rate(run.learning_rate), str(run.seed),
            *(_mean(run, name) for name in units),
            MISSING if run.n_trained is None else f"{run.n_trained} of {run.n_units}",
            percent(run.trainable_fraction), duration(run.train_seconds),
            MISSING if run.peak_rss_mib is None else f"{run.peak_rss_mib:,.0f}",
        ]
        for run in record.runs
    ]  # fmt: skip
    return make_table(columns, rows)


def arm_table(frontier: Frontier) -> Table:
    """What each arm is: policy, methods, size."""
    columns = ["Arm", "Policy", "Methods", "Units trained", "Parameters trained", "Learning rates"]
    arms: dict[str, ArmFrontier] = {}
    for corpus in frontier.corpora.values():
        arms = {**corpus.arms, **arms}
    rows = []
    for name, arm in arms.items():
        trained = MISSING
        if arm.n_trained is not None:
            low, high = arm.n_trained
            trained = f"{low if low == high else f'{low}{DASH}{high}'} of {arm.n_units}"
        rates = ", ".join(learning_rate(point.learning_rate) for point in arm.points)
        fraction = percent(arm.trainable_fraction)
        rows.append(
            [name, arm.policy, arm_methods(arm.methods) or "none", trained, fraction, rates]
        )
    return make_table(columns, rows)


def ranked_level(arm: ArmFrontier, loss: str) -> AtUptake:
    """The level at which arms are ranked: 75 % of the line's best uptake."""
    return next(at for at in arm.forgetting[loss].at_uptake if at.share == RANKED_AT)


def _short_table(corpus: CorpusFrontier, line: str) -> Table:
    losses = list(next(iter(corpus.arms.values())).forgetting)
    columns = [
        Column("arm"),
        *(Column(metric_label(loss), f"/ {line}", "", False) for loss in losses),
        Column("best uptake", f"/ {line}", "", True),
        Column("time", f"/ {line}", "", False),
        Column("memory", f"/ {line}", "", False),
        Column("parameters trained"),
    ]
    rows = [
        [
            name,
            *(_ratio_cell(ranked_level(arm, loss).ratio) for loss in losses),
            _ratio_cell(arm.uptake_share),
            number(arm.time_ratio.value),
            number(arm.memory_ratio.value),
            percent(arm.trainable_fraction),
        ]
        for name, arm in corpus.arms.items()
    ]
    return make_table(columns, rows)


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
    ratios = {name: at.ratio for name, at in reached.items() if at.ratio.value is not None}
    if not ratios:
        return counts
    best = min(ratios, key=lambda name: ratios[name].value)
    ends = interval(ratios[best], brackets=True)
    return f"{counts}, lowest {best} at {number(ratios[best].value)} × {ends}".rstrip()


def _quantities(arm: ArmFrontier, loss: str) -> list[Cell]:
    comparison, at = arm.forgetting[loss], ranked_level(arm, loss)
    ratios = [level.ratio for level in comparison.at_uptake] + [comparison.mean_ratio]
    ratios += [level.ratio for level in comparison.at_forgetting] + [arm.uptake_share]
    costs = [
        Cell(number(cost.value), hint=cost.note) for cost in (arm.time_ratio, arm.memory_ratio)
    ]
    compared = at.forgetting.value is not None
    counts = [
        Cell(str(len(names)) if compared else MISSING, hint=", ".join(names))
        for names in (at.beats, at.loses_to)
    ]
    return [*map(_ratio_cell, ratios), *costs, *counts]


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


def _mean(run: RunRecord, name: str) -> str:
    if (scores := run.metrics.get(name)) is None:
        return MISSING
    mean = float(item_mean(scores.values, scores.weights))
    return number(100 * mean if scores.unit == "fraction" else mean)
