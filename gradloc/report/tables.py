"""The other tables of the report, and its examples, as rows of text.

Comes in: an ``EvalResult``. Goes out: tuples of text, ready for a template. It escapes nothing:
the template does.
"""

import re
from typing import Any

from gradloc.report.formatting import (
    MISSING,
    by_unit,
    interval,
    metric_label,
    number,
    unit_name,
)
from gradloc.report.style import ArmStyle
from gradloc.report.verdict import RATIO
from gradloc.results import ArmResult, EvalResult, Figure


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
            interval(figure) or figure.note, f"{figure.n:,}",
            unit_name(figure.unit, difference=False), _direction(figure),
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
