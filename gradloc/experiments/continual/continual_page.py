"""The page and tables of continual training: score matrices, and curves over the stages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.text import Text as Line

from gradloc.evaluation.results import MetricValue
from gradloc.experiments.continual.continual_figures import LOSSES, ArmFigures, ContinualFigures
from gradloc.experiments.continual.continual_record import ContinualRecord
from gradloc.report import charts
from gradloc.report import page as blocks
from gradloc.report.formatting import (
    DASH,
    MINUS,
    MISSING,
    arm_methods,
    duration,
    figure_text,
    is_finite,
    learning_rate,
    number,
    percent,
    unit_name,
)
from gradloc.report.heat_map import Tile, heat_spec
from gradloc.report.styles import ArmStyle, assign_styles
from gradloc.report.table import Cell, Column, Table, figure_cell, make_row, make_table, rich_table

# The name of the model before any stage.
BEFORE = "before"
# Wider matrices have no room for a number in each cell; the table below has them.
_MAX_NUMBERS = 14
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
# Curve -> its heading.
_CURVES = {
    "current": "Uptake on the period just trained on",
    "seen": "Mean uptake on all periods seen so far",
    "known_facts": "Known facts lost",
    "general_text": "General text lost",
}
_TERMS = [
    ("Uptake", "R of stage i on period j, the base model's being 0. At the end: mean of the last "
     "row. On the way: mean over stages of the mean over periods seen so far (arXiv:1611.07725)."),
    ("Backward transfer", "last row less the diagonal, mean over all periods but the last; below "
     "0, periods were forgotten. Forward transfer: the row before the diagonal, what earlier "
     "stages give in advance (arXiv:1706.08840)."),
    ("Forgetting", "best earlier R of a period less its last (arXiv:1801.10112)"),
]  # fmt: skip


def write_continual_page(
    record: ContinualRecord, figures: ContinualFigures, out: str | Path
) -> Path:
    """Write the page.

    Args:
        record: The record; it may be unfinished.
        figures: Its figures.
        out: The file to write.

    Returns:
        Path of the page.

    Raises:
        GradlocError: The page cannot be written.
    """
    return blocks.write_page(continual_page(record, figures), out)


def continual_page(record: ContinualRecord, figures: ContinualFigures) -> blocks.Page:
    """Make the page."""
    full = [name for name, arm in record.arms.items() if arm.policy == "all" and not arm.methods]
    styles = assign_styles(list(figures.arms), references=full)
    top = largest_change(figures)
    maps = [
        matrix_picture(f"matrix-{place}", name, figures, top)
        for place, name in enumerate(figures.arms)
    ]
    return blocks.Page(
        title=figures.name,
        command="continual",
        lead=[
            blocks.Text(_lead(record, figures)),
            *([blocks.Notes(figures.notes)] if figures.notes else []),
        ],
        sections=[
            blocks.Section("summary", "After the last stage", [
                summary_table(figures, styles),
                blocks.Text(
                    "In nats per token where nothing else is said. Small: 95 % intervals over "
                    "entities and texts, the same resamples for all arms. They say nothing of what "
                    "another seed of the training would give.",
                    "note",
                ),
            ]),
            blocks.Section(
                "curves", "Over the stages", [blocks.Pictures(curve_pictures(figures, styles))]
            ),
            blocks.Section("matrices", "What was gained where", [
                blocks.Text(
                    "Log-probability of the answers gained over the base model, nats per token, "
                    "after each stage (down) on the facts of each period (across). The frame marks "
                    "the period just trained on. Below it: what later stages leave of it. Above "
                    "it: what earlier stages give in advance."
                ),
                blocks.Pictures(maps),
            ]),
            blocks.Section("details", "Details", [
                blocks.Details("How each arm trains", [training_table(record)], is_open=True),
                blocks.Details("How the figures are defined", [blocks.Terms(_TERMS)]),
                *([blocks.Code(record.command)] if record.command else []),
                blocks.Details("Versions and machine", [
                    blocks.Terms(blocks.environment_rows(record.environment))
                ]),
            ]),
        ],
        source="the record of its stages",
    )  # fmt: skip


def curve_pictures(figures: ContinualFigures, styles: dict[str, ArmStyle]) -> list[charts.Picture]:
    """Uptake, known facts and general text over the stages, one line an arm."""
    pictures = []
    for key, title in _CURVES.items():
        is_gain = key not in LOSSES
        lines = [
            charts.Line(name, styles[name], _points(arm, key, figures))
            for name, arm in figures.arms.items()
        ]
        units = [figure.unit for line in lines for figure in line.points.values()]
        unit = unit_name(units[0], difference=True) if units else ""
        picture = charts.line_picture(
            f"curve-{key}",
            title,
            lines,
            x_title="After training on",
            y_title=f"{unit} {'gained' if is_gain else 'lost'}",
            direction=charts.BETTER[is_gain],
            places=dict(enumerate([BEFORE, *figures.stages])),
            has_zero=True,
        )
        pictures.append(picture)
    return [picture for picture in pictures if picture is not None]


def matrix_picture(key: str, name: str, figures: ContinualFigures, top: float) -> charts.Picture:
    """Uptake of one arm on every period after every stage.

    Args:
        key: Unique name within the page.
        name: The arm.
        figures: The figures.
        top: The change at which the colors end, the same for all arms.
    """
    arm = figures.arms[name]
    has_numbers = len(figures.columns) <= _MAX_NUMBERS
    tiles = [
        Tile(column, BEFORE, 0.0, f"0 (log-probability {number(base.value)})", "0" * has_numbers)
        for column, base in zip(figures.columns, figures.base, strict=True)
    ]
    for stage, row in zip(arm.stages, arm.uptake, strict=True):
        for column, cell in zip(figures.columns, row, strict=True):
            label = _in_cell(cell.value) if has_numbers else ""
            tiles.append(Tile(column, stage, cell.value, figure_text(cell), label, stage == column))
    last = zip(figures.columns, arm.uptake[-1], strict=True)
    described = ", ".join(f"{column} {number(cell.value)}" for column, cell in last)
    return charts.Picture(
        key=key,
        title=name,
        description=f"Heat map of what {name} gained on each period, in nats per token, one row a "
        f"stage. After the last stage, {arm.stages[-1]}: {described}.",
        spec=heat_spec(
            tiles,
            x_title="Evaluated on the facts of",
            y_title="After training on",
            row_height=28,
            is_change=True,
            top=top,
        ),
        table=matrix_table(figures, arm),
    )


def largest_change(figures: ContinualFigures) -> float:
    """The largest gain or loss of any arm: where the colors of all matrices end."""
    values = [cell.value for arm in figures.arms.values() for row in arm.uptake for cell in row]
    return max((abs(value) for value in values if is_finite(value)), default=0.0) or 1.0


def continual_tables(figures: ContinualFigures) -> list[Any]:
    """For the terminal: the measures of every arm, and each arm's score matrix."""
    title = f"{figures.name}: after the last stage, against the base model; nats per token"
    caption = "95 % intervals below; ↑ higher is better, ↓ lower is better"
    shown: list[Any] = [rich_table(summary_table(figures), title, caption)]
    for name, arm in figures.arms.items():
        # Intervals of every cell would make the table too wide; the page has them.
        matrix = matrix_table(figures, arm, with_intervals=False)
        shown.append(rich_table(matrix, f"{name}: gained, nats per token ↑"))
    return [*shown, *(Line(note, style="dim") for note in figures.notes)]


def summary_table(figures: ContinualFigures, styles: Mapping[str, ArmStyle] | None = None) -> Table:
    """One row an arm: its measures after its last stage."""
    rows = [
        make_row(
            [name, *(figure_cell(arm.measures.get(measure)) for measure in MEASURES)],
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


def training_table(record: ContinualRecord) -> Table:
    """How each arm trains."""
    columns = ["Arm", "Policy", "Methods", "Learning rate", "Stages", "Parameters trained", "Time"]
    rows = []
    for name, arm in record.arms.items():
        shares = sorted(stage.trainable_fraction for stage in arm.stages)
        ends = dict.fromkeys(percent(share) for share in (shares[0], shares[-1]))
        rows.append([
            name, arm.policy, arm_methods(arm.methods), learning_rate(arm.learning_rate),
            f"{len(arm.stages)} of {len(record.stages)}", DASH.join(ends),
            duration(sum(stage.train_seconds for stage in arm.stages)),
        ])  # fmt: skip
    return make_table(columns, rows)


def _lead(record: ContinualRecord, figures: ContinualFigures) -> str:
    layers = "anew each time" if record.measure == "each" else "before the first"
    first = next(iter(figures.arms.values())).curves
    known, texts = (first[metric][0].n if metric in first else 0 for metric in LOSSES)
    screened = " that the base model has right" if record.screened else ""
    return (
        f"{record.model} trained on the documents of {len(figures.stages)} {record.by}s, one after "
        f"another, each from the weights of the last, with layers chosen {layers}. After every "
        f"stage all items are scored: {sum(base.n for base in figures.base)} probes on new facts, "
        f"{known} known facts{screened} and {texts} general texts. Every figure is a change "
        "against the base model."
    )


def _points(arm: ArmFigures, key: str, figures: ContinualFigures) -> dict[float, MetricValue]:
    """A curve of one arm over its finished stages; the first stage is at 1."""
    found = arm.curves.get(key, ())
    points = {}
    if found and key in LOSSES:
        points[0] = MetricValue(0.0, None, None, 0, found[0].unit, False)
    for stage, figure in zip(arm.stages, found, strict=False):
        points[figures.stages.index(stage) + 1] = figure
    return points


def _in_cell(value: float | None) -> str:
    """Two decimals: all cells of a matrix have one scale."""
    if not is_finite(value):
        return MISSING
    return f"{round(value, 2) + 0:.2f}".replace("-", MINUS)
