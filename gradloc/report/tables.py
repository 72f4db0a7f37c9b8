"""The other tables of the report, and its examples, as rows of text.

Comes in: an ``EvalResult``. Goes out: tuples of text, ready for a template. It escapes nothing:
the template does.
"""

import re
from typing import Any

from gradloc.evaluation.results import ArmResult, EvalResult, MetricValue
from gradloc.report.changes import parent_set, set_order, sets_of, tasks_of
from gradloc.report.formatting import (
    MISSING,
    by_unit,
    interval,
    metric_label,
    number,
    unit_name,
)
from gradloc.report.metric_names import FACTS, fact_set, metric_rank, set_label, split_key
from gradloc.report.series import earlier_checkpoints, leading_arms
from gradloc.report.style import ArmStyle
from gradloc.report.verdict import RATIO

# From about a screen of rows on, headings help.
GROUPED_FROM = 16


def metric_groups(results: EvalResult, arm: ArmResult) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Every metric of an arm: its kind, words, before, after, change, interval, n, unit, direction.

    Returns:
        Headings and rows. Where there are many rows, those of one set of items stand together,
        its kinds last; the comparison with full training has a heading of its own. A few rows
        stand under one heading without words.
    """
    own = dict.fromkeys((*arm.uptake, *arm.forgetting, *arm.scores))
    rows = {key: _metric_row(key, results, arm) for key in own}
    compared = [_versus_row(key, figure) for key, figure in arm.versus_full.items()]
    if len(rows) < GROUPED_FROM:
        return [("", [*rows.values(), *compared])]
    sets, tasks = sets_of(results), tasks_of(results)
    top = {items: _heading(items, sets, tasks) for items in sets}
    order = {items: n for n, items in enumerate(dict.fromkeys(split_key(k).items for k in own))}

    def place(key: str) -> tuple:
        name = split_key(key)
        whole = top[name.items]
        is_kind = parent_set(name.items, sets, tasks) is not None
        return (*set_order(whole), order.get(whole, 0), is_kind, set_order(name.items),
                order[name.items], metric_rank(name))  # fmt: skip

    groups: dict[str, list[tuple[str, ...]]] = {}
    for key in sorted(own, key=place):
        groups.setdefault(top[split_key(key).items], []).append(rows[key])
    headed = [(_capital(set_label(items)), own_rows) for items, own_rows in groups.items()]
    return headed + ([("Against full training", compared)] if compared else [])


METRIC_COLUMNS = (
    "Kind", "Metric", "Before", "After", "Change", "95 % interval", "n", "Unit", "Direction",
)  # fmt: skip


def examples(results: EvalResult, styles: dict[str, ArmStyle]) -> list[dict[str, Any]]:
    """Probes with each arm's answer and a sign that says what it is.

    Of the checkpoints of one training run the last answers.
    """
    shown = []
    leading = leading_arms(results)
    earlier = earlier_checkpoints(results)
    for example in results.examples:
        answers = []
        target, old = example.get("target") or "", example.get("old_target") or ""
        known = [name for name in ("baseline", *leading) if name in example["answers"]]
        known += [n for n in example["answers"] if n not in known and n not in earlier]
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


def _heading(items: str, sets: dict[str, set[str]], tasks: set[str]) -> str:
    """The set whose heading a set stands under: its group, or what it is a kind of."""
    while (over := parent_set(items, sets, tasks)) is not None:
        items = over
    group = items.partition("_")[0]
    return group if fact_set(items) and group in FACTS else items


def _metric_row(key: str, results: EvalResult, arm: ArmResult) -> tuple[str, ...]:
    changes = {"uptake": arm.uptake.get(key), "forgetting": arm.forgetting.get(key)}
    kind, change = next(((k, f) for k, f in changes.items() if f is not None), ("score", None))
    before, after = results.baseline_scores.get(key), arm.scores.get(key)
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


def _versus_row(key: str, figure: MetricValue) -> tuple[str, ...]:
    label = metric_label(key.removeprefix(RATIO))
    what = f"forgetting, {label}" if key.startswith(RATIO) else label
    return (
        "against full training", what, "", "", by_unit(figure.value, figure.unit),
        interval(figure) or figure.note, f"{figure.n:,}",
        unit_name(figure.unit, difference=False), _direction(figure),
    )  # fmt: skip


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _direction(figure: MetricValue) -> str:
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
