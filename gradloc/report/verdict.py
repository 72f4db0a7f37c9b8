"""The verdict: one plain sentence on the main arm, computed from its figures.

Comes in: an ``EvalResult`` and the name of the main arm. Goes out: ``Verdict``. A good result, a
bad one and one that settles nothing are said equally plainly.
"""

from dataclasses import dataclass

from gradloc.evaluation.results import ArmResult, EvalResult, MetricValue
from gradloc.report.changes import losses
from gradloc.report.formatting import by_unit, interval, metric_label, number, percent, unit_name
from gradloc.report.metric_names import split_key
from gradloc.report.pictures import is_finite
from gradloc.report.series import earlier_checkpoints

RATIO = "forgetting_ratio_"
UPTAKE = "new_paraphrase_nll"
FORGETTING = "general_text"
FACTS = "known_facts"


@dataclass(frozen=True)
class Verdict:
    """What the run shows.

    Args:
        tone: ``good``, ``bad`` or ``unclear``.
        word: The tone in two words.
        subject: The arm that the sentence speaks of.
        text: The sentence after its subject.
    """

    tone: str
    word: str
    subject: str
    text: str

    @property
    def sign(self) -> str:
        """A sign for the tone, so that color is not the only carrier."""
        return {"good": "✓", "bad": "✗", "unclear": "≈"}[self.tone]


def uptake_metric(results: EvalResult) -> str | None:
    """The metric that stands for uptake: likelihood of paraphrased new facts, where it exists."""
    keys = list(dict.fromkeys(key for arm in results.arms.values() for key in arm.uptake))
    likelihoods = [key for key in keys if key.endswith("_nll")]
    return next(iter([key for key in keys if key == UPTAKE] or likelihoods or keys), None)


def main_arm(results: EvalResult, arm_order: list[str]) -> str | None:
    """The arm that the page speaks of first.

    Args:
        results: The evaluation.
        arm_order: Arms in the recipe's order; its first is the main one. Of the checkpoints of
            one training run only the last can be it.
    """
    ordered = [name for name in arm_order if name in results.arms]
    ordered += [name for name in results.arms if name not in ordered]
    earlier = earlier_checkpoints(results)
    ordered = [name for name in ordered if name not in earlier]
    chosen = [name for name in ordered if name not in results.reference_arms]
    return next(iter(chosen or ordered), None)


def judge(results: EvalResult, main: str) -> Verdict:
    """Say in one sentence what the main arm took up and what it forgot."""
    arm = results.arms[main]
    if not results.baseline_scores:
        text = "was scored without a base model, so what it took up and forgot is not known."
        return Verdict("unclear", "Not settled", main, text)
    learned, uptake_tone = _uptake_clause(arm, uptake_metric(results) or "")
    if uptake_tone == "bad":
        return Verdict("bad", "Nothing learned", main, f"{learned}.")
    forgot, tone = _forgetting_clause(results, arm)
    is_kept = tone == "good"
    # Little forgetting is no merit where little was learned.
    tone = "unclear" if uptake_tone == "unclear" and tone == "good" else tone
    if not _is_compared(arm):
        has_learned = uptake_tone == "good"
        if uptake_metric(results) is None:  # only what it forgot was asked
            tone = "good" if is_kept else "bad"
        return Verdict(tone, _word_alone(arm, has_learned, is_kept), main, f"{learned} {forgot}.")
    word = {"good": "Less forgetting", "bad": "More forgetting", "unclear": "Not settled"}[tone]
    if tone == "unclear" and _surely_less(arm, FORGETTING) and not _surely_less(arm, FACTS):
        word = "Mixed"
    return Verdict(tone, word, main, f"{learned} {forgot}.")


def _is_compared(arm: ArmResult) -> bool:
    return any(key.startswith(RATIO) for key in arm.versus_full)


def _word_alone(arm: ArmResult, has_learned: bool, is_kept: bool) -> str:
    """The word for an arm beside which no full training stands."""
    if not any(is_finite(figure.value) for figure in arm.forgetting.values()):
        return "Learned" if has_learned else "Not settled"
    if has_learned:
        return "Learned, nothing clearly lost" if is_kept else "Learned, and lost"
    return "Nothing clearly lost" if is_kept else "Lost"


def _surely_less(arm: ArmResult, metric: str) -> bool:
    ratio = arm.versus_full.get(RATIO + metric)
    return ratio is not None and ratio.high is not None and ratio.high < 1


def _uptake_clause(arm: ArmResult, key: str) -> tuple[str, str]:
    if not key:
        return "was asked for nothing new", "unclear"
    uptake = arm.uptake.get(key)
    if uptake is None or uptake.value is None:
        why = f" ({uptake.note})" if uptake is not None and uptake.note else ""
        return f"has no figure for the uptake of new facts{why}", "unclear"
    size = _size(uptake)
    if uptake.value <= 0:
        return f"did not take up the new facts: their score changed by {size}", "bad"
    if uptake.low is not None and uptake.low <= 0:
        return f"did not measurably take up the new facts: {size} includes no change at all", "bad"
    share = arm.versus_full.get("uptake_share")
    if share is None or share.value is None:
        what = "the new facts" if key.startswith("new_") else metric_label(key)
        return f"took up {size} of {what}", "good"
    only = "only " if share.value < 0.5 else ""
    tone = "unclear" if only else "good"
    return f"took up {only}{percent(share.value)} of what full training did", tone


def _forgetting_clause(results: EvalResult, arm: ArmResult) -> tuple[str, str]:
    ratios = {
        key.removeprefix(RATIO): figure
        for key, figure in arm.versus_full.items()
        if key.startswith(RATIO)
    }
    if not ratios:
        return _absolute_clause(results, arm)
    metric = FORGETTING if FORGETTING in ratios else next(iter(ratios))
    ratio = ratios.pop(metric)
    if ratio.value is None:
        clause, tone = _beyond_clause(results, arm, metric, ratio)
    else:
        clause, tone = _ratio_clause(ratio, f" of {metric_label(metric)}")
    facts = ratios.get(FACTS)
    if facts is None or facts.value is None:
        return clause, tone
    # What is kept of one kind must not hide what is lost of the other.
    kept = facts.high is not None and facts.high < 1
    shown = f" (95 % interval {interval(facts)})" if interval(facts) else ""
    clause += f"; of {metric_label(FACTS)} {number(facts.value)} times as much{shown}"
    if not kept and facts.low is not None and facts.low <= 1:
        clause += ", no less than full training as far as this run can tell"
    return clause, "unclear" if tone == "good" and not kept else tone


def _ratio_clause(ratio: MetricValue, where: str) -> tuple[str, str]:
    if ratio.value <= 0:
        amount = f"forgot nothing{where} at equal uptake (ratio {number(ratio.value)})"
    else:
        amount = f"forgot {number(ratio.value)} times as much{where} at equal uptake"
    shown = interval(ratio)
    if not shown:
        return f"and {amount}; no interval says how sure that is", "unclear"
    if ratio.high is not None and ratio.high < 1:
        return f"and {amount}", "good"
    if ratio.low is not None and ratio.low > 1:
        return f"and {amount}, which is worse than full training (95 % interval {shown})", "bad"
    return (
        f"and {amount}, but the 95 % interval ({shown}) includes 1: this run does not show "
        "that it forgets less than full training",
        "unclear",
    )


def _beyond_clause(
    results: EvalResult, arm: ArmResult, metric: str, ratio: MetricValue
) -> tuple[str, str]:
    """Where there is no ratio; an arm that learned more than full training is set beside it."""
    no_ratio = f"but has no ratio of forgetting to full training: {ratio.note or 'not computed'}"
    share, own = arm.versus_full.get("uptake_share"), arm.forgetting.get(metric)
    axis = uptake_metric(results)
    references = [
        found
        for name in results.reference_arms
        if (found := results.arms[name]).uptake.get(axis, own).value is not None
        and metric in found.forgetting
    ]
    if not references or own is None or not share or not share.value or share.value <= 1:
        return no_ratio, "unclear"
    best = max(references, key=lambda found: found.uptake[axis].value).forgetting[metric]
    ends = (own.value, own.low, own.high, best.value, best.low, best.high)
    if any(end is None for end in ends):
        return no_ratio, "unclear"
    clause = f"and forgot {_size(own)} of {metric_label(metric)}, where that forgot {_size(best)}"
    if own.high < best.low:
        return clause, "good"
    if own.low > best.high:
        return f"{clause}: more than full training", "bad"
    return f"{clause}: the intervals overlap", "unclear"


def _absolute_clause(results: EvalResult, arm: ArmResult) -> tuple[str, str]:
    """What was lost where no full training stands beside it."""
    own = {row.key: arm.forgetting.get(row.key) for row in losses(results)}
    scored = {key: f for key, f in own.items() if f is not None and is_finite(f.value)}
    if not scored:
        return "but what it forgot is not known: nothing that it had was scored", "unclear"
    lost = {key for key, figure in scored.items() if (figure.low or 0) > 0}
    usual = [key for key in (FORGETTING, FACTS) if key in scored]
    others = [key for key in scored if split_key(key).items not in (FORGETTING, FACTS, "fuar")]
    sizes = " and ".join(f"{_size(scored[key])} of {metric_label(key)}" for key in usual)
    clause = f"and forgot {sizes}" if usual else ""
    if others:
        more = "other measures" if usual else "measures of what was there"
        clause += ", " if usual else ""
        clause += f"and clearly lost on {len(lost.intersection(others))} of {len(others)} {more}"
    clause += "; no fully trained arm stands beside it to compare with"
    return clause, "unclear" if lost.intersection([*usual, *others]) else "good"


def _size(figure: MetricValue) -> str:
    """Value, unit and interval in running text."""
    shown = f" (95 % interval {interval(figure)})" if interval(figure) else ""
    unit = unit_name(figure.unit, difference=True)
    return f"{by_unit(figure.value, figure.unit)} {unit}{shown}"
