"""Sets of probes: files, and the split by entity.

What chooses the layers does not judge them. It knows no tokens.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gradloc.data.probes.parsing import (
    CHOICES,
    FIELDS,
    SPLITS,
    first_problems,
    parse_line,
    plain,
    to_fields,
    unknown_choice,
    unknown_field,
)
from gradloc.data.probes.probe import Probe
from gradloc.errors import ProbeError
from gradloc.utils.io import read_lines, write_text


@dataclass(frozen=True, init=False)
class ProbeSet:
    """Probes with unique ids, in order.

    Args:
        probes: The probes; any iterable is kept as a tuple.

    Raises:
        ProbeError: Two probes have the same id.
    """

    probes: tuple[Probe, ...]

    def __init__(self, probes: Iterable[Probe]):
        object.__setattr__(self, "probes", tuple(probes))
        counts = Counter(probe.id for probe in self.probes)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            problems = [f"id {name!r} stands for {counts[name]} probes" for name in twice]
            cure = "rename them, or leave ids out to have probes named by file and line"
            raise ProbeError("probe set", [*first_problems(problems), cure])

    def __iter__(self) -> Iterator[Probe]:
        return iter(self.probes)

    def __len__(self) -> int:
        return len(self.probes)

    def save(self, path: str | Path) -> Path:
        """Write the probes as JSONL, one a line, empty fields left out."""
        rows = ({key: value for key, value in asdict(p).items() if value} for p in self.probes)
        return write_text(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))

    @classmethod
    def load(cls, path: str | Path) -> "ProbeSet":
        """Read what ``save`` wrote; the same as ``gradloc.load_probes``."""
        return load_probes(path)

    def select(
        self, group: str | None = None, depth: str | None = None, split: str | None = None
    ) -> "ProbeSet":
        """The probes of one group, depth or split, or of several of these at once.

        Raises:
            ProbeError: The group, depth or split does not exist.
        """
        asked = {"group": group, "depth": depth, "split": split}
        asked = {name: value for name, value in asked.items() if value is not None}
        problems = [
            f"{name} {unknown_choice(name, value)}"
            for name, value in asked.items()
            if value not in CHOICES[name]
        ]
        if problems:
            raise ProbeError("probe selection", problems)
        return ProbeSet(
            p for p in self if all(getattr(p, name) == value for name, value in asked.items())
        )

    def split_by_entity(self, localization_fraction: float, seed: int) -> "ProbeSet":
        """Decide for each entity whether its probes choose layers or judge the result.

        An entity's side follows from a hash of the seed and its name, so it does not depend on
        which other probes there are. The exception: if all would fall on one side, the entity
        nearest to the border changes over. Invariant probes always judge, and so do all other
        probes about the same entity. Probes that carry a split keep it, and their entity's other
        probes follow.

        Args:
            localization_fraction: Expected share of entities that choose layers; 0 and 1 put all
                on one side.
            seed: Seed of the split.

        Returns:
            The same probes in the same order, each with a split.
        """
        keys = [_entity_key(probe) for probe in self]
        side = {k: "evaluation" for k, p in zip(keys, self, strict=True) if p.group == "invariant"}
        side |= {k: p.split for k, p in zip(keys, self, strict=True) if p.split}
        asked = {k for k, p in zip(keys, self, strict=True) if p.group != "invariant"}
        free = sorted(asked - set(side), key=lambda key: _draw(seed, key))
        n_local = sum(_draw(seed, key) < localization_fraction for key in free)
        if 0 < localization_fraction < 1 and len(asked) >= 2:
            decided = {side[key] for key in asked & set(side)}
            n_local = max(n_local, "localization" not in decided)
            n_local = min(n_local, max(0, len(free) - ("evaluation" not in decided)))
        side |= dict.fromkeys(free[:n_local], "localization")
        side |= dict.fromkeys(free[n_local:], "evaluation")
        return ProbeSet(
            replace(p, split=p.split or ("evaluation" if p.group == "invariant" else side[k]))
            for k, p in zip(keys, self, strict=True)
        )

    def check_disjoint(self) -> None:
        """Prove that no entity has probes on both sides.

        Raises:
            ProbeError: Some entities are on both sides; they are named.
        """
        sides: dict[str, set[str]] = {}
        for probe in self:
            sides.setdefault(_entity_key(probe), set()).add(probe.split)
        both = {key for key, found in sides.items() if set(SPLITS) <= found}
        if both:
            names = sorted({p.entity for p in self if _entity_key(p) in both})
            problems = [f"entity {name!r} has localization and evaluation probes" for name in names]
            cure = "what chose the layers must not judge them; give each entity one split"
            raise ProbeError("probe set", [*first_problems(problems), cure])


def _entity_key(probe: Probe) -> str:
    """What a probe is about; spelling variants in case and Unicode form count as one."""
    return f"entity {plain(probe.entity)}" if probe.entity.strip() else f"probe {probe.id}"


def _draw(seed: int, key: str) -> float:
    """A number in [0, 1) that depends on the seed and the key alone."""
    digest = hashlib.sha256(f"{seed}\n{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def load_probes(path: str | Path) -> ProbeSet:
    """Read a probe file.

    Args:
        path: JSONL (or ``.jsonl.gz``), one probe a line, with the fields of ``Probe``. Required
            are ``prompt``, ``targets`` and ``group``; a probe without id is named
            ``<file>:<line>``.

    Returns:
        The probes, in the order of the file.

    Raises:
        FileError: The file is missing, damaged, or not UTF-8 text.
        ProbeError: The file is empty, or some lines are wrong; all problems together.
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
    for number, line in read_lines(path, "probe file (JSONL)"):
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
