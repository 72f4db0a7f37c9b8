"""The tables of the report, as rows of text.

Comes in: an ``EvalResult``. Goes out: ``Table`` values and examples, ready for a template. It
knows nothing of HTML and escapes nothing: the template does.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from gradloc.report.formatting import (
    MISSING,
    by_unit,
    duration,
    interval,
    learning_rate,
    metric_label,
    number,
    unit_name,
)
from gradloc.report.style import ArmStyle
from gradloc.report.verdict import RATIO
from gradloc.results import ArmResult, EvalResult, Figure

HEADLINE_FORGETTING = ("known_facts", "general_text")


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
    get: Callable[[ArmResult], Figure | None]

    @property
    def arrow(self) -> str:
        """The direction as a sign."""
        return {None: "", True: "↑", False: "↓"}[self.higher_is_better]

    @property
    def direction(self) -> str:
        """The direction in words."""
        return {None: "", True: "higher is better", False: "lower is better"}[
            self.higher_is_better
        ]


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
    results: EvalResult, styles: dict[str, ArmStyle], main: str | None, uptake: str | None
) -> tuple[tuple[Column, ...], tuple[Row, ...]]:
    """The columns and rows of the headline table."""
    columns = tuple(_columns(results, uptake))
    best = [_best(column, results) for column in columns]
    rows = []
    for name, arm in results.arms.items():
        cells = []
        for column, top in zip(columns, best, strict=True):
            figure = column.get(arm)
            cell = _cell(column, figure)
            cells.append(replace(cell, is_best=cell.text != MISSING and figure.value == top))
        how = " · ".join(
            part
            for part in (
                arm.policy if arm.policy != name else "",
                f"lr {learning_rate(arm.learning_rate)}" if arm.learning_rate else "",
            )
            if part
        )
        rows.append(Row(name, styles[name], how, name == main, tuple(cells)))
    return columns, tuple(rows)


def metric_rows(results: EvalResult, arm: ArmResult) -> list[tuple[str, ...]]:
    """Every metric of an arm: what, before, after, change, interval, n, unit, direction."""
    rows = []
    for kind, figures in (("uptake", arm.uptake), ("forgetting", arm.forgetting)):
        for key, figure in figures.items():
            rows.append(_metric_row(kind, key, figure, results, arm))
    seen = {*arm.uptake, *arm.forgetting}
    for key, figure in arm.scores.items():
        if key not in seen:
            rows.append(_metric_row("score", key, None, results, arm, figure))
    for key, figure in arm.versus_full.items():
        label = metric_label(key.removeprefix(RATIO))
        what = f"forgetting, {label}" if key.startswith(RATIO) else label
        rows.append((
            "against full training", what, "", "", by_unit(figure.value, figure.unit),
            interval(figure) or figure.note, f"{figure.n:,}", unit_name(figure.unit, difference=False),
            _direction(figure),
        ))  # fmt: skip
    return rows


METRIC_COLUMNS = (
    "Kind", "Metric", "Before", "After", "Change", "95 % interval", "n", "Unit", "Direction",
)  # fmt: skip


def examples(results: EvalResult, styles: dict[str, ArmStyle]) -> list[dict[str, Any]]:
    """Probes with each arm's answer and a sign that says what it is."""
    shown = []
    for example in results.examples:
        answers = []
        target, old = example.get("target") or "", example.get("old_target") or ""
        known = [name for name in ("baseline", *results.arms) if name in example["answers"]]
        known += [name for name in example["answers"] if name not in known]
        for name in known:
            answer = str(example["answers"][name] or "").strip()
            sign, meaning = _judge_answer(answer, target, old)
            label = "before" if name == "baseline" else name
            answers.append({
                "arm": label, "style": styles.get(name), "answer": answer, "sign": sign,
                "meaning": meaning,
            })  # fmt: skip
        shown.append({
            "prompt": example["prompt"], "target": target.strip(), "old_target": old.strip(),
            "group": example.get("group", ""), "answers": answers,
        })  # fmt: skip
    return shown


def _columns(results: EvalResult, uptake: str | None) -> list[Column]:
    def uptake_column(key: str, label: str) -> Column | None:
        return _column(results, "Uptake", key, label, lambda arm: arm.uptake.get(key))

    def forgetting_column(key: str) -> Column | None:
        label = metric_label(key)
        return _column(results, "Forgetting", key, label, lambda arm: arm.forgetting.get(key))

    def versus_column(key: str, label: str) -> Column | None:
        group = "Against full training"
        return _column(results, group, key, label, lambda arm: arm.versus_full.get(key))

    keys = list(dict.fromkeys(key for arm in results.arms.values() for key in arm.uptake))
    exact = [key for key in keys if "exact" in key]
    exact.sort(key=lambda key: ("new" not in key, "paraphrase" not in key))
    preferred = [key for key in keys if key.endswith("prefers_new")]
    columns = [uptake_column(uptake, metric_label(uptake))] if uptake else []
    columns += [uptake_column(key, _exact_label(key)) for key in exact[:1] if key != uptake]
    columns += [uptake_column(key, metric_label(key)) for key in preferred[:1] if key != uptake]
    columns += [forgetting_column(key) for key in HEADLINE_FORGETTING]
    columns.append(versus_column("uptake_share", "uptake share"))
    ratios = dict.fromkeys(key for arm in results.arms.values() for key in arm.versus_full)
    ratios = [key for key in ratios if key.startswith(RATIO)]
    headline = [RATIO + key for key in HEADLINE_FORGETTING]
    chosen = [key for key in headline if key in ratios] or ratios[:2]
    for key in chosen:
        columns.append(versus_column(key, f"forgetting, {metric_label(key.removeprefix(RATIO))}"))
    columns = [column for column in columns if column is not None]
    for label, unit, name, better in (
        ("parameters trained", "fraction", "trainable_fraction", None),
        ("training time", "seconds", "train_seconds", False),
        ("peak memory", "MiB", "peak_rss_mib", False),
    ):
        if any(getattr(arm, name) is not None for arm in results.arms.values()):
            columns.append(Column("Cost", label, unit, better, _plain(name, unit, better)))
    return columns


def _exact_label(key: str) -> str:
    return "exact match" if key.startswith("new") else metric_label(key)


def _column(
    results: EvalResult, group: str, key: str, label: str, get: Callable
) -> Column | None:
    """A column for the metric, unless no arm has it."""
    figure = next((f for f in map(get, results.arms.values()) if f is not None), None)
    if figure is None:
        return None
    return Column(group, label, figure.unit, figure.higher_is_better, get)


def _plain(name: str, unit: str, better: bool | None) -> Callable[[ArmResult], Figure | None]:
    def get(arm: ArmResult) -> Figure | None:
        value = getattr(arm, name)
        return None if value is None else Figure(value, None, None, 1, unit, bool(better))

    return get


def column_unit(column: Column) -> str:
    """What a column's head says of its unit."""
    difference = column.group in ("Uptake", "Forgetting")
    if column.label == "uptake share" and column.unit == "ratio":
        return "%"
    return unit_name(column.unit, difference=difference)


def _cell(column: Column, figure: Figure | None) -> Cell:
    if figure is None or figure.value is None:
        return Cell(MISSING, hint=figure.note if figure else "")
    # A share reads best as a percentage, whichever unit the evaluation gave it.
    if column.label == "uptake share":
        figure = replace(figure, unit="fraction")
    if column.unit == "seconds":
        return Cell(duration(figure.value))
    if column.unit == "MiB":
        return Cell(f"{figure.value:,.0f}")
    hint = f"n = {figure.n:,}" if column.group != "Cost" else ""
    return Cell(
        by_unit(figure.value, figure.unit),
        interval(figure),
        hint=" · ".join(part for part in (hint, figure.note) if part),
    )


def _best(column: Column, results: EvalResult) -> float | None:
    values = [figure.value for arm in results.arms.values() if (figure := column.get(arm))]
    values = [value for value in values if value is not None]
    if len(values) < 2 or column.higher_is_better is None or len(set(values)) == 1:
        return None
    return max(values) if column.higher_is_better else min(values)


def _metric_row(
    kind: str,
    key: str,
    change: Figure | None,
    results: EvalResult,
    arm: ArmResult,
    score: Figure | None = None,
) -> tuple[str, ...]:
    before = results.baseline_scores.get(key)
    after = score or arm.scores.get(key)
    figure = change or after
    note = figure.note if figure.value is None else ""
    return (
        kind,
        metric_label(key),
        by_unit(before.value, before.unit) if before else MISSING,
        by_unit(after.value, after.unit) if after else MISSING,
        by_unit(change.value, change.unit) if change else MISSING,
        interval(figure) or note,
        f"{figure.n:,}",
        unit_name(figure.unit, difference=change is not None),
        _direction(figure),
    )


def _direction(figure: Figure) -> str:
    return "↑ higher is better" if figure.higher_is_better else "↓ lower is better"


def _judge_answer(answer: str, target: str, old: str) -> tuple[str, str]:
    if _begins_with(answer, target):
        return "✓", "right"
    if _begins_with(answer, old):
        return "↺", "the old answer"
    return "✗", "wrong"


def _begins_with(answer: str, target: str) -> bool:
    """Whether the answer opens with the target as whole words, in any case and spacing."""
    answer, target = (re.sub(r"\s+", " ", text).strip(" \"'.,").casefold() for text in
                      (answer, target))  # fmt: skip
    if not target or not answer.startswith(target):
        return False
    rest = answer[len(target) :]
    return not rest or not rest[0].isalnum()


def counts_rows(results: EvalResult) -> list[tuple[str, str]]:
    """What was scored."""
    return [(key.replace("_", " "), f"{value:,}") for key, value in results.counts.items()]


def reliability_text(split_half: float | None) -> str:
    """The split-half correlation in a plain sentence."""
    if split_half is None:
        return "The split-half rank correlation was not computed."
    if split_half >= 0.7:
        words = "the two halves rank the units much alike"
    elif split_half >= 0.4:
        words = "the two halves agree only in part"
    else:
        words = "the two halves hardly agree: the ranking is mostly noise"
    return (
        f"Each half of the measured sequences gives a ranking of its own. Their rank correlation "
        f"is {number(split_half)} (1 is perfect agreement, 0 none): {words}."
    )
