"""The tables of an evaluation, for its page and for the terminal."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from gradloc.evaluation.results import ArmResult, EvalResult, MetricValue
from gradloc.report.arms import has_diverged, uptake_metric
from gradloc.report.formatting import (
    capitalize,
    is_finite,
    learning_rate,
    unit_name,
)
from gradloc.report.headline import RATIO, uptake_share
from gradloc.report.measures import grouped_measures, main_losses, measures
from gradloc.report.metric_names import metric_label, set_label
from gradloc.report.styles import ArmStyle
from gradloc.report.table import (
    Cell,
    Column,
    Row,
    Table,
    figure_cell,
    make_row,
    make_table,
    mark_best,
)

VERSUS = "Against full training"
SIGNS = {"better": "▲", "worse": "▼", "soft": "≈", "": ""}
_N_SCORES = 7
_GetFigure = Callable[[ArmResult], MetricValue | None]


def results_table(
    results: EvalResult, styles: dict[str, ArmStyle], arms: Sequence[str], main: str | None = None
) -> Table:
    """Arms as rows; what each took up, what it forgot, and what it cost as columns.

    Args:
        results: The evaluation; its metrics make the columns, whichever arms are shown.
        styles: Looks of the arms.
        arms: The arms to show. The best of a column is the best among them; an arm whose scores
            are not finite is the best of none.
        main: The arm to stress.
    """
    found = {name: results.arms[name] for name in arms}
    columns, cells = [], []
    for column, get in [*_figure_columns(results), *_cost_columns(results)]:
        figures = [get(arm) for arm in found.values()]
        own = [_text_cell(column, figure) for figure in figures]
        if column.higher_is_better is not None:
            values = [
                figure.value if figure is not None and not has_diverged(arm) else None
                for figure, arm in zip(figures, found.values(), strict=True)
            ]
            own = mark_best(own, values, column.higher_is_better)
        columns.append(column)
        cells.append(own)
    rows = [
        make_row([Cell(name, trained_how(name, arm)), *own], styles[name], name == main)
        for (name, arm), *own in zip(found.items(), *cells, strict=True)
    ]
    return make_table(["Arm", *columns], rows)


def footnotes(results: EvalResult) -> list[str]:
    """What the evaluation noted of figures in the results table, each note once."""
    notes: dict[tuple[str, str], list[str]] = {}
    for column, get in _figure_columns(results):
        label = (
            f"{column.group.lower()}, {column.label}" if column.group == VERSUS else column.label
        )
        for name, arm in results.arms.items():
            if (figure := get(arm)) is not None and figure.note:
                notes.setdefault((label, figure.note), []).append(name)
    return [
        f"{capitalize(label)} ({', '.join(names)}): {note}."
        if len(names) < len(results.arms)
        else f"{capitalize(label)}: {note}."
        for (label, note), names in notes.items()
    ]


def measure_table(results: EvalResult, arms: Sequence[str], keys: Sequence[str]) -> Table:
    """Measures as rows under headings of their set; the base model and every arm as columns.

    An arm's cell holds what it gained or lost, with a sign where the interval excludes zero; of a
    measure that is neither, or without a base model, its score.

    Args:
        results: The evaluation.
        arms: The arms to show.
        keys: The measures to show.
    """
    rows = []
    for items, own in grouped_measures(results).items():
        shown = [_measure_row(results, arms, key) for key in own if key in keys]
        rows += [make_row([capitalize(set_label(items))]), *shown] if shown else []
    heads = ["Measure", "Unit", *(["Base model"] if results.baseline_scores else []), *arms]
    return make_table(heads, rows)


def change_tone(figure: MetricValue | None) -> str:
    """What may be said of a change: its interval lies on one side of zero, or it does not."""
    if figure is None or not is_finite(figure.value):
        return ""
    if not (is_finite(figure.low) or is_finite(figure.high)):
        return ""
    if is_finite(figure.low) and figure.low > 0:
        return "better" if figure.higher_is_better else "worse"
    if is_finite(figure.high) and figure.high < 0:
        return "worse" if figure.higher_is_better else "better"
    return "soft"


def versus_label(key: str) -> str:
    """What a comparison with full training is called."""
    if key.startswith(RATIO):
        return f"forgetting: {metric_label(key.removeprefix(RATIO))}"
    return "uptake share" if key == "uptake_share" else metric_label(key)


def trained_how(name: str, arm: ArmResult) -> str:
    """Policy and methods of an arm where its name does not say as much, its rate and its step."""
    how = " + ".join(part for part in (arm.policy, *arm.methods) if part)
    parts = [how if arm.methods or how != name else ""]
    parts += [f"lr {learning_rate(arm.learning_rate)}" if arm.learning_rate else ""]
    parts += [f"step {arm.step:,}" if arm.step is not None else ""]
    return " · ".join(part for part in parts if part)


def figure_of(arm: ArmResult, key: str, is_change: bool) -> MetricValue | None:
    """What an arm gained or lost of a measure, or its score."""
    return arm.uptake.get(key) or arm.forgetting.get(key) if is_change else arm.scores.get(key)


def change_unit(figure: MetricValue, is_change: bool) -> str:
    """The unit of a figure with what it counts: ``nats gained``."""
    unit = unit_name(figure.unit, difference=is_change)
    return f"{unit} {'gained' if figure.higher_is_better else 'lost'}" if is_change else unit


def _figure_columns(results: EvalResult) -> list[tuple[Column, _GetFigure]]:
    """The few metrics that a table has room for, in the order in which people ask for them."""
    uptake, losses = uptake_metric(results), main_losses(results)
    keys = list(dict.fromkeys(key for arm in results.arms.values() for key in arm.uptake))
    exact = sorted(
        (k for k in keys if "exact" in k), key=lambda k: ("new" not in k, "paraphrase" not in k)
    )
    preferred = [key for key in keys if key.endswith("prefers_new")]
    wanted = [("uptake", key) for key in dict.fromkeys([uptake, *exact[:1], *preferred[:1]]) if key]
    wanted += [("forgetting", key) for key in losses]
    ratios = dict.fromkeys(key for arm in results.arms.values() for key in arm.versus_full)
    ratios = [key for key in ratios if key.startswith(RATIO)]
    wanted += [("versus_full", "uptake_share")]
    wanted += [
        ("versus_full", key)
        for key in ([RATIO + k for k in losses if RATIO + k in ratios] or ratios[:2])
    ]
    found = [column for kind, key in wanted if (column := _column(results, kind, key)) is not None]
    if not found:  # no baseline, so nothing but the checkpoints' own scores
        usual = ["new_paraphrase_nll", "new_paraphrase_exact", "updated_prefers_new", *losses]
        scores = measures(results, "scores")
        chosen = [key for key in usual if key in scores] or scores[:_N_SCORES]
        found = [
            column for key in chosen if (column := _column(results, "scores", key)) is not None
        ]
    return found


def _column(results: EvalResult, kind: str, key: str) -> tuple[Column, _GetFigure] | None:
    """A column for the metric, unless no arm has it."""

    def get(arm: ArmResult) -> MetricValue | None:
        return uptake_share(arm) if key == "uptake_share" else getattr(arm, kind).get(key)

    figure = next((f for f in map(get, results.arms.values()) if f is not None), None)
    if figure is None:
        return None
    group = {"uptake": "Uptake", "forgetting": "Forgetting", "scores": "Scores"}.get(kind, VERSUS)
    label = versus_label(key) if kind == "versus_full" else metric_label(key)
    unit = unit_name(figure.unit, difference=kind in ("uptake", "forgetting"))
    if kind == "uptake" and key.startswith("new") and "exact" in key:
        label = "exact match"
    return Column(label, unit, group, figure.higher_is_better), get


def _cost_columns(results: EvalResult) -> list[tuple[Column, _GetFigure]]:
    columns = []
    for name, label, unit, better in (
        ("trainable_fraction", "parameters", "%", None),
        ("train_seconds", "time", "seconds", False),
        ("peak_rss_mib", "memory", "MiB", False),
    ):
        if any(getattr(arm, name) is not None for arm in results.arms.values()):
            columns.append((Column(label, unit, "Cost", better), _plain_figure(name, unit)))
    return columns


def _plain_figure(name: str, unit: str) -> _GetFigure:
    def get(arm: ArmResult) -> MetricValue | None:
        value = getattr(arm, name)
        if value is None:
            return None
        return MetricValue(value, None, None, 0, "fraction" if unit == "%" else unit, False)

    return get


def _text_cell(column: Column, figure: MetricValue | None) -> Cell:
    if column.unit == "MiB" and figure is not None and is_finite(figure.value):
        return Cell(f"{figure.value:,.0f}")
    return figure_cell(figure)


def _measure_row(results: EvalResult, arms: Sequence[str], key: str) -> Row:
    found = [results.arms[name] for name in arms]
    is_change = any(key in arm.uptake or key in arm.forgetting for arm in found)
    figures = [figure_of(arm, key, is_change) for arm in found]
    first = next((figure for figure in figures if figure), None)
    cells = []
    for figure in figures:
        tone = change_tone(figure) if is_change else ""
        cell = figure_cell(figure, tone)
        cells.append(replace(cell, text=f"{SIGNS[tone]} {cell.text}".strip()))
    base = [figure_cell(results.baseline_scores.get(key))] if results.baseline_scores else []
    unit = change_unit(first, is_change) if first else ""
    return make_row([metric_label(key), unit, *base, *cells])
