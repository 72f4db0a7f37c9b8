"""A sweep's frontiers as tables for the terminal."""

from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from gradloc.evaluation.results import MetricValue
from gradloc.experiments.sweep.frontier_values import (
    ArmFrontier,
    AtUptake,
    CorpusFrontier,
    Frontier,
)
from gradloc.experiments.sweep.frontiers import find_frontier
from gradloc.experiments.sweep.looks import RANKED_AT, share_text
from gradloc.experiments.sweep.page_tables import verdict
from gradloc.experiments.sweep.sweep_record import SweepRecord
from gradloc.report.formatting import MISSING, interval, metric_label, number


def frontier_table(record: SweepRecord | Frontier | str | Path) -> list[Any]:
    """One table and one sentence a corpus: ratios to the line at 75 % of its best uptake.

    Args:
        record: A sweep's record, its ``sweep.json``, or the frontier found from it.

    Returns:
        Renderables, one below the other.

    Raises:
        GradlocError: As ``find_frontier``.
    """
    frontier = record if isinstance(record, Frontier) else find_frontier(record)
    shown = []
    for name, corpus in frontier.corpora.items():
        shown += [_table(name, corpus, frontier), Text(verdict(corpus, frontier.line))]
        shown += [Text(note, style="dim") for note in corpus.notes]
    return shown


def _table(name: str, corpus: CorpusFrontier, frontier: Frontier) -> Table:
    line = frontier.line
    losses = next(iter(corpus.arms.values())).forgetting
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{frontier.name}, {name}: forgetting / {line}'s at {share_text(RANKED_AT)} of its "
        f"best uptake ({metric_label(frontier.axis)})",
        caption="95 % intervals in brackets; ↑ higher is better, ↓ lower is better; "
        "— not reached or not defined",
    )
    table.add_column("arm", no_wrap=True)
    for loss in losses:
        table.add_column(f"{metric_label(loss)} ↓\n[dim]/ {line}[/dim]", justify="right")
    for head, arrow in (("best uptake", "↑"), ("time", "↓"), ("memory", "↓")):
        table.add_column(f"{head} {arrow}\n[dim]/ {line}[/dim]", justify="right")
    table.add_column("parameters\ntrained", justify="right")
    for arm_name, arm in corpus.arms.items():
        share = arm.trainable_fraction
        table.add_row(
            arm_name,
            *(_judged(_level(arm, loss), line) for loss in losses),
            _text(arm.uptake_share),
            number(arm.time_ratio.value),
            number(arm.memory_ratio.value),
            MISSING if share is None else f"{share:.0%}",
        )
    return table


def _level(arm: ArmFrontier, loss: str) -> AtUptake:
    return next(at for at in arm.forgetting[loss].at_uptake if at.share == RANKED_AT)


def _judged(at: AtUptake, line: str) -> Text:
    """The ratio, green or red where the arm is told apart from the line."""
    style = "green" if line in at.beats else "red" if line in at.loses_to else ""
    return Text(_text(at.ratio), style=style)


def _text(figure: MetricValue) -> str:
    """A figure as ``0.43 [0.41 to 0.45]``."""
    return f"{number(figure.value)} {interval(figure, brackets=True)}".strip()
