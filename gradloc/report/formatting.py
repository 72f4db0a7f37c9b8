"""Numbers as people read them: three significant digits, a true minus, thousands separators."""

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from gradloc.evaluation.results import MetricValue

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
MISSING = "\N{EM DASH}"
THIN = "\N{NARROW NO-BREAK SPACE}"
# From here on numbers are written with a power of ten.
LARGE = 1e7
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with so many significant digits.

    Example:
        >>> number(1234.5), number(0.01234), number(-2.5), number(None)
        ('1,234', '0.0123', '−2.50', '—')
    """
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return (MINUS if value < 0 else "") + "∞"
    if value == 0:
        return "0"
    if abs(value) < 1e-4 or abs(value) >= LARGE:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        power = str(int(exponent)).translate(_SUPERSCRIPT)
        return f"{mantissa} × 10{power}".replace("-", MINUS)
    # The exponent after rounding: 0.9996 is 1.00, not 1.000.
    exponent = int(f"{value:.{digits - 1}e}".split("e")[1])
    return f"{value:,.{max(0, digits - 1 - exponent)}f}".replace("-", MINUS)


def percent(value: float | None) -> str:
    """Write a fraction as a percentage."""
    if value is None or math.isnan(value):
        return MISSING
    return f"{number(100 * value)}{THIN}%"


def learning_rate(value: float | None) -> str:
    """Write a learning rate the way recipes do: ``2.5e-4``."""
    if not is_finite(value):
        return number(value)
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def duration(seconds: float | None) -> str:
    """Write a time span."""
    if not is_finite(seconds):
        return number(seconds)
    if seconds < 100:
        return f"{number(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{minutes // 60} h {minutes % 60} min"


def by_unit(value: float | None, unit: str) -> str:
    """Write a value in its unit's customary form, without naming the unit.

    Fractions become percentages: the caller says whether these are percent or, for a
    difference, percentage points.
    """
    if value is None:
        return MISSING
    if unit == "MiB":
        return f"{value:,.0f}" if is_finite(value) else number(value)
    return number(100 * value) if unit == "fraction" else number(value)


def interval(figure: MetricValue, *, brackets: bool = False) -> str:
    """Write the 95 % interval of a figure; empty where it has none.

    An end that the evaluation left out, because it is not bounded, becomes ∞.
    """
    if figure.value is None or (figure.low is None and figure.high is None):
        return ""
    factor = 100 if figure.unit == "fraction" else 1
    text = span(*(factor * end for end in ends(figure)))
    return f"[{text}]" if brackets else text


def ends(figure: MetricValue) -> tuple[float, float]:
    """Ends of an interval; one that is missing may lie anywhere."""
    low, high = figure.low, figure.high
    return -math.inf if low is None else low, math.inf if high is None else high


def span(low: float, high: float) -> str:
    """Write two ends with as many decimals as two digits of their distance need.

    Example:
        >>> span(0.0462, 0.0698), span(67.2, 81.2), span(0.31, math.inf)
        ('0.046 to 0.070', '67 to 81', '0.310 to ∞')
    """
    width = high - low
    decimals = 1 - math.floor(math.log10(width)) if 0 < width < math.inf else 9
    # Beyond what number() writes out, all digits would be read by nobody.
    if decimals > 4 or any(math.isfinite(end) and abs(end) >= LARGE for end in (low, high)):
        return f"{number(low)} to {number(high)}"
    ends = (f"{end:,.{max(0, decimals)}f}".replace("-", MINUS) for end in (low, high))
    return " to ".join(ends)


def figure_text(figure: MetricValue) -> str:
    """A figure as ``0.43 [0.41 to 0.45]``."""
    return f"{by_unit(figure.value, figure.unit)} {interval(figure, brackets=True)}".strip()


def is_finite(value: float | None) -> TypeGuard[float]:
    """Whether there is a number."""
    return value is not None and math.isfinite(value)


def finite(figure: MetricValue | None) -> Any:
    """The figure where its value is a number, else nothing."""
    return figure if figure is not None and is_finite(figure.value) else None


def whole_percent(share: float) -> str:
    """A share as a sentence says it: ``134 %``, ``4.9 %``."""
    digits = f"{100 * share:.0f}" if abs(share) >= 0.1 else number(100 * share, 2)
    return f"{digits.replace('-', MINUS)}{THIN}%"


def share_text(share: float) -> str:
    """A round share as a table head says it: ``75 %``."""
    return f"{100 * share:g}{THIN}%"


def size_text(value: float, unit: str) -> str:
    """A change with its unit as a sentence says it: ``10.0 % points``."""
    return f"{by_unit(value, unit)} {unit_name(unit, difference=True)}"


def arm_methods(methods: Mapping[str, Mapping[str, Any]]) -> str:
    """Methods with their options: ``replay (ratio 0.5); lora``."""
    described = []
    for name, options in methods.items():
        given = ", ".join(f"{key} {value}" for key, value in options.items())
        described.append(f"{name} ({given})" if given else name)
    return "; ".join(described)


def capitalize(text: str) -> str:
    """The text with its first letter large, the rest as it is."""
    return text[:1].upper() + text[1:]


def unit_name(unit: str, *, difference: bool) -> str:
    """Name a unit as a table head or axis does."""
    if unit == "fraction":
        return "% points" if difference else "%"
    spelled = {"nats/token": "nats per token", "bits/byte": "bits per byte", "ratio": "×"}
    return spelled.get(unit, unit)


def ranges(numbers: list[int]) -> str:
    """Write block numbers briefly.

    Example:
        >>> ranges([3, 4, 5, 9])
        '3–5, 9'
    """
    runs: list[list[int]] = []
    for value in sorted(numbers):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}{DASH}{run[-1]}" for run in runs)
