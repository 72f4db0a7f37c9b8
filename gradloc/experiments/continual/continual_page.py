"""The page of continual training: score matrices, and curves over the stages."""

from pathlib import Path

from gradloc.evaluation.results import MetricValue
from gradloc.experiments.continual import continual_tables as tables
from gradloc.experiments.continual.continual_figures import (
    ArmFigures,
    ContinualFigures,
    continual_figures,
)
from gradloc.experiments.continual.continual_record import ContinualRecord
from gradloc.report.charts import BETTER, Line, Picture, line_picture
from gradloc.report.formatting import MINUS, MISSING, figure_text, is_finite, number, unit_name
from gradloc.report.heat_map import Tile, heat_spec
from gradloc.report.page import (
    Code,
    Details,
    Notes,
    Page,
    Pictures,
    Section,
    Terms,
    Text,
    environment_rows,
    write_page,
)
from gradloc.report.styles import ArmStyle, assign_styles

PAGE_FILE = "continual.html"
# The name of the model before any stage.
BEFORE = "before"
# Wider matrices have no room for a number in each cell; the table below has them.
_MAX_NUMBERS = 14
# Of more arms than that the matrices are tables alone.
_MAX_MAPS = 4
# Field of ``ArmFigures`` -> heading, whether higher is better, whether the base model has a value.
_CURVES = {
    "current": ("Uptake on the period just trained on", True, False),
    "seen": ("Mean uptake on all periods seen so far", True, False),
    "known_facts": ("Known facts lost", False, True),
    "general_text": ("General text lost", False, True),
}
_TERMS = [
    ("R", "Rᵢⱼ is the uptake on period j after stage i; R₀ⱼ = 0 is the base model; T is the last "
     "stage. The probes of a period count the same, and so do periods."),
    ("Uptake at the end", "mean of R_Tj over all periods trained on"),
    ("Uptake on the way", "mean over stages i of the mean of Rᵢⱼ over j ≤ i (arXiv:1611.07725)"),
    ("Backward transfer", "mean over j < T of R_Tj − Rⱼⱼ; below 0, periods were forgotten "
     "(arXiv:1706.08840)"),
    ("Forward transfer", "mean over j > 1 of R at stage j − 1: what earlier stages give in advance "
     "(arXiv:1706.08840)"),
    ("Forgetting", "mean over j < T of the best Rᵢⱼ of any stage i < T, less R_Tj "
     "(arXiv:1801.10112)"),
    ("Known facts lost", "share of the known facts that the model no longer writes in full"),
    ("General text lost", "nats per token more than the base model needs, texts weighted by their "
     "tokens"),
]  # fmt: skip


def write_continual_page(
    record: ContinualRecord, path: str | Path, *, figures: ContinualFigures | None = None
) -> Path:
    """Write the page.

    Args:
        record: The record; it may be unfinished.
        path: The file.
        figures: The figures, where they have been found from this record already.

    Returns:
        Path of the page.

    Raises:
        GradlocError: The record has no finished stage, or the page cannot be written.
    """
    return write_page(continual_page(record, figures or continual_figures(record)), path)


def continual_page(record: ContinualRecord, figures: ContinualFigures) -> Page:
    """Make the page."""
    arms = figures.arms.items()
    full = [name for name, arm in arms if arm.policy == "all" and not arm.methods]
    styles = assign_styles(list(figures.arms), references=full)
    top = largest_change(figures)
    maps = [
        matrix_picture(f"matrix-{i}", name, figures, top)
        for i, name in enumerate(list(figures.arms)[:_MAX_MAPS])
    ]
    others = [
        Details(name, [tables.matrix_table(figures, arm)]) for name, arm in list(arms)[_MAX_MAPS:]
    ]
    return Page(
        title=figures.name,
        command="continual",
        lead=[Text(_lead(record, figures)), *([Notes(figures.notes)] if figures.notes else [])],
        sections=[
            Section("summary", "After the last stage", [
                tables.summary_table(figures, styles),
                Text(
                    "In nats per token where nothing else is said. Small: 95 % intervals over "
                    "entities and texts, the same resamples for all arms. They say nothing of what "
                    "another seed of the training would give.",
                    "note",
                ),
            ]),
            Section("curves", "Over the stages", [Pictures(curve_pictures(figures, styles))]),
            Section("matrices", "What was gained where", [
                Text(
                    "Log-probability of the answers gained over the base model, nats per token, "
                    "after each stage (down) on the facts of each period (across). The frame marks "
                    "the period just trained on. Below it: what later stages leave of it. Above "
                    "it: what earlier stages give in advance."
                ),
                Pictures(maps),
                *others,
            ]),
            Section("details", "Details", [
                Details("How each arm trains", [tables.training_table(figures)], is_open=True),
                Details("How the figures are defined", [Terms(_TERMS)]),
                *([Details("Command", [Code(record.command)])] if record.command else []),
                Details("Environment", [Terms(environment_rows(record.environment))]),
            ]),
        ],
        source="the record of its stages",
    )  # fmt: skip


def curve_pictures(figures: ContinualFigures, styles: dict[str, ArmStyle]) -> list[Picture]:
    """Uptake, known facts and general text over the stages, one line an arm."""
    pictures = []
    for key, (title, is_gain, has_base) in _CURVES.items():
        lines = [
            Line(name, styles[name], _points(arm, getattr(arm, key), figures, has_base))
            for name, arm in figures.arms.items()
        ]
        units = [figure.unit for line in lines for figure in line.points.values()]
        unit = unit_name(units[0], difference=True) if units else ""
        picture = line_picture(
            f"curve-{key}",
            title,
            lines,
            x_title="After training on",
            y_title=f"{unit} {'gained' if is_gain else 'lost'}",
            direction=BETTER[is_gain],
            places=dict(enumerate([BEFORE, *figures.stages])),
            has_zero=True,
        )
        pictures.append(picture)
    return [picture for picture in pictures if picture is not None]


def matrix_picture(key: str, name: str, figures: ContinualFigures, top: float) -> Picture:
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
    return Picture(
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
        table=tables.matrix_table(figures, arm),
    )


def largest_change(figures: ContinualFigures) -> float:
    """The largest gain or loss of any arm: where the colors of all matrices end."""
    values = [cell.value for arm in figures.arms.values() for row in arm.uptake for cell in row]
    return max((abs(value) for value in values if is_finite(value)), default=0.0) or 1.0


def _lead(record: ContinualRecord, figures: ContinualFigures) -> str:
    layers = "anew each time" if record.measure == "each" else "before the first"
    first = next(iter(figures.arms.values()))
    known, texts = (lost[0].n if lost else 0 for lost in (first.known_facts, first.general_text))
    screened = " that the base model has right" if record.screened else ""
    return (
        f"{record.model} trained on the documents of {len(figures.stages)} {record.by}s, one after "
        f"another, each from the weights of the last, with layers chosen {layers}. After every "
        f"stage all items are scored: {sum(base.n for base in figures.base)} probes on new facts, "
        f"{known} known facts{screened} and {texts} general texts. Every figure is a change "
        "against the base model."
    )


def _points(
    arm: ArmFigures, found: tuple[MetricValue, ...], figures: ContinualFigures, has_base: bool
) -> dict[float, MetricValue]:
    """Figures of one arm over its finished stages; the first stage is at 1."""
    points = {}
    if found and has_base:
        points[0] = MetricValue(0.0, None, None, 0, found[0].unit, False)
    for stage, figure in zip(arm.stages, found, strict=False):
        points[figures.stages.index(stage) + 1] = figure
    return points


def _in_cell(value: float | None) -> str:
    """Two decimals: all cells of a matrix have one scale."""
    if not is_finite(value):
        return MISSING
    return f"{round(value, 2) + 0:.2f}".replace("-", MINUS)
