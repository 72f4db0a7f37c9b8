"""Benchmarks: files that users download, read as probes. The table is ``benchmarks.yaml``."""

import logging
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

from gradloc.config.yaml_source import parse_yaml
from gradloc.data.benchmarks.benchmark_files import read_rows, stem
from gradloc.data.benchmarks.benchmark_row import Row
from gradloc.data.benchmarks.filling import Benchmark, drafts
from gradloc.data.probes import Probe, ProbeSet
from gradloc.data.probes.parsing import first_problems, to_fields
from gradloc.errors import ProbeError
from gradloc.utils.names import did_you_mean

logger = logging.getLogger(__name__)

_TABLE = files("gradloc.data.benchmarks").joinpath("benchmarks.yaml").read_text(encoding="utf-8")
BENCHMARKS = {name: Benchmark(**entry) for name, entry in parse_yaml(_TABLE).items()}


def read_benchmark(name: str, path: str | Path) -> ProbeSet:
    """Read a downloaded file of a benchmark as probes.

    Rows that are sound but cannot become probes are counted in a warning.

    Args:
        name: A name in ``BENCHMARKS``.
        path: The file, in the form in which its authors release it, plain or ``.gz``.

    Returns:
        The probes, in the order of the file. An id is ``<file>:<own id>``, where a row without
        one has its number; the second probe of one id is called ``<id>#2``.

    Raises:
        ProbeError: The benchmark is unknown; the file is missing, empty, of another ending or
            not UTF-8; or rows are wrong, in which case all problems are reported together with
            their lines.

    Example:
        >>> read_benchmark("ecbdd", "np_spans_dev.json")
        Traceback (most recent call last):
        gradloc.errors.ProbeError: benchmark: 1 problem
          'ecbdd' is unknown. Did you mean 'ecbd'?
    """
    if name not in BENCHMARKS:
        raise ProbeError("benchmark", [f"{name!r} is unknown. {did_you_mean(name, BENCHMARKS)}"])
    benchmark, path = BENCHMARKS[name], Path(path)
    ending = path.name.lower().removesuffix(".gz")
    if path.is_file() and not ending.endswith(tuple(benchmark.files)):
        takes = ", ".join(benchmark.files)
        raise ProbeError(path, [f"{name} takes {takes}, each also with .gz"])
    rows = read_rows(path, benchmark.columns)
    by_row: dict[int, list[dict[str, Any]]] = {row.number: [] for row in rows}
    for row, found in drafts(benchmark, path, [row for row in rows if not row.problems]):
        by_row[row.number].append(found)
    made = [values for row in rows for values in _checked(row, by_row[row.number])]
    if any(row.problems for row in rows):
        raise ProbeError(path, first_problems(_lines(rows)))
    reasons = Counter(row.reasons[0] for row in rows if row.reasons)
    left_out = [f"{n} of {len(rows)} rows left out: {reason}" for reason, n in reasons.items()]
    if not made:
        raise ProbeError(path, left_out or ["its rows make no probe"])
    for line in left_out:
        logger.warning("%s: %s", path, line)
    probes: dict[str, Probe] = {}
    for values in made:
        first = own_id = f"{stem(path)}:{values['id']}"
        repeat = 1
        while own_id in probes:
            repeat += 1
            own_id = f"{first}#{repeat}"
        probes[own_id] = Probe(**{**values, "id": own_id})
    return ProbeSet(probes.values())


def _checked(row: Row, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The fields of a row's probes, empty ones left out; what is wrong is noted in the row."""
    # A row with problems would be found wrong again, for what it therefore lacks.
    if row.problems or row.reasons:
        return []
    checked = []
    for draft in found:
        problems: list[str] = []
        own_id = str(row.number if draft.get("id") in (None, "") else draft["id"])
        lists = {name: list(value) for name, value in draft.items() if isinstance(value, tuple)}
        checked.append(to_fields(draft | lists | {"id": own_id}, {}, {}, problems))
        candidates, targets = lists.get("candidates"), lists.get("targets", [])
        if candidates and (unknown := [text for text in targets if text not in candidates]):
            problems.append(f"targets: {unknown[0]!r} is none of the {len(candidates)} candidates")
        which = f"{own_id}: " if len(found) > 1 else ""
        row.problems.extend(which + problem for problem in problems)
    return checked


def _lines(rows: list[Row]) -> list[str]:
    """One line a problem; what every row has wrong (a missing column) is said once."""
    counts = Counter(problem for row in rows for problem in row.problems)
    everywhere = [problem for problem, n in counts.items() if n == len(rows) > 1]
    return [
        *(f"all {len(rows)} rows: {problem}" for problem in everywhere),
        *(f"{r.place}: {text}" for r in rows for text in r.problems if text not in everywhere),
    ]
