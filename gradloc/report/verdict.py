"""The verdict: one plain sentence on the main arm, computed from its figures.

Comes in: an ``EvalResult`` and the name of the main arm. Goes out: ``Verdict``. A good result, a
bad one and one that settles nothing are said equally plainly.
"""

from dataclasses import dataclass

from gradloc.report.formatting import by_unit, interval, metric_label, number, percent
from gradloc.results import ArmResult, EvalResult, Figure

RATIO = "forgetting_ratio_"
UPTAKE = "new_paraphrase_nll"
FORGETTING = "general_text"


@dataclass(frozen=True)
class Verdict:
    """What the run shows.

    Args:
        tone: ``good``, ``bad`` or ``unclear``.
        subject: The arm that the sentence speaks of.
        text: The sentence after its subject.
    """

    tone: str
    subject: str
    text: str

    @property
    def sign(self) -> str:
        """A sign for the tone, so that color is not the only carrier."""
        return {"good": "✓", "bad": "✗", "unclear": "≈"}[self.tone]

    @property
    def word(self) -> str:
        """The tone in a word."""
        return {
            "good": "Less forgetting",
            "bad": "No gain",
            "unclear": "Not settled",
        }[self.tone]


def uptake_metric(results: EvalResult) -> str | None:
    """The metric that stands for uptake: likelihood of paraphrased new facts, where it exists."""
    keys = list(dict.fromkeys(key for arm in results.arms.values() for key in arm.uptake))
    likelihoods = [key for key in keys if key.endswith("_nll")]
    return next(iter([key for key in keys if key == UPTAKE] or likelihoods or keys), None)


def main_arm(results: EvalResult, arm_order: list[str]) -> str | None:
    """The arm that the page speaks of first.

    Args:
        results: The evaluation.
        arm_order: Arms in the recipe's order; its first is the main one.
    """
    ordered = [name for name in arm_order if name in results.arms]
    ordered += [name for name in results.arms if name not in ordered]
    chosen = [name for name in ordered if name not in results.reference_arms]
    return next(iter(chosen or ordered), None)


def judge(results: EvalResult, main: str) -> Verdict:
    """Say in one sentence what the main arm took up and what it forgot."""
    arm = results.arms[main]
    uptake = arm.uptake.get(uptake_metric(results) or "")
    learned, uptake_tone = _uptake_clause(arm, uptake)
    if uptake_tone == "bad":
        return Verdict("bad", main, f"{learned}.")
    forgot, tone = _forgetting_clause(arm)
    if uptake_tone == "unclear" and tone == "good":
        tone = "unclear"
    return Verdict(tone, main, f"{learned} {forgot}.")


def _uptake_clause(arm: ArmResult, uptake: Figure | None) -> tuple[str, str]:
    if uptake is None or uptake.value is None:
        why = f" ({uptake.note})" if uptake is not None and uptake.note else ""
        return f"has no figure for the uptake of new facts{why}", "unclear"
    size = f"{by_unit(uptake.value, uptake.unit)} {uptake.unit}"
    shown = f" (95 % interval {interval(uptake)})" if interval(uptake) else ""
    if uptake.value <= 0:
        return f"did not take up the new facts: their likelihood changed by {size}{shown}", "bad"
    if uptake.low is not None and uptake.low <= 0:
        return (
            f"did not measurably take up the new facts: {size}, and the 95 % interval "
            f"({interval(uptake)}) includes no uptake at all",
            "bad",
        )
    share = arm.versus_full.get("uptake_share")
    if share is None or share.value is None:
        return f"took up {size} of the new facts{shown}", "good"
    if share.value < 0.5:
        return f"took up only {percent(share.value)} of what full training did", "unclear"
    return f"took up {percent(share.value)} of what full training did", "good"


def _forgetting_clause(arm: ArmResult) -> tuple[str, str]:
    ratios = {
        key.removeprefix(RATIO): figure
        for key, figure in arm.versus_full.items()
        if key.startswith(RATIO)
    }
    if not ratios:
        return _absolute_clause(arm)
    metric = FORGETTING if FORGETTING in ratios else next(iter(ratios))
    ratio = ratios.pop(metric)
    where = "" if metric == FORGETTING else f" on {metric_label(metric)}"
    if ratio.value is None:
        why = f": {ratio.note}" if ratio.note else ""
        return f"but cannot be compared with full training at equal uptake{why}", "unclear"
    clause, tone = _ratio_clause(ratio, where)
    # One good ratio must not hide another that is surely bad.
    worse = [
        f"{number(figure.value)} times as much on {metric_label(key)}"
        for key, figure in ratios.items()
        if figure.value is not None and figure.value > 1 and (figure.low or 0) > 1
    ]
    if worse and tone == "good":
        return f"{clause}, but {' and '.join(worse)}", "unclear"
    return clause, tone


def _ratio_clause(ratio: Figure, where: str) -> tuple[str, str]:
    if ratio.value <= 0:
        amount = f"forgot nothing{where} at equal uptake (ratio {number(ratio.value)})"
    else:
        amount = f"forgot {number(ratio.value)} times as much{where} at equal uptake"
    if ratio.low is None or ratio.high is None:
        return f"and {amount}; no interval says how sure that is", "unclear"
    shown = f"{number(ratio.low)} to {number(ratio.high)}"
    if ratio.high < 1:
        return f"and {amount}", "good"
    if ratio.low > 1:
        return f"and {amount}, which is worse than full training (95 % interval {shown})", "bad"
    return (
        f"and {amount}, but the 95 % interval ({shown}) includes 1: this run does not show "
        "that it forgets less than full training",
        "unclear",
    )


def _absolute_clause(arm: ArmResult) -> tuple[str, str]:
    lost = arm.forgetting.get(FORGETTING)
    if lost is None or lost.value is None:
        return "but what it forgot is not known: general text was not scored", "unclear"
    size = f"{number(abs(lost.value))} nats per token on general text"
    shown = f" (95 % interval {interval(lost)})" if interval(lost) else ""
    verb = "lost" if lost.value > 0 else "gained"
    return (
        f"and {verb} {size}{shown}; no fully trained arm stands beside it to compare with",
        "unclear",
    )
