"""The headline of a report: what the main arm learned and lost, in whole words and big figures."""

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from gradloc.evaluation.results import ArmResult, EvalResult, MetricValue
from gradloc.report.arms import best_reference, has_diverged, uptake_metric
from gradloc.report.formatting import (
    THIN,
    duration,
    interval,
    is_finite,
    number,
    percent,
    size_text,
    whole_percent,
)
from gradloc.report.measures import main_losses
from gradloc.report.metric_names import metric_label

RATIO = "forgetting_ratio_"
FACTS, TEXT = "known_facts", "general_text"
# A gain below is of no practical size (assumption: a tenth of a nat makes an answer 1.1 times as
# likely), and a loss below is nothing lost.
_GAIN_FLOOR = {"fraction": 0.01}
_LOSS_FLOOR = {"fraction": 0.005}
_NATS_GAIN, _NATS_LOSS = 0.1, 0.01
# Of what full training learned; an arm below has learned little.
_MUCH = 0.5


class Headline(NamedTuple):
    """What the run shows.

    Args:
        tone: ``good``, ``bad`` or ``unclear``.
        word: The tone in two words.
        arm: The arm that the sentence speaks of.
        text: The sentences.
    """

    tone: str
    word: str
    arm: str
    text: str


class BigFigure(NamedTuple):
    """One large number, the words below it, and what stands small."""

    value: str
    label: str
    small: str = ""


def judge(results: EvalResult, main: str) -> Headline:
    """Say what the main arm learned and what it lost."""
    arm = results.arms[main]
    if not results.baseline_scores:
        text = "No base model was scored beside it, so what it learned and lost is not known."
        return Headline("unclear", "Scores alone", main, text)
    if has_diverged(arm):
        text = "Its scores are not finite: the training diverged. Is the rate too high?"
        return Headline("bad", "Diverged", main, text)
    learned, gain = _learned(results, arm)
    losses = [_lost(results, arm, key) for key in main_losses(results)]
    losses = [loss for loss in losses if loss is not None]
    sentences = [learned, *(text for text, _ in losses[:1])]
    # A second measure is said where it says something else than the first.
    sentences += [text for text, tone in losses[1:] if tone != losses[0][1]]
    tones = [tone for _, tone in losses]
    has_reference = best_reference(results) is not None
    tone, word = _tone(gain, tones, has_reference)
    if not losses:
        sentences.append("What it lost is not known: nothing that the base model had was scored.")
    elif word == "Not settled":
        sentences.append("This run does not show that it forgets less than full training.")
    return Headline(tone, word, main, " ".join(sentences))


def big_figures(results: EvalResult, main: str) -> list[BigFigure]:
    """The main arm in a few large numbers, full training's beside them."""
    arm, full = results.arms[main], best_reference(results)
    found = [_gain_figure(results, arm)] if uptake_metric(results) in arm.uptake else []
    for key in main_losses(results):
        figure = arm.forgetting.get(key)
        if figure is None or not is_finite(figure.value):
            continue
        other = full.forgetting.get(key) if full else None
        beside = [f"95 % interval {interval(figure)}" if interval(figure) else ""]
        if other is not None and other is not figure and is_finite(other.value):
            beside.append(f"full training {_amount(results, key, other)}")
        ratio = arm.versus_full.get(RATIO + key)
        if ratio is not None and is_finite(ratio.value) and not _is_nothing(figure):
            beside.append(f"at equal uptake {number(ratio.value)} times as much")
        is_plain = figure.unit == "fraction" or _is_nothing(figure)
        label = f"{'' if is_plain else f'{_unit(figure)} '}of {metric_label(key)} lost"
        value = "nothing" if _is_nothing(figure) else _amount(results, key, figure, with_unit=False)
        found.append(BigFigure(value, label, "; ".join(filter(None, beside))))
    if arm.trainable_fraction is not None:
        found.append(BigFigure(percent(arm.trainable_fraction), "of the parameters trained"))
    if arm.train_seconds is not None:
        found.append(BigFigure(duration(arm.train_seconds), "of training"))
    return found


def uptake_share(arm: ArmResult) -> MetricValue | None:
    """The arm's uptake / full training's as a fraction, which is shown in percent everywhere."""
    share = arm.versus_full.get("uptake_share")
    return replace(share, unit="fraction") if share is not None else None


def _learned(results: EvalResult, arm: ArmResult) -> tuple[str, str]:
    """What was learned, and whether that is ``good``, ``little``, ``bad`` or not ``asked``."""
    key = uptake_metric(results)
    if key is None:
        return "Nothing new was asked.", "not asked"
    figure = arm.uptake.get(key)
    if figure is None or not is_finite(figure.value):
        why = f": {figure.note}" if figure is not None and figure.note else ""
        return f"What it learned is not known{why}.", "little"
    size = size_text(figure.value, figure.unit)
    floor = _GAIN_FLOOR.get(figure.unit, _NATS_GAIN)
    if figure.value <= -floor:
        return f"Learned nothing: {metric_label(key)} got worse by {size[1:]}.", "bad"
    if figure.value < floor:
        return f"Next to nothing learned ({size}): is the rate too low?", "bad"
    if figure.low is not None and figure.low <= 0:
        return f"Nothing measurably learned: {size} [{interval(figure)}] on new facts.", "bad"
    share, full = uptake_share(arm), best_reference(results)
    if share is None or not is_finite(share.value):
        return f"Learned: {size} gained on {metric_label(key)}.", "good"
    if full is not None and (full.uptake[key].value or 0) < floor:
        return f"Learned: {size} gained, where full training learned next to nothing.", "good"
    text = f"Learned {whole_percent(share.value)} of what full training learned."
    return text, "good" if share.value >= _MUCH else "little"


def _lost(results: EvalResult, arm: ArmResult, key: str) -> tuple[str, str] | None:
    """What was lost of one measure, and whether less than full training lost."""
    figure = arm.forgetting.get(key)
    if figure is None or not is_finite(figure.value):
        return None
    if _is_nothing(figure):
        text = f"Lost nothing of {metric_label(key)}"
    else:
        text = f"Lost {_amount(results, key, figure)} of {metric_label(key)}"
    full = best_reference(results)
    other = full.forgetting.get(key) if full else None
    if other is not None and is_finite(other.value):
        amount = "nothing" if _is_nothing(other) else _amount(results, key, other)
        text += f", where full training lost {amount}"
    return f"{text}.", _loss_tone(arm, figure, other, key)


def _loss_tone(arm: ArmResult, own: MetricValue, full: MetricValue | None, key: str) -> str:
    ratio = arm.versus_full.get(RATIO + key)
    if ratio is not None and is_finite(ratio.value):
        if ratio.high is not None and ratio.high < 1:
            return "good"
        return "bad" if ratio.low is not None and ratio.low > 1 else "unclear"
    if full is None or not is_finite(full.value):
        return "unclear" if (own.low or 0) > 0 and not _is_nothing(own) else "good"
    if own.high is not None and full.low is not None and own.high < full.low:
        return "good"
    is_more = own.low is not None and full.high is not None and own.low > full.high
    return "bad" if is_more else "unclear"


def _tone(gain: str, losses: Iterable[str], has_reference: bool) -> tuple[str, str]:
    """The tone of the headline and its word; little lost is no merit where little was learned."""
    losses = set(losses)
    if gain == "bad":
        return "bad", "Nothing learned"
    if not losses:
        return "unclear", "Not settled"
    is_good = losses == {"good"}
    if gain == "not asked":
        return ("good", "Nothing lost") if is_good else ("bad", "Lost")
    if gain == "little":
        return "unclear", "Little learned"
    if not has_reference:
        return ("good", "Learned, nothing lost") if is_good else ("unclear", "Learned, and lost")
    if is_good:
        return "good", "Less forgetting"
    if "good" in losses:
        return "unclear", "Mixed"
    return ("bad", "More forgetting") if "bad" in losses else ("unclear", "Not settled")


def _gain_figure(results: EvalResult, arm: ArmResult) -> BigFigure:
    key = uptake_metric(results) or ""
    figure, share = arm.uptake[key], uptake_share(arm)
    if share is not None and is_finite(share.value):
        ends = f"95 % interval {interval(share)}{THIN}%" if interval(share) else ""
        return BigFigure(whole_percent(share.value), "of what full training learned", ends)
    ends = f"95 % interval {interval(figure)}" if interval(figure) else figure.note
    value = number(
        100 * figure.value if figure.value and figure.unit == "fraction" else figure.value
    )
    return BigFigure(value, f"{_unit(figure)} gained: {metric_label(key)}", ends)


def _amount(results: EvalResult, key: str, figure: MetricValue, *, with_unit: bool = True) -> str:
    """What was lost: of facts that the base model had all right, their share."""
    if figure.value is None:
        return number(None)
    if figure.unit == "fraction":
        before = results.baseline_scores.get(key)
        is_share = before is not None and before.value is not None and before.value > 0.999
        return whole_percent(figure.value) + ("" if is_share else " points")
    return size_text(figure.value, figure.unit) if with_unit else number(figure.value)


def _is_nothing(figure: MetricValue) -> bool:
    return is_finite(figure.value) and figure.value < _LOSS_FLOOR.get(figure.unit, _NATS_LOSS)


def _unit(figure: MetricValue) -> str:
    return size_text(0.0, figure.unit).partition(" ")[2]
