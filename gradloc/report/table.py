"""The one table of pages, of the terminal and of Markdown."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich import box
from rich import table as rich_tables
from rich.text import Text

from gradloc.evaluation.results import MetricValue
from gradloc.report.formatting import MISSING, by_unit, interval, is_finite
from gradloc.report.styles import ArmStyle

_RICH_TONES = {"better": "green", "worse": "red", "soft": "dim"}


class Cell(NamedTuple):
    """One cell.

    Args:
        text: What stands in it.
        small: What stands small below it, as a rule the interval.
        hint: What a pointer shows.
        tone: ``better``, ``worse`` or ``soft``; empty for plain.
        is_best: Whether it is the best of its column.
    """

    text: str
    small: str = ""
    hint: str = ""
    tone: str = ""
    is_best: bool = False


class Column(NamedTuple):
    """Head of a column.

    Args:
        label: Its words.
        unit: Unit of its numbers.
        group: Head above it and its neighbours of the same group.
        higher_is_better: Direction; ``None`` where neither is better.
        is_text: Whether the terminal aligns it to the left.
    """

    label: str
    unit: str = ""
    group: str = ""
    higher_is_better: bool | None = None
    is_text: bool = False

    @property
    def arrow(self) -> str:
        """The direction as a sign."""
        return {None: "", True: "↑", False: "↓"}[self.higher_is_better]

    @property
    def direction(self) -> str:
        """The direction in words."""
        return {None: "", True: "higher is better", False: "lower is better"}[self.higher_is_better]


class Row(NamedTuple):
    """A row; its first cell is its head.

    Args:
        cells: One for each column; a heading has one alone.
        style: Look of the arm that it is about.
        is_main: Whether to stress it.
    """

    cells: tuple[Cell, ...]
    style: ArmStyle | None = None
    is_main: bool = False


class Table(NamedTuple):
    """A table, ready for a page or the terminal; a row of one cell is a heading."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Heads above the columns and how many columns each spans; empty where there are none."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans if any(name for name, _ in spans) else []

    @property
    def starts(self) -> set[int]:
        """Places of the columns that open a group."""
        heads = [column.group for column in self.columns]
        return {i for i in range(1, len(heads)) if heads[i] and heads[i] != heads[i - 1]}


def make_table(
    columns: Iterable[str | Column], rows: Iterable[Row | Sequence[str | Cell]]
) -> Table:
    """Make a table from texts and cells."""
    return Table(
        tuple(Column(head) if isinstance(head, str) else head for head in columns),
        tuple(row if isinstance(row, Row) else make_row(row) for row in rows),
    )


def make_row(cells: Sequence[str | Cell], style: ArmStyle | None = None, is_main=False) -> Row:
    """Make a row from texts and cells."""
    made = (Cell(cell) if isinstance(cell, str) else cell for cell in cells)
    return Row(tuple(made), style, is_main)


def figure_cell(figure: MetricValue | None, tone: str = "") -> Cell:
    """A figure and its interval, with its note and its n for the pointer."""
    if figure is None:
        return Cell(MISSING)
    if figure.value is None:
        return Cell(MISSING, hint=figure.note, tone="soft")
    hint = " · ".join(
        part for part in (f"n = {figure.n:,}" if figure.n else "", figure.note) if part
    )
    return Cell(by_unit(figure.value, figure.unit), interval(figure), hint, tone)


def mark_best(cells: Sequence[Cell], values: Sequence[float | None], higher: bool) -> list[Cell]:
    """Mark the best cells of a column; none where fewer than two values differ.

    Args:
        cells: The column.
        values: Its numbers; one that is missing or not finite is never the best.
        higher: Whether higher is better.
    """
    found = {value for value in values if is_finite(value)}
    if len(found) < 2:
        return list(cells)
    best = max(found) if higher else min(found)
    return [
        cell._replace(is_best=is_finite(value) and value == best)
        for cell, value in zip(cells, values, strict=True)
    ]


def rich_table(table: Table, title: str = "", caption: str = "") -> rich_tables.Table:
    """The table for the terminal: small text below, the best of a column bold."""
    shown = rich_tables.Table(
        box=box.SIMPLE_HEAD,
        title=title or None,
        caption=caption or None,
        title_justify="left",
        caption_justify="left",
    )
    for place, column in enumerate(table.columns):
        head = Text(f"{column.label} {column.arrow}".strip())
        if column.unit:
            head.append(f"\n{column.unit}", style="dim")
        is_left = not place or column.is_text
        widths = [_width(row.cells[place]) for row in table.rows if row.cells[place:]]
        shown.add_column(
            head,
            justify="left" if is_left else "right",
            no_wrap=not place,
            min_width=None if is_left else max(widths, default=0),
        )
    for row in table.rows:
        style = "bold" if row.is_main else None
        shown.add_row(*(_rich_cell(cell) for cell in row.cells), style=style)
    return shown


def markdown_table(table: Table) -> str:
    """The table as Markdown: small text in brackets, the direction in the head."""
    heads = [
        ", ".join(filter(None, (f"{column.label} {column.arrow}".strip(), column.unit)))
        for column in table.columns
    ]
    rows = [
        [f"{cell.text} [{cell.small}]".strip() if cell.small else cell.text for cell in row.cells]
        for row in table.rows
    ]
    return "\n".join(
        "| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in line) + " |"
        for line in (heads, ["---"] * len(heads), *rows)
    )


def _width(cell: Cell) -> int:
    lines = [*cell.text.splitlines(), *cell.small.splitlines()]
    return max(map(len, lines), default=0)


def _rich_cell(cell: Cell) -> Text:
    text = Text(cell.text, style=_RICH_TONES.get(cell.tone, "bold" if cell.is_best else ""))
    return text.append(f"\n{cell.small}", style="dim") if cell.small else text
