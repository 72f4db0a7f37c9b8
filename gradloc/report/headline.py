"""The headline of a report: what the main arm learned and lost, in whole words and big figures."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from gradloc.evaluation.results import ArmResult, EvalResult, MetricValue
from gradloc.report.arms import best_reference, has_diverged, uptake_metric
from gradloc.report.formatting import (
    THIN,
    by_unit,
    duration,
    ends,
    finite,
    interval,
    number,
    percent,
    size_text,
    unit_name,
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
    losses = list(_losses(results, arm))
    tones = [loss.tone for loss in losses]
    # A second measure is said where it says something else than the first.
    told = [loss for place, loss in enumerate(losses) if not place or loss.tone != tones[0]]
    tone, word = _tone(gain, set(tones), best_reference(results) is not None)
    sentences = [learned, *(loss.sentence for loss in told)]
    if not losses:
        sentences.append("What it lost is not known: nothing that the base model had was scored.")
    elif word == "Not settled":
        sentences.append("This run does not show that it forgets less than full training.")
    return Headline(tone, word, main, " ".join(sentences))


def big_figures(results: EvalResult, main: str) -> list[BigFigure]:
    """The main arm in a few large numbers, full training's beside them."""
    arm = results.arms[main]
    found = [_gain_figure(results, arm)] if uptake_metric(results) in arm.uptake else []
    found += [loss.big_figure for loss in _losses(results, arm)]
    if arm.trainable_fraction is not None:
        found.append(BigFigure(percent(arm.trainable_fraction), "of the parameters trained"))
    if arm.train_seconds is not None:
        found.append(BigFigure(duration(arm.train_seconds), "of training"))
    return found


def uptake_share(arm: ArmResult) -> MetricValue | None:
    """The arm's uptake / full training's as a fraction, which is shown in percent everywhere."""
    share = arm.versus_full.get("uptake_share")
    return replace(share, unit="fraction") if share is not None else None


class _Loss(NamedTuple):
    """One measure of what an arm lost.

    Args:
        label: What the measure is called.
        own: What the arm lost.
        full: What full training lost, where that is known.
        ratio: Their ratio at equal uptake, where there is one.
        is_share: Whether the base model had all of it right, so that a loss is a share of it.
    """

    label: str
    own: MetricValue
    full: MetricValue | None
    ratio: MetricValue | None
    is_share: bool

    def amount(self, figure: MetricValue, *, with_unit: bool = True) -> str:
        value = figure.value or 0.0
        if value < _LOSS_FLOOR.get(figure.unit, _NATS_LOSS):
            return "nothing"
        if figure.unit == "fraction":
            return whole_percent(value) + ("" if self.is_share else " points")
        return size_text(value, figure.unit) if with_unit else number(value)

    @property
    def sentence(self) -> str:
        compared = f", where full training lost {self.amount(self.full)}" if self.full else ""
        return f"Lost {self.amount(self.own)} of {self.label}{compared}."

    @property
    def tone(self) -> str:
        """Whether less than full training lost, as far as the intervals tell."""
        own, full = self.own, self.full
        if self.ratio:
            (low, high), bounds = ends(self.ratio), (1.0, 1.0)
        elif full:
            (low, high), bounds = ends(own), ends(full)
        else:
            return "unclear" if (own.low or 0) > 0 and self.amount(own) != "nothing" else "good"
        return "good" if high < bounds[0] else "bad" if low > bounds[1] else "unclear"

    @property
    def big_figure(self) -> BigFigure:
        value, small = self.amount(self.own, with_unit=False), []
        if interval(self.own):
            small.append(f"95 % interval {interval(self.own)}")
        if self.full and self.full is not self.own:
            small.append(f"full training {self.amount(self.full)}")
        if self.ratio and value != "nothing":
            small.append(f"at equal uptake {number(self.ratio.value)} times as much")
        is_plain = self.own.unit == "fraction" or value == "nothing"
        unit = "" if is_plain else f"{unit_name(self.own.unit, difference=True)} "
        return BigFigure(value, f"{unit}of {self.label} lost", "; ".join(small))


def _losses(results: EvalResult, arm: ArmResult) -> Iterator[_Loss]:
    """The main measures of what an arm lost; what is not finite is left out."""
    best = best_reference(results)
    for key in main_losses(results):
        own, before = finite(arm.forgetting.get(key)), finite(results.baseline_scores.get(key))
        if own:
            full = finite(best.forgetting.get(key)) if best else None
            ratio = finite(arm.versus_full.get(RATIO + key))
            is_share = before is not None and before.value > 0.999
            yield _Loss(metric_label(key), own, full, ratio, is_share)


def _learned(results: EvalResult, arm: ArmResult) -> tuple[str, str]:
    """What was learned, and whether that is ``good``, ``little``, ``bad`` or not ``asked``."""
    key = uptake_metric(results)
    if key is None:
        return "Nothing new was asked.", "not asked"
    figure = arm.uptake.get(key)
    gain = finite(figure)
    if gain is None:
        why = f": {figure.note}" if figure is not None and figure.note else ""
        return f"What it learned is not known{why}.", "little"
    size, floor = size_text(gain.value, gain.unit), _GAIN_FLOOR.get(gain.unit, _NATS_GAIN)
    if gain.value <= -floor:
        return f"Learned nothing: {metric_label(key)} got worse by {size[1:]}.", "bad"
    if gain.value < floor:
        return f"Next to nothing learned ({size}): is the rate too low?", "bad"
    if gain.low is not None and gain.low <= 0:
        return f"Nothing measurably learned: {size} [{interval(gain)}] on new facts.", "bad"
    share, full = finite(uptake_share(arm)), best_reference(results)
    if share is None:
        return f"Learned: {size} gained on {metric_label(key)}.", "good"
    if full is not None and (full.uptake[key].value or 0) < floor:
        return f"Learned: {size} gained, where full training learned next to nothing.", "good"
    text = f"Learned {whole_percent(share.value)} of what full training learned."
    return text, "good" if share.value >= _MUCH else "little"


def _tone(gain: str, losses: set[str], has_reference: bool) -> tuple[str, str]:
    """The tone of the headline and its word; little lost is no merit where little was learned."""
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
    figure, share = arm.uptake[key], finite(uptake_share(arm))
    if share is not None:
        small = f"95 % interval {interval(share)}{THIN}%" if interval(share) else ""
        return BigFigure(whole_percent(share.value), "of what full training learned", small)
    small = f"95 % interval {interval(figure)}" if interval(figure) else figure.note
    label = f"{unit_name(figure.unit, difference=True)} gained: {metric_label(key)}"
    return BigFigure(by_unit(figure.value, figure.unit), label, small)
