"""The tables of an evaluation, for its page and for the terminal."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gradloc.evaluation.results import ArmResult, EvalResult, MetricValue
from gradloc.report.arms import has_diverged, uptake_metric
from gradloc.report.formatting import capitalize, is_finite, learning_rate, unit_name
from gradloc.report.headline import RATIO, uptake_share
from gradloc.report.measures import grouped_measures, keys_of, main_losses, measures
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
_GROUPS = {
    "uptake": "Uptake", "forgetting": "Forgetting", "scores": "Scores", "versus_full": VERSUS,
    "cost": "Cost",
}  # fmt: skip
# Field of an arm -> what it is called, its unit, and whether more is better.
_COSTS = {
    "trainable_fraction": ("parameters", "fraction", None),
    "train_seconds": ("time", "seconds", False),
    "peak_rss_mib": ("memory", "MiB", False),
}
# Without a base model there is nothing but the checkpoints' own scores.
_USUAL_SCORES = ("new_paraphrase_nll", "new_paraphrase_exact", "updated_prefers_new")
_N_SCORES = 7


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
    diverged = [has_diverged(arm) for arm in found.values()]
    columns, cells = [], []
    for measured in _columns(results):
        figures = [measured.figure(arm) for arm in found.values()]
        own = [figure_cell(figure) for figure in figures]
        if (higher := measured.column.higher_is_better) is not None:
            pairs = zip(figures, diverged, strict=True)
            values = [None if figure is None or off else figure.value for figure, off in pairs]
            own = mark_best(own, values, higher)
        columns.append(measured.column)
        cells.append(own)
    rows = [
        make_row([Cell(name, trained_how(name, arm)), *own], styles[name], name == main)
        for (name, arm), *own in zip(found.items(), *cells, strict=True)
    ]
    return make_table(["Arm", *columns], rows)


def footnotes(results: EvalResult) -> list[str]:
    """What the evaluation noted of figures in the results table, each note once."""
    notes: dict[tuple[str, str], list[str]] = {}
    for measured in _columns(results):
        column = measured.column
        label = f"{VERSUS.lower()}, {column.label}" if column.group == VERSUS else column.label
        for name, arm in results.arms.items():
            if (figure := measured.figure(arm)) is not None and figure.note:
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
    if is_finite(figure.low) and figure.low > 0:
        return "better" if figure.higher_is_better else "worse"
    if is_finite(figure.high) and figure.high < 0:
        return "worse" if figure.higher_is_better else "better"
    return "soft" if is_finite(figure.low) or is_finite(figure.high) else ""


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


class _Measured(NamedTuple):
    """A column of the results table, and where its figures are: a kind of measure and its key."""

    column: Column
    kind: str
    key: str

    def figure(self, arm: ArmResult) -> MetricValue | None:
        return _figure(arm, self.kind, self.key)


def _figure(arm: ArmResult, kind: str, key: str) -> MetricValue | None:
    if kind == "cost":
        value = getattr(arm, key)
        return value if value is None else MetricValue(value, None, None, 0, _COSTS[key][1], False)
    return uptake_share(arm) if key == "uptake_share" else getattr(arm, kind).get(key)


def _columns(results: EvalResult) -> list[_Measured]:
    """The few metrics that a table has room for, in the order in which people ask for them."""
    losses, ratios = main_losses(results), keys_of(results, "versus_full")
    ratios = [key for key in ratios if key.startswith(RATIO)]
    ratios = [RATIO + key for key in losses if RATIO + key in ratios] or ratios[:2]
    keys = keys_of(results, "uptake")
    exact = sorted(
        (k for k in keys if "exact" in k), key=lambda k: ("new" not in k, "paraphrase" not in k)
    )
    preferred = [key for key in keys if key.endswith("prefers_new")]
    learned = dict.fromkeys([uptake_metric(results), *exact[:1], *preferred[:1]])
    scores = measures(results, "scores")
    usual = [key for key in (*_USUAL_SCORES, *losses) if key in scores] or scores[:_N_SCORES]
    shown = _having(
        results, uptake=learned, forgetting=losses, versus_full=["uptake_share", *ratios]
    )
    return [*(shown or _having(results, scores=usual)), *_having(results, cost=_COSTS)]


def _having(results: EvalResult, **keys: Iterable[str | None]) -> list[_Measured]:
    """Columns for the measures of each kind that an arm has."""
    found = []
    for kind, own in keys.items():
        for key in filter(None, own):
            figures = (_figure(arm, kind, key) for arm in results.arms.values())
            if (first := next((f for f in figures if f is not None), None)) is not None:
                found.append(_Measured(_head(first, kind, key), kind, key))
    return found


def _head(figure: MetricValue, kind: str, key: str) -> Column:
    unit = unit_name(figure.unit, difference=kind in ("uptake", "forgetting"))
    if kind == "cost":
        label, _, better = _COSTS[key]
        return Column(label, unit, _GROUPS[kind], better)
    label = versus_label(key) if kind == "versus_full" else metric_label(key)
    if kind == "uptake" and key.startswith("new") and "exact" in key:
        label = "exact match"
    return Column(label, unit, _GROUPS[kind], figure.higher_is_better)


def _measure_row(results: EvalResult, arms: Sequence[str], key: str) -> Row:
    found = [results.arms[name] for name in arms]
    is_change = any(key in arm.uptake or key in arm.forgetting for arm in found)
    figures = [figure_of(arm, key, is_change) for arm in found]
    first = next((figure for figure in figures if figure), None)
    cells = []
    for figure in figures:
        tone = change_tone(figure) if is_change else ""
        cell = figure_cell(figure, tone)
        cells.append(cell._replace(text=f"{SIGNS[tone]} {cell.text}".strip()))
    base = [figure_cell(results.baseline_scores.get(key))] if results.baseline_scores else []
    unit = change_unit(first, is_change) if first else ""
    return make_row([metric_label(key), unit, *base, *cells])
