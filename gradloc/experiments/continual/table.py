"""The figures as tables for the terminal."""

from typing import Any, NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

from gradloc.evaluation.results import MetricValue
from gradloc.experiments.continual.continual_figures import ArmFigures, ContinualFigures
from gradloc.report.formatting import (
    DASH,
    MISSING,
    by_unit,
    duration,
    interval,
    learning_rate,
    percent,
)

# Name of a measure -> words and arrow.
WORDS = {
    "average_accuracy": ("Uptake at the end", "↑"),
    "average_incremental_accuracy": ("Uptake on the way", "↑"),
    "backward_transfer": ("Backward transfer", "↑"),
    "forward_transfer": ("Forward transfer", "↑"),
    "forgetting": ("Forgetting", "↓"),
    "known_facts": ("Known facts lost, % points", "↓"),
    "general_text": ("General text lost", "↓"),
}


class Cell(NamedTuple):
    """A figure as text, and its interval."""

    text: str
    small: str = ""


def summary_rows(figures: ContinualFigures) -> list[tuple[str, list[Cell]]]:
    """One row an arm: the measures of ``WORDS`` as they are after its last stage."""
    return [
        (name, [_cell(_last(arm, measure)) for measure in WORDS])
        for name, arm in figures.arms.items()
    ]


def matrix_rows(figures: ContinualFigures, arm: ArmFigures) -> list[tuple[str, list[Cell]]]:
    """One row a stage, after that of the base model: uptake on each period."""
    before = ("base, log-probability", [_cell(found) for found in figures.base])
    rows = zip(arm.stages, arm.uptake, strict=True)
    return [before, *((f"after {name}", [_cell(found) for found in row]) for name, row in rows)]


def training_rows(figures: ContinualFigures) -> list[tuple[str, ...]]:
    """How each arm trains."""
    return [
        (
            name,
            arm.policy,
            _methods(arm),
            learning_rate(arm.learning_rate),
            f"{len(arm.stages)} of {len(figures.stages)}",
            f"{_range(arm.n_trained, str)} of {arm.n_units}",
            _range(arm.trainable_fraction, percent),
            duration(arm.train_seconds),
        )
        for name, arm in figures.arms.items()
    ]


TRAINING_COLUMNS = (
    "Arm", "Policy", "Methods", "Learning rate", "Stages", "Units trained", "Parameters trained",
    "Training",
)  # fmt: skip


def continual_tables(figures: ContinualFigures) -> list[Any]:
    """The measures of every arm, and each arm's score matrix.

    Args:
        figures: The figures.

    Returns:
        Renderables, one below the other.
    """
    table = _table(
        f"{figures.name}: after the last stage, against the base model; nats per token",
        "95 % intervals below; ↑ higher is better, ↓ lower is better",
    )
    table.add_column("arm", no_wrap=True)
    for words, arrow in WORDS.values():
        table.add_column(f"{words} {arrow}", justify="right")
    for name, cells in summary_rows(figures):
        table.add_row(name, *(_two_lines(cell) for cell in cells))
    shown: list[Any] = [table]
    for name, arm in figures.arms.items():
        matrix = _table(f"{name}: gained, nats per token ↑", None)
        matrix.add_column("", no_wrap=True)
        for column, base in zip(figures.columns, figures.base, strict=True):
            matrix.add_column(f"{column}\n[dim]n={base.n}[/dim]", justify="right")
        for label, cells in matrix_rows(figures, arm):
            # Intervals of every cell would make the table too wide; the page has them.
            matrix.add_row(label, *(cell.text for cell in cells))
        shown.append(matrix)
    return [*shown, *(Text(note, style="dim") for note in figures.notes)]


def _last(arm: ArmFigures, measure: str) -> MetricValue | None:
    if measure in ("known_facts", "general_text"):
        found = getattr(arm, measure)
        return found[-1] if found else None
    return arm.measures.get(measure)


def _cell(found: MetricValue | None) -> Cell:
    if found is None or found.value is None:
        return Cell(MISSING)
    return Cell(by_unit(found.value, found.unit), interval(found))


def _methods(arm: ArmFigures) -> str:
    return "; ".join(
        f"{name} ({', '.join(f'{key} {value}' for key, value in options.items())})"
        if options
        else name
        for name, options in arm.methods.items()
    )


def _range(values: tuple, text: Any) -> str:
    low, high = text(min(values)), text(max(values))
    return low if low == high else f"{low}{DASH}{high}"


def _two_lines(cell: Cell) -> Text:
    return Text.assemble((cell.text, "bold"), (f"\n{cell.small}" if cell.small else "", "dim"))


def _table(title: str, caption: str | None) -> Table:
    return Table(box=box.SIMPLE_HEAD, title=title, caption=caption, title_justify="left")


def figure_text(found: MetricValue) -> str:
    """A figure as ``0.43 [0.41 to 0.45]``."""
    if found.value is None:
        return MISSING
    return f"{by_unit(found.value, found.unit)} {interval(found, brackets=True)}".strip()
