"""Periods of the calendar: months, quarters, years."""

import re
from collections.abc import Iterable
from datetime import date, timedelta
from typing import NamedTuple

from gradloc.errors import GradlocError

# Months of one period.
MONTHS = {"month": 1, "quarter": 3, "year": 12}
_FORM = re.compile(r"(\d{4})(?:-(?:Q([1-4])|(\d{2})(?:-(\d{2}))?))?")


class Period(NamedTuple):
    """A stretch of the calendar.

    Args:
        name: ``2025-03``, ``2025-Q1`` or ``2025``; names sort by date.
        start: ISO date of its first day.
        end: ISO date of the day after its last.
    """

    name: str
    start: str
    end: str

    def holds(self, day: str) -> bool:
        """Whether an ISO date lies in it."""
        return self.start <= day < self.end


def calendar_periods(start: str, end: str, by: str) -> tuple[Period, ...]:
    """The periods that a stretch of days touches; the first and last are cut to it.

    Args:
        start: ISO date of the first day.
        end: ISO date of the day after the last.
        by: ``month``, ``quarter`` or ``year``.

    Example:
        >>> [tuple(period) for period in calendar_periods("2024-11-05", "2025-02-01", "quarter")]
        [('2024-Q4', '2024-11-05', '2025-01-01'), ('2025-Q1', '2025-01-01', '2025-02-01')]
    """
    found = []
    day = start
    while day < end:
        quarter = f"{day[:4]}-Q{(int(day[5:7]) + 2) // 3}"
        name = {"month": day[:7], "quarter": quarter, "year": day[:4]}[by]
        found.append(Period(name, day, min(period_end(day, by), end)))
        day = period_end(day, by)
    return tuple(found)


def period_end(day: str, by: str) -> str:
    """First day of the period after the one that an ISO date lies in.

    Example:
        >>> period_end("2025-02-11", "month"), period_end("2025-02-11", "quarter")
        ('2025-03-01', '2025-04-01')
    """
    length = MONTHS[by]
    months = 12 * int(day[:4]) + int(day[5:7]) - 1
    end = (months // length + 1) * length
    return date(end // 12, end % 12 + 1, 1).isoformat()


def stretch(text: str, option: str) -> tuple[str, str]:
    """First day and the day after the last of what a user names.

    Args:
        text: ``2025``, ``2025-Q1``, ``2025-03`` or ``2025-03-14``.
        option: Name of the option, for the message.

    Raises:
        GradlocError: It is none of these, or not in the calendar.

    Example:
        >>> stretch("2025-Q1", "--from"), stretch("2024-02", "--to")
        (('2025-01-01', '2025-04-01'), ('2024-02-01', '2024-03-01'))
    """
    match = _FORM.fullmatch(text)
    try:
        if match and match[4]:
            day = date.fromisoformat(text)
            return text, (day + timedelta(days=1)).isoformat()
        if match:
            by = "month" if match[3] else "quarter" if match[2] else "year"
            month = match[3] or f"{3 * int(match[2] or 1) - 2:02d}"
            first = date.fromisoformat(f"{match[1]}-{month}-01").isoformat()
            return first, period_end(first, by)
    except ValueError:
        pass
    raise GradlocError(
        f"{option}: {text!r} is no period of the calendar; write 2025, 2025-Q1, 2025-03 or "
        "2025-03-14."
    )


def period_of(day: str, periods: Iterable[Period]) -> Period | None:
    """The period that an ISO date lies in; ``None`` for other dates and for no date."""
    return next((period for period in periods if period.holds(day)), None)
