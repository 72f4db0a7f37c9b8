"""The page, tables and sentences of a sweep: every arm's curve beside full training's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text as Line

from gradloc.evaluation.results import MetricValue
from gradloc.experiments.sweep.frontier_curves import UPTAKE_SHARES
from gradloc.experiments.sweep.frontiers import ArmFrontier, CorpusFrontier, Frontier
from gradloc.experiments.sweep.sweep_record import SweepRecord
from gradloc.report import page as blocks
from gradloc.report.charts import Picture
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
)
from gradloc.report.metric_names import metric_label
from gradloc.report.scatter import Model, loss_title, tradeoff_picture
from gradloc.report.styles import N_COLORS, ArmStyle, assign_styles
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
_N_NOTES = 3
# Policies that say what a selection is worth: chance, depth alone, the opposite.
CONTROLS = ("random_k", "last_third_mlp", "top_k", "bottom_k", "inverse", "none")
# Enough of a reason for a cell of a table; the whole stands in its tooltip.
_SHORT = {
    "takes up": "not reached", "forgets nothing": "no loss to divide by",
    "no finished": "not finished", "not finite": "not finite",
}  # fmt: skip


def write_frontier(record: SweepRecord, frontier: Frontier, out: str | Path) -> Path:
    """Write the page of a sweep.

    Args:
        record: The sweep's record; it may be unfinished.
        frontier: Its figures.
        out: The file to write.

    Returns:
        Path of the page.

    Raises:
        GradlocError: The page cannot be written.
    """
    return blocks.write_page(frontier_page(record, frontier), out)


def frontier_page(record: SweepRecord, frontier: Frontier) -> blocks.Page:
    """Make the page."""
    styles = frontier_styles(frontier)
    line = frontier.line
    return blocks.Page(
        title=frontier.name,
        command="sweep",
        lead=[
            blocks.Text(
                "What each arm takes up of new facts and what it forgets for it, from "
                f"{len(record.runs):,} trained models. Each arm was trained at several learning "
                "rates, which gives a curve from the base model on. Arms are compared where they "
                f"take up equally much ({metric_label(frontier.axis)}), with {line} as the line to "
                "compare with."
            ),
            *(
                blocks.Text(f"{name}. {verdict(corpus, line)}", "said")
                for name, corpus in frontier.corpora.items()
            ),
            blocks.Text(
                f"“Less” and “more”: the 95 % interval of the paired difference from {line} "
                "excludes 0. These are many comparisons: of twenty arms no different from it, "
                "about one would seem so.",
                "note",
            ),
        ],
        sections=[
            *(
                blocks.Section(f"corpus-{place}", name, _corpus(place, corpus, frontier, styles))
                for place, (name, corpus) in enumerate(frontier.corpora.items())
            ),
            blocks.Section("reading", "How to read it", [blocks.Terms(_terms(frontier))]),
            blocks.Section("details", "How it was made", _details(record)),
        ],
        source="sweep.json",
    )


def frontier_styles(frontier: Frontier) -> dict[str, ArmStyle]:
    """Arm -> its look, the same on every corpus; the line is gray and dashed.

    A handful of colors can be told apart: they go to the first arms of the record that are no
    controls.
    """
    found = {name: arm for corpus in frontier.corpora.values() for name, arm in corpus.arms.items()}
    names = sorted(found, key=lambda name: name != frontier.line)
    colored = [
        name
        for name in names
        if name != frontier.line and (found[name].policy not in CONTROLS or found[name].methods)
    ]
    quiet = [n for n in names if n != frontier.line and n not in colored[:N_COLORS]]
    return assign_styles(names, references=[frontier.line], quiet=quiet)


def curve_picture(
    key: str, corpus: CorpusFrontier, styles: dict[str, ArmStyle], axis: str, loss: str
) -> Picture | None:
    """Uptake against forgetting, one curve an arm over its learning rates."""
    models = [
        Model(
            name, styles[name], point.metrics[axis], point.metrics[loss],
            learning_rate(point.learning_rate), name, point.on_curve[loss],
        )
        for name, arm in corpus.arms.items()
        for point in arm.points
        if axis in point.metrics and loss in point.metrics
    ]  # fmt: skip
    return tradeoff_picture(key, loss_title(loss), models, axis, loss)


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
        shown += [rich_table(table, title, caption), Line(verdict(corpus, frontier.line))]
        shown += [Line(note, style="dim") for note in corpus.notes]
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
    return f"{opening}: {'; '.join(_clause(others, loss) for loss in measures)}."


def ratio_table(
    corpus: CorpusFrontier,
    line: str,
    styles: Mapping[str, ArmStyle] | None = None,
    shares: Sequence[float] = UPTAKE_SHARES,
) -> Table:
    """Every arm's forgetting / the line's at equal uptake, its best uptake, and its cost.

    Args:
        corpus: The figures of one corpus.
        line: The arm that the others are divided by; its own ratios are 1.
        styles: Looks of the arms.
        shares: Shares of the line's best uptake to compare at.
    """
    columns = [Column("Arm")]
    for loss in next(iter(corpus.arms.values())).forgetting:
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
        levels = [
            at.ratio
            for found in arm.forgetting.values()
            for at in found.at_uptake
            if at.share in shares
        ]
        cells = [
            Cell(name, " + ".join(filter(None, (arm.policy, arm_methods(arm.methods))))),
            *map(_ratio_cell, [*levels, arm.uptake_share]),
            *(Cell(number(x.value), hint=x.note) for x in (arm.time_ratio, arm.memory_ratio)),
            percent(arm.trainable_fraction),
        ]
        rows.append(make_row(cells, (styles or {}).get(name), name == line))
    return make_table(columns, rows)


def _corpus(
    place: int, corpus: CorpusFrontier, frontier: Frontier, styles: dict[str, ArmStyle]
) -> list[Any]:
    first, more = corpus.notes[:_N_NOTES], corpus.notes[_N_NOTES:]
    losses = next(iter(corpus.arms.values())).forgetting
    drawn = [
        curve_picture(f"frontier-{place}-{turn}", corpus, styles, frontier.axis, loss)
        for turn, loss in enumerate(losses)
    ]
    return [
        *([blocks.Notes(first)] if first else []),
        *([blocks.Details(f"{len(more)} more notes", [blocks.Notes(more)])] if more else []),
        ratio_table(corpus, frontier.line, styles),
        *blocks.picture_blocks(drawn),
    ]


def _clause(others: dict[str, ArmFrontier], loss: str) -> str:
    found = {
        name: next(at for at in arm.forgetting[loss].at_uptake if at.share == RANKED_AT)
        for name, arm in others.items()
    }
    reached = {name: at for name, at in found.items() if at.difference.value is not None}
    what = f"on {metric_label(loss)}"
    if not reached:
        return f"{what}, none of {len(found)} arms takes up so much"
    sides = [_side(at.difference, 0.0) for at in reached.values()]
    counts = f"{what}, {sides.count(-1)} of {len(found)} arms forget less and {sides.count(1)} more"
    if len(reached) < len(found):
        counts += f" ({len(found) - len(reached)} do not reach it)"
    ratios = {name: at.ratio.value for name, at in reached.items() if is_finite(at.ratio.value)}
    if not ratios:
        return counts
    best = min(ratios, key=lambda name: ratios[name])
    ends = interval(reached[best].ratio, brackets=True)
    return f"{counts}, lowest {best} at {number(ratios[best])} × {ends}".rstrip()


def _side(figure: MetricValue, middle: float) -> int:
    """On which side of a number the interval lies: -1, 1, or 0 where it holds it or is missing."""
    if figure.high is not None and figure.high < middle:
        return -1
    return 1 if figure.low is not None and figure.low > middle else 0


def _ratio_cell(ratio: MetricValue) -> Cell:
    """A ratio, green or red where its interval lies on one side of 1."""
    if ratio.value is None:
        why = next((short for word, short in _SHORT.items() if word in ratio.note), "")
        return Cell(MISSING, why, ratio.note, "soft")
    side = _side(ratio, 1.0) * (1 if ratio.higher_is_better else -1)
    return figure_cell(ratio, {1: "better", 0: "", -1: "worse"}[side])


def _terms(frontier: Frontier) -> list[tuple[str, str]]:
    line = frontier.line
    return [
        ("Forgetting ratio", f"What the arm forgets at a share of the best uptake of {line} ÷ what "
         f"{line} forgets at the same uptake. Green and red: the interval lies on one side of 1."),
        ("Curve", "Straight from the base model through the rates up to that of the largest "
         "uptake. Hollow points are not part of it, and nothing is extrapolated. Few rates far "
         "apart overstate forgetting: a straight line lies above a curve that bends."),
        ("Intervals", f"95 %, from {frontier.n_bootstrap:,} resamples of the seeds and, within "
         "each, of its entities and texts, the same for all arms. A resample in which an arm does "
         "not take up so much counts as infinite forgetting."),
        ("Time, memory", "Medians over rates of one seed, then over seeds, on one machine."),
        ("Colors", f"The first {N_COLORS} arms that are no controls. Controls are gray: policies "
         f"{', '.join(CONTROLS)} without a method."),
    ]  # fmt: skip


def _details(record: SweepRecord) -> list[Any]:
    return [
        *(blocks.Code(session["command"]) for session in record.sessions if session["command"]),
        *(
            blocks.Details("Versions and machine", [blocks.Terms(rows)])
            for session in record.sessions
            if (rows := blocks.environment_rows(session["environment"]))
        ),
    ]
