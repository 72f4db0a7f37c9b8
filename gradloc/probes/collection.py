"""A probe, and sets of probes with their split by entity.

Comes in: probes. Goes out: a ``ProbeSet``, split so that what chooses the layers does not judge
them, and the text of a probe with the place of its answer. It knows no tokens.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gradloc.artifacts import write_text
from gradloc.errors import ProbeError
from gradloc.probes.records import CHOICES, SPLITS, first_problems, plain, unknown_choice
from gradloc.probes.spacing import join


@dataclass(frozen=True)
class Probe:
    """A prompt and the answers that count as right.

    Args:
        id: Unique within its set.
        group: ``new`` (no older answer exists), ``updated`` (the answer changed at the cut-off)
            or ``invariant`` (the answer stays).
        prompt: Text before the answer; empty only where the candidates are whole sentences.
        targets: Right answers; the first is the one whose likelihood is scored.
        depth: ``verbatim`` (as trained), ``paraphrase`` or ``composition`` (needs two facts).
        old_targets: Answers that were right before the cut-off (``updated`` only).
        suffix: Text after the answer.
        candidates: Choices for a multiple-choice reading of the probe.
        entity: What the probe is about; empty means that the probe stands for itself.
        date: ISO date at which the fact began to hold.
        split: ``localization`` probes choose the layers, ``evaluation`` probes judge the result;
            empty until ``ProbeSet.split_by_entity`` decides.
        task: Name of the benchmark it is reported under (``arc_easy``); empty: it is reported
            under its group.
        kind: Sub-type within its task or group (``Reasoning``, ``NP``), reported apart as well.
        case: The edit or passage it belongs to, for metrics that average within cases first.
    """

    id: str
    group: str
    prompt: str
    targets: tuple[str, ...]
    depth: str = "paraphrase"
    old_targets: tuple[str, ...] = ()
    suffix: str = ""
    candidates: tuple[str, ...] = ()
    entity: str = ""
    date: str = ""
    split: str = ""
    task: str = ""
    kind: str = ""
    case: str = ""

    def text(self, answer: str) -> tuple[str, int, int]:
        """The probe's whole text with an answer in its place.

        Args:
            answer: The answer; the spaces around it follow the rule of ``join``.

        Returns:
            The text, and the character span of the answer without surrounding white space.
        """
        before = join(self.prompt, answer)
        start = len(before) - len(answer.lstrip())
        return join(before, self.suffix), start, len(before.rstrip())


@dataclass(frozen=True)
class ProbeSet:
    """Probes with unique ids, in order.

    Args:
        probes: The probes; any iterable is kept as a tuple.

    Raises:
        ProbeError: Two probes have the same id.
    """

    probes: tuple[Probe, ...]

    def __post_init__(self):
        object.__setattr__(self, "probes", tuple(self.probes))
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
        from gradloc.probes.files import load_probes  # reading makes ProbeSets

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
