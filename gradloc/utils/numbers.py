"""Bounds on numbers that users give."""

import math

from gradloc.errors import GradlocError


def check_number(
    name: str,
    value: object,
    low: float,
    high: float = math.inf,
    *,
    above: bool = False,
    whole: bool = False,
    error: type[GradlocError] = GradlocError,
) -> None:
    """Refuse what is no finite number, or is out of range.

    Args:
        name: What the number is, for the error text.
        value: What was given.
        low: Least value.
        high: Largest value.
        above: Whether ``low`` itself is out of range.
        whole: Whether it must be an ``int``.
        error: Class of the error.

    Raises:
        GradlocError: It is no such number.

    Example:
        >>> check_number("share", 1.5, 0, 1, above=True)
        Traceback (most recent call last):
        gradloc.errors.GradlocError: share must be a number above 0 and at most 1; found 1.5.
    """
    wrong_kind = isinstance(value, bool) or (whole and not isinstance(value, int))
    if (
        isinstance(value, int | float)
        and not wrong_kind
        and low <= value <= high
        and math.isfinite(value)
        and not (above and value == low)
    ):
        return
    if high < math.inf:
        bounds = f"above {low:g} and at most {high:g}" if above else f"from {low:g} to {high:g}"
    else:
        bounds = f"above {low:g}" if above else f"from {low:g} up"
    kind = "whole number" if whole else "number"
    raise error(f"{name} must be a {kind} {bounds}; found {value!r}.")
