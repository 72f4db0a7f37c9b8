"""The tables of continual training, for its page and for the terminal."""

from collections.abc import Callable
from typing import Any

from rich.text import Text

from gradloc.evaluation.results import MetricValue
from gradloc.experiments.continual.continual_figures import ArmFigures, ContinualFigures
from gradloc.report.formatting import DASH, arm_methods, duration, learning_rate, percent
from gradloc.report.styles import ArmStyle
from gradloc.report.table import Cell, Column, Table, figure_cell, make_row, make_table, rich_table

# Measure -> its column.
MEASURES = {
    "average_accuracy": Column("Uptake at the end", "", "", True),
    "average_incremental_accuracy": Column("Uptake on the way", "", "", True),
    "backward_transfer": Column("Backward transfer", "", "", True),
    "forward_transfer": Column("Forward transfer", "", "", True),
    "forgetting": Column("Forgetting", "", "", False),
    "known_facts": Column("Known facts lost", "% points", "", False),
    "general_text": Column("General text lost", "", "", False),
}


def continual_tables(figures: ContinualFigures) -> list[Any]:
    """For the terminal: the measures of every arm, and each arm's score matrix."""
    title = f"{figures.name}: after the last stage, against the base model; nats per token"
    caption = "95 % intervals below; ↑ higher is better, ↓ lower is better"
    shown: list[Any] = [rich_table(summary_table(figures), title, caption)]
    for name, arm in figures.arms.items():
        # Intervals of every cell would make the table too wide; the page has them.
        matrix = matrix_table(figures, arm, with_intervals=False)
        shown.append(rich_table(matrix, f"{name}: gained, nats per token ↑"))
    return [*shown, *(Text(note, style="dim") for note in figures.notes)]


def summary_table(figures: ContinualFigures, styles: dict[str, ArmStyle] | None = None) -> Table:
    """One row an arm: its measures after its last stage."""
    rows = [
        make_row(
            [name, *(figure_cell(_last(arm, measure)) for measure in MEASURES)],
            (styles or {}).get(name),
        )
        for name, arm in figures.arms.items()
    ]
    return make_table(["Arm", *MEASURES.values()], rows)


def matrix_table(
    figures: ContinualFigures, arm: ArmFigures, *, with_intervals: bool = True
) -> Table:
    """One row a stage, after that of the base model: uptake on each period."""
    columns = [
        Column(column, f"n={base.n}")
        for column, base in zip(figures.columns, figures.base, strict=True)
    ]
    rows = [["base, log-probability", *map(figure_cell, figures.base)]]
    rows += [
        [f"after {stage}", *map(figure_cell, row)]
        for stage, row in zip(arm.stages, arm.uptake, strict=True)
    ]
    if not with_intervals:
        rows = [[row[0], *(Cell(cell.text) for cell in row[1:])] for row in rows]
    return make_table(["", *columns], rows)


def training_table(figures: ContinualFigures) -> Table:
    """How each arm trains."""
    columns = ["Arm", "Policy", "Methods", "Learning rate", "Stages", "Units trained"]
    columns += ["Parameters trained", "Training"]
    rows = [
        [
            name,
            arm.policy,
            arm_methods(arm.methods),
            learning_rate(arm.learning_rate),
            f"{len(arm.stages)} of {len(figures.stages)}",
            f"{_range(arm.n_trained, str)} of {arm.n_units}",
            _range(arm.trainable_fraction, percent),
            duration(arm.train_seconds),
        ]
        for name, arm in figures.arms.items()
    ]
    return make_table(columns, rows)


def _last(arm: ArmFigures, measure: str) -> MetricValue | None:
    if measure in ("known_facts", "general_text"):
        found = getattr(arm, measure)
        return found[-1] if found else None
    return arm.measures.get(measure)


def _range(values: tuple, text: Callable[[Any], str]) -> str:
    low, high = text(min(values)), text(max(values))
    return low if low == high else f"{low}{DASH}{high}"
