"""Probe files.

Comes in: a JSONL file, in the form of ``ProbeSet.save`` or with other columns. Goes out: a
``ProbeSet``, or all that is wrong with the file.
"""

import gzip
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradloc.errors import ProbeError
from gradloc.probes.collection import Probe, ProbeSet
from gradloc.probes.records import FIELDS, first_problems, parse_line, to_fields, unknown_field


def load_probes(path: str | Path) -> ProbeSet:
    """Read a probe file.

    Args:
        path: JSONL (or ``.jsonl.gz``), one probe a line, with the fields of ``Probe``. Required
            are ``prompt``, ``targets`` and ``group``; a probe without id is named
            ``<file>:<line>``.

    Returns:
        The probes, in the order of the file.

    Raises:
        ProbeError: The file is missing or empty, or some lines are wrong; all problems together.
    """
    return read_probe_rows(path)


def read_probe_rows(
    path: str | Path,
    fields: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> ProbeSet:
    """Read probes from a JSONL file that may have other columns than a probe has.

    A single string where a list is expected becomes a list of one; whole numbers become text.

    Args:
        path: JSONL file, plain or ``.gz``.
        fields: Probe field -> column of the file, where they differ. If given, columns that
            no field takes are ignored, and of rows with one id (several probes on one document)
            the second is called ``<id>#2``; otherwise both are refused.
        defaults: Probe field -> value for rows that lack it or have ``null`` there.

    Returns:
        The probes, in the order of the file.

    Raises:
        ProbeError: As ``load_probes``; also a mapping of fields that a probe does not have.
    """
    path, columns, defaults = Path(path), dict(fields or {}), dict(defaults or {})
    problems = [
        f"{which}: {unknown_field(key)}"
        for which, keys in (("fields", columns), ("defaults", defaults))
        for key in keys
        if key not in FIELDS
    ]
    if problems:
        raise ProbeError(path, problems)
    stem = path.name.removesuffix(".gz").removesuffix(".jsonl")
    probes: list[Probe] = []
    line_of: dict[str, int] = {}
    n_same: Counter[str] = Counter()
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        found: list[str] = []
        row = parse_line(line, found)
        if not found:
            values = {"id": f"{stem}:{number}", **to_fields(row, columns, defaults, found)}
            n_same[values["id"]] += 1
            if n_same[values["id"]] > 1 and columns:
                values["id"] += f"#{n_same[values['id']]}"
            if values["id"] in line_of:
                found.append(f"id {values['id']!r} is taken by line {line_of[values['id']]}")
            line_of.setdefault(values["id"], number)
        if not found and not problems:
            probes.append(Probe(**values))
        problems += [f"line {number}: {problem}" for problem in found]
    if not probes and not problems:
        problems = ["the file is empty; expected one probe a line: {prompt, targets, group}"]
    if problems:
        raise ProbeError(path, first_problems(problems))
    return ProbeSet(probes)


def _lines(path: Path) -> list[str]:
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
        return raw.decode("utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise ProbeError(path, ["no such file; expected probes as JSONL"]) from error
    except UnicodeDecodeError as error:
        raise ProbeError(path, [f"is not UTF-8 text ({error}); save it again as UTF-8"]) from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ProbeError(path, [f"cannot be read: {reason}"]) from error
