"""The headline table: what each arm took up, what it forgot, and what it cost.

Comes in: an ``EvalResult``. Goes out: columns and rows of text, ready for a template. It escapes
nothing: the template does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gradloc.evaluation.results import ArmResult, EvalResult, MetricValue
from gradloc.report.changes import change_panels, main_losses
from gradloc.report.formatting import (
    MISSING,
    by_unit,
    interval,
    learning_rate,
    metric_label,
    number,
    unit_name,
)
from gradloc.report.style import ArmStyle
from gradloc.report.verdict import RATIO

HEADLINE_SCORES = (
    "new_paraphrase_nll",
    "new_paraphrase_exact",
    "updated_prefers_new",
    "known_facts",
    "general_text",
)


@dataclass(frozen=True)
class Column:
    """A column of the headline table.

    Args:
        group: Head above it.
        label: Its own head.
        unit: Unit of its numbers.
        higher_is_better: Direction; ``None`` where neither is better.
        get: Takes the figure from an arm.
    """

    group: str
    label: str
    unit: str
    higher_is_better: bool | None
    get: Callable[[ArmResult], MetricValue | None]

    @property
    def arrow(self) -> str:
        """The direction as a sign."""
        return {None: "", True: "↑", False: "↓"}[self.higher_is_better]

    @property
    def direction(self) -> str:
        """The direction in words."""
        return {None: "", True: "higher is better", False: "lower is better"}[self.higher_is_better]


@dataclass(frozen=True)
class Cell:
    """One number of the headline table."""

    text: str
    interval: str = ""
    is_best: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Row:
    """One arm in the headline table."""

    arm: str
    style: ArmStyle
    how: str
    is_main: bool
    cells: tuple[Cell, ...]


def headline(
    results: EvalResult,
    styles: dict[str, ArmStyle],
    main: str | None,
    uptake: str | None,
    arms: Sequence[str] | None = None,
) -> tuple[tuple[Column, ...], tuple[Row, ...]]:
    """The columns and rows of the headline table.

    Args:
        results: The evaluation; its metrics make the columns, whichever arms are shown.
        styles: Looks of the arms.
        main: The arm to stress.
        uptake: The metric that stands for uptake.
        arms: The arms to show; ``None``: all. The best of a column is the best among them.
    """
    columns = tuple(_columns(results, uptake))
    shown = {name: results.arms[name] for name in (results.arms if arms is None else arms)}
    best = [_best(column, shown) for column in columns]
    rows = []
    for name, arm in shown.items():
        cells = []
        for column, top in zip(columns, best, strict=True):
            figure = column.get(arm)
            cell = _cell(column, figure)
            cells.append(replace(cell, is_best=cell.text != MISSING and figure.value == top))
        how = " · ".join(
            part
            for part in (
                trained_how(name, arm),
                f"lr {learning_rate(arm.learning_rate)}" if arm.learning_rate else "",
                f"step {arm.step:,}" if arm.step is not None else "",
            )
            if part
        )
        rows.append(Row(name, styles[name], how, name == main, tuple(cells)))
    return columns, tuple(rows)


def trained_how(name: str, arm: ArmResult) -> str:
    """Policy and methods of an arm, empty where its name says as much."""
    if arm.methods:
        return " + ".join(part for part in (arm.policy, *arm.methods) if part)
    return arm.policy if arm.policy != name else ""


def footnotes(results: EvalResult, columns: tuple[Column, ...]) -> list[str]:
    """What the evaluation noted of figures in the headline table, each note once."""
    notes: dict[tuple[Column, str], list[str]] = {}
    for column in columns:
        for name, arm in results.arms.items():
            figure = column.get(arm)
            if figure is not None and figure.note:
                notes.setdefault((column, figure.note), []).append(name)
    written = []
    for (column, note), names in notes.items():
        having = [name for name, arm in results.arms.items() if column.get(arm) is not None]
        who = "" if names == having and len(names) > 1 else f"{', '.join(names)}, "
        written.append(f"{who}{column.label}: {note}.")
    return written


def _columns(results: EvalResult, uptake: str | None) -> list[Column]:
    def uptake_column(key: str, label: str) -> Column | None:
        return _column(results, "Uptake", label, lambda arm: arm.uptake.get(key))

    def forgetting_column(key: str) -> Column | None:
        label = metric_label(key)
        return _column(results, "Forgetting", label, lambda arm: arm.forgetting.get(key))

    def versus_column(key: str, label: str) -> Column | None:
        group = "Against full training"
        return _column(results, group, label, lambda arm: arm.versus_full.get(key))

    keys = list(dict.fromkeys(key for arm in results.arms.values() for key in arm.uptake))
    exact = [key for key in keys if "exact" in key]
    exact.sort(key=lambda key: ("new" not in key, "paraphrase" not in key))
    preferred = [key for key in keys if key.endswith("prefers_new")]
    columns = [uptake_column(uptake, metric_label(uptake))] if uptake else []
    columns += [uptake_column(key, _exact_label(key)) for key in exact[:1] if key != uptake]
    columns += [uptake_column(key, metric_label(key)) for key in preferred[:1] if key != uptake]
    losses = main_losses(results)
    columns += [forgetting_column(key) for key in losses]
    columns.append(versus_column("uptake_share", "uptake share"))
    ratios = dict.fromkeys(key for arm in results.arms.values() for key in arm.versus_full)
    ratios = [key for key in ratios if key.startswith(RATIO)]
    chosen = [RATIO + key for key in losses if RATIO + key in ratios] or ratios[:2]
    for key in chosen:
        columns.append(versus_column(key, f"forgetting: {metric_label(key.removeprefix(RATIO))}"))
    columns = [column for column in columns if column is not None]
    if not columns:  # no baseline, so nothing but the checkpoints' own scores
        columns = [_score_column(results, key) for key in _score_keys(results)]
    for label, unit, name, better in (
        ("parameters trained", "fraction", "trainable_fraction", None),
        ("training time", "seconds", "train_seconds", False),
        ("peak memory", "MiB", "peak_rss_mib", False),
    ):
        if any(getattr(arm, name) is not None for arm in results.arms.values()):
            columns.append(Column("Cost", label, unit, better, _plain(name, unit, better)))
    return columns


def _score_keys(results: EvalResult) -> list[str]:
    keys = list(dict.fromkeys(key for arm in results.arms.values() for key in arm.scores))
    if usual := [key for key in HEADLINE_SCORES if key in keys]:
        return usual
    return [row.key for panel in change_panels(results) for row in panel.rows][:5]


def _score_column(results: EvalResult, key: str) -> Column:
    label = metric_label(key)
    return _column(results, "Scores", label, lambda arm: arm.scores.get(key))


def _exact_label(key: str) -> str:
    return "exact match" if key.startswith("new") else metric_label(key)


def _column(results: EvalResult, group: str, label: str, get: Callable) -> Column | None:
    """A column for the metric, unless no arm has it."""
    figure = next((f for f in map(get, results.arms.values()) if f is not None), None)
    if figure is None:
        return None
    return Column(group, label, figure.unit, figure.higher_is_better, get)


def _plain(name: str, unit: str, better: bool | None) -> Callable[[ArmResult], MetricValue | None]:
    def get(arm: ArmResult) -> MetricValue | None:
        value = getattr(arm, name)
        return None if value is None else MetricValue(value, None, None, 1, unit, bool(better))

    return get


def column_unit(column: Column) -> str:
    """What a column's head says of its unit."""
    difference = column.group in ("Uptake", "Forgetting")
    if column.label == "uptake share" and column.unit == "ratio":
        return "%"
    return unit_name(column.unit, difference=difference)


def _cell(column: Column, figure: MetricValue | None) -> Cell:
    if figure is None or figure.value is None:
        return Cell(MISSING, hint=figure.note if figure else "")
    # A share reads best as a percentage, whichever unit the evaluation gave it.
    if column.label == "uptake share":
        figure = replace(figure, unit="fraction")
    if column.unit == "seconds":
        return Cell(number(figure.value))
    if column.unit == "MiB":
        return Cell(f"{figure.value:,.0f}")
    hint = f"n = {figure.n:,}" if column.group != "Cost" else ""
    return Cell(
        by_unit(figure.value, figure.unit),
        interval(figure),
        hint=" · ".join(part for part in (hint, figure.note) if part),
    )


def _best(column: Column, arms: Mapping[str, ArmResult]) -> float | None:
    values = [figure.value for arm in arms.values() if (figure := column.get(arm))]
    values = [value for value in values if value is not None]
    if len(values) < 2 or column.higher_is_better is None or len(set(values)) == 1:
        return None
    return max(values) if column.higher_is_better else min(values)
