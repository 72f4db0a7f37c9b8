"""From rows to checked probes with ids of their own."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from gradloc.data.benchmarks.benchmark_files import stem
from gradloc.data.benchmarks.benchmark_row import Row
from gradloc.data.probes import Probe
from gradloc.data.probes.parsing import first_problems, to_fields
from gradloc.errors import ProbeError

logger = logging.getLogger(__name__)

Fields = dict[str, Any]
# Fields of the probes that a row makes; problems and reasons go to the row.
FieldsOf = Callable[[Row], Iterable[Fields]]


def make_probes(path: Path, rows: Sequence[Row], fields_of: FieldsOf) -> list[Probe]:
    """Make the probes of all rows.

    An id is ``<file>:<own id>``, where the own id is what ``fields_of`` gives or else the row's
    number; the second probe of one id is called ``<id>#2``. Rows that cannot become probes are
    counted in a warning.

    Args:
        path: The file, for messages and ids.
        rows: Its rows.
        fields_of: Row -> fields of its probes; it notes problems and reasons in the row.

    Returns:
        The probes, in the order of the file.

    Raises:
        ProbeError: Some rows are wrong (all problems together), or no probe is left.
    """
    problems: list[tuple[str, str]] = []
    probes: list[Probe] = []
    reasons: Counter[str] = Counter()
    used: set[str] = set()
    for row in rows:
        drafts = [] if row.problems else list(fields_of(row))
        if row.reasons and not row.problems:
            reasons[row.reasons[0]] += 1
            continue
        # A row with problems would be found wrong again, for what it therefore lacks.
        drafts = [] if row.problems else drafts
        checked = [_checked(row, draft, len(drafts) > 1) for draft in drafts]
        problems += [(row.place, problem) for problem in row.problems]
        if not problems:
            named = ({**values, "id": _unused(path, values["id"], used)} for values in checked)
            probes += [Probe(**values) for values in named]
    if problems:
        raise ProbeError(path, first_problems(_lines(problems, len(rows))))
    left_out = [f"{n} of {len(rows)} rows left out: {reason}" for reason, n in reasons.items()]
    if not probes:
        raise ProbeError(path, left_out or ["its rows make no probe"])
    for line in left_out:
        logger.warning("%s: %s", path, line)
    return probes


def _checked(row: Row, draft: Fields, say_which: bool) -> Fields:
    """The fields of a probe with an id, empty ones left out; problems go to the row."""
    own_id = str(draft.get("id", row.number))
    lists = {name: list(value) for name, value in draft.items() if isinstance(value, tuple)}
    found: list[str] = []
    values = to_fields({**draft, **lists, "id": own_id}, {}, {}, found)
    row.problems.extend(f"{own_id}: {problem}" if say_which else problem for problem in found)
    return values


def _unused(path: str | Path, own_id: str, used: set[str]) -> str:
    identifier = first = f"{stem(path)}:{own_id}"
    repeat = 1
    while identifier in used:
        repeat += 1
        identifier = f"{first}#{repeat}"
    used.add(identifier)
    return identifier


def _lines(problems: Sequence[tuple[str, str]], n_rows: int) -> list[str]:
    """One line a problem; what every row has wrong (a missing column) is said once."""
    counts = Counter(problem for _, problem in problems)
    everywhere = [problem for problem, n in counts.items() if n == n_rows > 1]
    return [
        *(f"all {n_rows} rows: {problem}" for problem in everywhere),
        *(f"{place}: {problem}" for place, problem in problems if problem not in everywhere),
    ]
