"""The tables and sentences of a sweep's page, as text."""

from typing import NamedTuple

from gradloc.evaluation.bootstrap import item_mean
from gradloc.evaluation.results import MetricValue
from gradloc.experiments.sweep.frontier_values import ArmFrontier, CorpusFrontier
from gradloc.experiments.sweep.looks import RANKED_AT, share_text
from gradloc.experiments.sweep.sweep_record import RunRecord, SweepRecord
from gradloc.report.formatting import (
    MISSING,
    by_unit,
    duration,
    interval,
    learning_rate,
    metric_label,
    number,
    percent,
    unit_name,
)

# Enough of a reason for a cell of a table; the whole stands in its tooltip.
_SHORT = {
    "takes up": "not reached", "forgets nothing": "no loss to divide by",
    "no finished": "no cells", "not finite": "not finite",
}  # fmt: skip


class Cell(NamedTuple):
    """A cell of a table: text, what stands small below it, and what a pointer shows."""

    text: str
    small: str = ""
    hint: str = ""
    tone: str = ""


class Head(NamedTuple):
    """Head of a column: its words, its direction as an arrow, its group."""

    label: str
    arrow: str
    group: str


def verdict(corpus: CorpusFrontier, line: str) -> str:
    """What the figures of a corpus say, in one sentence made from them.

    For each measure of forgetting: how many arms forget less than the line at 75 % of its best
    uptake, how many more, and the lowest ratio with its interval.
    """
    others = {name: arm for name, arm in corpus.arms.items() if name != line}
    if corpus.best_uptake.value is None or not others:
        return f"Nothing can be compared yet: {corpus.best_uptake.note or 'there is one arm only'}."
    uptake = f"{by_unit(corpus.best_uptake.value, corpus.best_uptake.unit)}"
    unit = unit_name(corpus.best_uptake.unit, difference=True)
    opening = (
        f"At {share_text(RANKED_AT)} of the best uptake of {line} ({uptake} {unit} at rate "
        f"{learning_rate(corpus.best_rate)})"
    )
    measures = next(iter(others.values())).forgetting
    clauses = [_clause(others, loss, line) for loss in measures]
    return f"{opening}: {'; '.join(clauses)}."


def _clause(others: dict[str, ArmFrontier], loss: str, line: str) -> str:
    found = {name: _level(arm, loss) for name, arm in others.items()}
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


def _level(arm: ArmFrontier, loss: str):
    return next(at for at in arm.forgetting[loss].at_uptake if at.share == RANKED_AT)


def quantity_heads(corpus: CorpusFrontier, line: str, loss: str) -> list[Head]:
    """Heads of the table of all quantities, after that of the arm."""
    comparison = next(iter(corpus.arms.values())).forgetting[loss]
    return [
        *(Head(share_text(at.share), "↓", "Forgetting ratio at share of best uptake")
          for at in comparison.at_uptake),
        Head("mean", "↓", "Forgetting ratio at share of best uptake"),
        *(Head(share_text(at.share), "↑", f"Uptake ratio within share of {line}’s forgetting")
          for at in comparison.at_forgetting),
        Head("best uptake", "↑", f"÷ {line}"),
        Head("time", "↓", f"÷ {line}"),
        Head("memory", "↓", f"÷ {line}"),
        Head("beats", "", f"At {share_text(RANKED_AT)}, arms"),
        Head("loses to", "", f"At {share_text(RANKED_AT)}, arms"),
    ]  # fmt: skip


def quantity_row(arm: ArmFrontier, loss: str, *, is_line: bool) -> list[Cell]:
    """All quantities of an arm in one measure of forgetting; those of the line are 1."""
    comparison, at = arm.forgetting[loss], _level(arm, loss)
    ratios = [level.ratio for level in comparison.at_uptake] + [comparison.mean_ratio]
    compared = at.forgetting.value is not None
    judged = [*ratios, *(level.ratio for level in comparison.at_forgetting), arm.uptake_share]
    cells = [_cell(figure, judged=True) for figure in judged]
    cells += [_cell(arm.time_ratio), _cell(arm.memory_ratio)]
    if is_line:
        cells = [
            cell._replace(text="1", small="") if cell.text == "1.00" else cell for cell in cells
        ]
    return [
        *cells,
        Cell(str(len(at.beats)) if compared else MISSING, hint=", ".join(at.beats)),
        Cell(str(len(at.loses_to)) if compared else MISSING, hint=", ".join(at.loses_to)),
    ]


def level_columns(line: str) -> tuple[str, ...]:
    """Heads of the levels behind the ratios."""
    return ("Arm", "Where", "Uptake", "95 % interval", "Forgetting", "95 % interval",
            f"{line} there", "Difference", "95 % interval", "Note")  # fmt: skip


def level_rows(corpus: CorpusFrontier, loss: str) -> list[tuple[str, ...]]:
    """What the ratios are made of, in units."""
    rows = []
    for name, arm in corpus.arms.items():
        for at in arm.forgetting[loss].at_uptake:
            rows.append((
                name, f"{share_text(at.share)} of best uptake",
                by_unit(at.uptake, corpus.best_uptake.unit), "",
                *_pair(at.forgetting), _pair(at.line)[0], *_pair(at.difference),
                at.ratio.note,
            ))  # fmt: skip
        for at in arm.forgetting[loss].at_forgetting:
            unit = arm.forgetting[loss].at_uptake[0].forgetting.unit
            rows.append((
                name, f"within {share_text(at.share)} of forgetting", *_pair(at.uptake),
                f"at most {by_unit(at.level, unit)}", "", "", "", "", at.uptake.note,
            ))  # fmt: skip
    return rows


POINT_COLUMNS = ("Arm", "Learning rate", "Measure", "Change", "95 % interval", "n", "Unit",
                 "÷ line at that uptake", "95 % interval", "Note")  # fmt: skip


def point_rows(corpus: CorpusFrontier) -> list[tuple[str, ...]]:
    """Every arm at every rate, in every measure."""
    return [
        (
            name, learning_rate(point.learning_rate), metric_label(measure), *_pair(found),
            f"{found.n:,}", unit_name(found.unit, difference=True),
            *(_pair(ratio) if (ratio := point.forgetting_ratio.get(measure)) else ("", "")),
            found.note or (ratio.note if ratio else ""),
        )
        for name, arm in corpus.arms.items()
        for point in arm.points
        for measure, found in point.metrics.items()
    ]  # fmt: skip


def matrix_rows(corpus: CorpusFrontier, loss: str) -> list[tuple[str, list[Cell]]]:
    """Row against column at 75 %: ▲ the row forgets less, ▼ more, ≈ not told apart."""
    levels = {name: _level(arm, loss) for name, arm in corpus.arms.items()}
    reached = {name: at for name, at in levels.items() if at.forgetting.value is not None}
    signs = {"less": ("▲", "better"), "more": ("▼", "worse"), "unclear": ("≈", "unclear")}
    rows = []
    for name, at in reached.items():
        cells = []
        for other in reached:
            if other == name:
                cells.append(Cell(""))
                continue
            word = "less" if other in at.beats else "more" if other in at.loses_to else "unclear"
            words = f"{name} against {other}: {word}"
            cells.append(Cell(signs[word][0], hint=words, tone=signs[word][1]))
        rows.append((name, cells))
    return rows


def run_columns(record: SweepRecord) -> list[str]:
    """Heads of the table of all runs."""
    units = {name: m.unit for run in record.runs for name, m in run.metrics.items()}
    heads = ["Corpus", "Arm", "Learning rate", "Seed"]
    heads += [
        f"{metric_label(name)}, {'% points' if unit == 'fraction' else unit}"
        for name, unit in units.items()
    ]
    return [*heads, "Units trained", "Parameters", "Time", "Peak MiB"]


def run_rows(record: SweepRecord) -> list[tuple[str, ...]]:
    """Every run: mean change of each metric, and what it cost."""
    names = dict.fromkeys(name for run in record.runs for name in run.metrics)
    return [
        (
            run.corpus, run.arm, learning_rate(run.learning_rate), str(run.seed),
            *(_mean(run, name) for name in names),
            MISSING if run.n_trained is None else f"{run.n_trained} of {run.n_units}",
            percent(run.trainable_fraction), duration(run.train_seconds),
            MISSING if run.peak_rss_mib is None else f"{run.peak_rss_mib:,.0f}",
        )
        for run in record.runs
    ]  # fmt: skip


def _mean(run: RunRecord, name: str) -> str:
    if (scores := run.metrics.get(name)) is None:
        return MISSING
    mean = float(item_mean(scores.values, scores.weights))
    return number(100 * mean if scores.unit == "fraction" else mean)


def _pair(figure: MetricValue) -> tuple[str, str]:
    return by_unit(figure.value, figure.unit), interval(figure)


def _cell(figure: MetricValue, judged: bool = False) -> Cell:
    if figure.value is None:
        why = next((short for word, short in _SHORT.items() if word in figure.note), "")
        return Cell(MISSING, why, figure.note, "missing")
    tone = _tone(figure) if judged else ""
    return Cell(number(figure.value), interval(figure), figure.note, tone)


def _tone(figure: MetricValue) -> str:
    """Whether the interval of a ratio lies on one side of 1."""
    low = float("-inf") if figure.low is None else figure.low
    high = float("inf") if figure.high is None else figure.high
    if figure.low is None and figure.high is None or low <= 1 <= high:
        return ""
    return "better" if (low > 1) == figure.higher_is_better else "worse"
