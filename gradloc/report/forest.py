"""Rows of figures as places on an axis, one axis a unit.

Comes in: rows of a panel and the looks of arms. Goes out: ``Axis`` values in percent of the
plot's width, ready for a template that draws lines and signs. It escapes nothing: the template
does.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gradloc.evaluation.results import MetricValue
from gradloc.report.changes import Row
from gradloc.report.formatting import MINUS, MISSING, by_unit, interval, number, unit_name
from gradloc.report.pictures import is_finite
from gradloc.report.style import ArmStyle

SIGNS = {"better": "▲", "worse": "▼", "unclear": "≈", "plain": "", "missing": ""}
_ROOM = 0.06  # of the width, at both ends, so that no sign is cut
# Perplexities may differ by orders of magnitude, and a ratio to next to nothing has no upper
# bound: an axis that would reach beyond this is logarithmic.
_LOG_BEYOND = {"perplexity": 100.0, "ratio": 10.0}


@dataclass(frozen=True)
class Mark:
    """One figure.

    Args:
        style: Look of its arm.
        state: Key of ``SIGNS``: what its interval allows to say.
        x: Place in percent of the width; ``None`` where there is no value.
        low: Place of the interval's lower end; ``None`` without an interval.
        high: Place of its upper end.
        text: The value.
        words: Arm, value and interval in words.
    """

    style: ArmStyle
    state: str
    x: float | None
    low: float | None
    high: float | None
    text: str
    words: str

    @property
    def sign(self) -> str:
        """Its state as a sign, so that color is not the only carrier."""
        return SIGNS[self.state]


@dataclass(frozen=True)
class Line:
    """One measure: its words and marks."""

    label: str
    marks: tuple[Mark, ...]

    @property
    def is_dim(self) -> bool:
        """Whether no arm shows a clear change."""
        return all(mark.state in ("unclear", "missing") for mark in self.marks)


@dataclass(frozen=True)
class Axis:
    """All measures of one unit.

    Args:
        unit: Its name.
        lines: The measures.
        ticks: Place and text of each tick.
        zero: Place of zero; ``None`` where it is not on the axis.
        is_log: Whether the axis is logarithmic beyond one.
    """

    unit: str
    lines: tuple[Line, ...]
    ticks: tuple[tuple[float, str], ...]
    zero: float | None
    is_log: bool


def axes(
    rows: Sequence[Row], styles: dict[str, ArmStyle], arms: Sequence[str], *, verb: str
) -> list[Axis]:
    """Lay out rows, those of one unit on one axis, in the order in which units first appear.

    Args:
        rows: The measures.
        styles: Looks of the arms.
        arms: The arms to draw.
        verb: ``gained`` or ``lost`` for changes, whose zero is the base model; empty for scores.
    """
    by_unit: dict[str, list[Row]] = {}
    for row in rows:
        # Nothing says that two measures without a unit have the same one.
        by_unit.setdefault(row.unit or row.key, []).append(row)
    return [_axis(own[0].unit, own, styles, arms, verb) for own in by_unit.values()]


def state(figure: MetricValue | None, is_change: bool) -> str:
    """What may be said of a change: its interval lies on one side of zero, or it does not.

    Returns:
        ``better``, ``worse`` or ``unclear``; ``plain`` for scores and where there is no interval;
        ``missing`` without a value.
    """
    if figure is None or not is_finite(figure.value):
        return "missing"
    if not is_change or not (is_finite(figure.low) or is_finite(figure.high)):
        return "plain"
    if figure.low is not None and figure.low > 0:
        return "better" if figure.higher_is_better else "worse"
    if figure.high is not None and figure.high < 0:
        return "worse" if figure.higher_is_better else "better"
    return "unclear"


def _axis(
    unit: str, rows: list[Row], styles: dict[str, ArmStyle], arms: Sequence[str], verb: str
) -> Axis:
    is_change = bool(verb)
    factor = 100.0 if unit == "fraction" else 1.0
    ends = [
        factor * end
        for row in rows
        for arm in arms
        if (figure := row.figures.get(arm)) is not None
        for end in (figure.value, figure.low, figure.high)
        if is_finite(end)
    ]
    from_zero = is_change or unit in ("fraction", "ratio")
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    if from_zero:
        low, high = min(0.0, low), max(0.0, high)
    is_log = max(abs(low), abs(high)) > _LOG_BEYOND.get(unit, math.inf)
    to = _bend if is_log else float
    place = _placer(to, low, high)
    lines = tuple(
        Line(
            row.label,
            tuple(_mark(row.figures.get(arm), styles[arm], place, factor, is_change, unit)
                  for arm in arms),
        )
        for row in rows
    )  # fmt: skip
    ticks = _log_ticks(low, high) if is_log else _ticks(low, high)
    return Axis(
        unit=_heading(unit, verb),
        lines=lines,
        ticks=tuple((place(tick), _tick_text(tick)) for tick in ticks),
        zero=place(0.0) if low <= 0 <= high else None,
        is_log=is_log,
    )


def _heading(unit: str, verb: str) -> str:
    # A ratio such as FUAR is no loss of a score: it stays what it is.
    if unit == "ratio":
        return unit
    return f"{unit_name(unit, difference=bool(verb)) or 'score'} {verb}".strip()


def _mark(
    figure: MetricValue | None,
    style: ArmStyle,
    place: Callable[[float], float],
    factor: float,
    is_change: bool,
    unit: str,
) -> Mark:
    found = state(figure, is_change)
    if found == "missing":
        why = figure.note if figure is not None and figure.note else "no figure"
        return Mark(style, found, None, None, None, MISSING, f"{style.name}: {why}")
    ends = [
        place(factor * end) if is_finite(end) else edge
        for end, edge in ((figure.low, 0.0), (figure.high, 100.0))
    ]
    bounded = is_finite(figure.low) or is_finite(figure.high)
    # An end that is not bounded is drawn to the edge.
    shown = f", 95 % interval {interval(figure)}" if bounded else ", no interval"
    text = by_unit(figure.value, figure.unit)
    says = {"better": ", better", "worse": ", worse", "unclear": ", no clear change"}.get(found, "")
    return Mark(
        style=style,
        state=found,
        x=place(factor * figure.value),
        low=ends[0] if bounded else None,
        high=ends[1] if bounded else None,
        text=text,
        words=f"{style.name}: {text} {unit_name(unit, difference=is_change)}{says}{shown}, "
        f"n = {figure.n:,}",
    )


def _placer(to: Callable[[float], float], low: float, high: float) -> Callable[[float], float]:
    start, width = to(low), to(high) - to(low)

    def place(value: float) -> float:
        share = (to(value) - start) / width if width else 0.5
        return round(100 * (_ROOM + (1 - 2 * _ROOM) * share), 2)

    return place


def _bend(value: float) -> float:
    """Linear near zero and logarithmic far from it, on both sides."""
    return math.copysign(math.log10(1 + abs(value)), value)


def _ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """About so many round numbers between two ends."""
    width = high - low
    if width <= 0:
        return [low]
    rough = width / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    reach = math.ceil(math.log10(max(abs(low), abs(high))))
    # Every power where there are few, else every other: names of ticks need room.
    powers = [10.0**n for n in range(int(reach > 2), reach + 1, 1 if reach <= 3 else 2)]
    ticks = [-power for power in reversed(powers)] + [0.0] + powers
    return [tick for tick in ticks if low <= tick <= high]


def _tick_text(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace("-", MINUS)
    text = number(value)
    return text.rstrip("0").rstrip(".") if "." in text and "×" not in text else text
