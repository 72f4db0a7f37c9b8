"""Probes: prompts with gold answers, and the text that they make together.

Comes in: JSONL rows. Goes out: a ``ProbeSet``, and for each probe its text with the place of the
answer. It runs no model and knows no tokens (see ``gradloc.spans``).
"""

import datetime
import gzip
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from gradloc.artifacts import write_text
from gradloc.errors import ProbeError
from gradloc.schema import did_you_mean

GROUPS = ("new", "updated", "invariant")
DEPTHS = ("verbatim", "paraphrase", "composition")
SPLITS = ("localization", "evaluation")


@dataclass(frozen=True)
class Probe:
    """A prompt and the answers that count as right.

    Args:
        id: Unique within its set.
        group: ``new`` (no older answer exists), ``updated`` (the answer changed at the cut-off)
            or ``invariant`` (the answer stays).
        prompt: Text before the answer.
        targets: Right answers; the first is the one whose likelihood is scored.
        depth: ``verbatim`` (as trained), ``paraphrase`` or ``composition`` (needs two facts).
        old_targets: Answers that were right before the cut-off (``updated`` only).
        suffix: Text after the answer.
        candidates: Choices for a multiple-choice reading of the probe.
        entity: What the probe is about; empty means that the probe stands for itself.
        date: ISO date at which the fact began to hold.
        split: ``localization`` probes choose the layers, ``evaluation`` probes judge the result;
            empty until ``ProbeSet.split_by_entity`` decides.
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


_CHOICES = {"group": GROUPS, "depth": DEPTHS, "split": SPLITS}
_LISTS = ("targets", "old_targets", "candidates")
_FIELDS = tuple(field.name for field in fields(Probe))

# One look at a broken file shows whether one line or every line is wrong.
MAX_PROBLEMS = 50


@dataclass(frozen=True)
class ProbeSet:
    """Probes with unique ids, in order.

    Args:
        probes: The probes.

    Raises:
        ProbeError: Two probes have the same id.
    """

    probes: tuple[Probe, ...]

    def __post_init__(self):
        object.__setattr__(self, "probes", tuple(self.probes))
        seen: set[str] = set()
        twice = {p.id: None for p in self.probes if p.id in seen or seen.add(p.id)}
        if twice:
            raise ProbeError(
                "probe set",
                [
                    f"id {name!r} stands for more than one probe; rename it, or leave ids out of the "
                    "files to have them named by file and line"
                    for name in list(twice)[:MAX_PROBLEMS]
                ],
            )

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
            _unknown(name, value) for name, value in asked.items() if value not in _CHOICES[name]
        ]
        if problems:
            raise ProbeError("probe selection", problems)
        return ProbeSet(
            tuple(
                p for p in self if all(getattr(p, name) == value for name, value in asked.items())
            )
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
        side: dict[str, str] = {}
        for probe in self:
            if probe.group == "invariant":
                side[_entity_key(probe)] = "evaluation"
        for probe in self:
            if probe.split:
                side[_entity_key(probe)] = probe.split
        free = {_entity_key(p) for p in self if _entity_key(p) not in side}
        by_draw = sorted(free, key=lambda key: _draw(seed, key))
        n_local = sum(_draw(seed, key) < localization_fraction for key in by_draw)
        if 0 < localization_fraction < 1:
            changing = {
                side[_entity_key(p)]
                for p in self
                if p.group != "invariant" and _entity_key(p) in side
            }
            enough = len(by_draw) + len(changing) >= 2
            if enough and n_local == 0 and "localization" not in changing and by_draw:
                n_local = 1
            if enough and n_local == len(by_draw) and "evaluation" not in changing and by_draw:
                n_local -= 1
        side |= dict.fromkeys(by_draw[:n_local], "localization")
        side |= dict.fromkeys(by_draw[n_local:], "evaluation")
        return ProbeSet(
            tuple(
                p
                if p.split
                else replace(
                    p, split="evaluation" if p.group == "invariant" else side[_entity_key(p)]
                )
                for p in self
            )
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
            raise ProbeError(
                "probe set",
                [
                    f"entity {name!r} has localization and evaluation probes; what chose the layers "
                    "must not judge them. Give all its probes one split"
                    for name in names
                ],
            )


def load_probes(path: str | Path) -> ProbeSet:
    """Read a probe file.

    Args:
        path: JSONL (or ``.jsonl.gz``), one probe a line, with the fields of ``Probe``. Required
            are ``prompt``, ``targets`` and ``group``; a probe without id is named
            ``<file>:<line>``.

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
            no field takes are ignored; otherwise unknown keys are refused.
        defaults: Probe field -> value for rows that lack it or have ``null`` there.

    Raises:
        ProbeError: As ``load_probes``; also a mapping of fields that a probe does not have.
    """
    path, columns, defaults = Path(path), dict(fields or {}), dict(defaults or {})
    problems = [
        f"{which}: {_unknown_key(key)}"
        for which, keys in (("fields", columns), ("defaults", defaults))
        for key in keys
        if key not in _FIELDS
    ]
    if problems:
        raise ProbeError(path, problems)
    stem = path.name.removesuffix(".gz").removesuffix(".jsonl")
    probes: list[Probe] = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        found: list[str] = []
        row = _parse(line, found)
        if row is not None:
            if not columns:
                found += [_unknown_key(key) for key in row if key not in _FIELDS]
            values = {name: row.get(columns.get(name, name)) for name in _FIELDS}
            values = {k: defaults.get(k) if v is None else v for k, v in values.items()}
            probe = _build(values, columns, f"{stem}:{number}", found)
            if probe is not None and probe.id in first_line:
                found.append(f"id {probe.id!r} is taken by line {first_line[probe.id]}")
            elif probe is not None:
                first_line[probe.id] = number
                probes.append(probe)
        problems += [f"line {number}: {problem}" for problem in found]
    if problems:
        more = len(problems) - MAX_PROBLEMS
        raise ProbeError(
            path, problems if more <= 0 else [*problems[:MAX_PROBLEMS], f"... and {more} more"]
        )
    if not probes:
        raise ProbeError(
            path,
            [
                "the file is empty; expected one probe a line, as JSON with "
                "prompt, targets and group"
            ],
        )
    return ProbeSet(tuple(probes))


def _lines(path: Path) -> Iterable[str]:
    try:
        raw = path.read_bytes()
        return (
            (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig").split("\n")
        )
    except FileNotFoundError as error:
        raise ProbeError(path, ["no such file; expected probes as JSONL"]) from error
    except UnicodeDecodeError as error:
        raise ProbeError(path, [f"is not UTF-8 text ({error}); save it again as UTF-8"]) from error
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ProbeError(path, [f"cannot be read: {reason}"]) from error


def _parse(line: str, problems: list[str]) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError as error:
        problems.append(f"is not JSON: {error}")
        return None
    if not isinstance(row, dict):
        problems.append(f"expected an object in braces, found a {type(row).__name__}")
        return None
    return row


def _build(
    values: dict[str, Any], columns: dict[str, str], default_id: str, problems: list[str]
) -> Probe | None:
    """A probe from its values, or ``None`` and what is wrong with them."""
    n_before = len(problems)

    def where(name: str) -> str:
        return name if name not in columns else f"{name} (column {columns[name]!r})"

    made: dict[str, Any] = {}
    for name, value in values.items():
        if value is None:
            continue
        items = list(value) if isinstance(value, list) and name in _LISTS else [value]
        texts = [_as_text(item) for item in items]
        if None in texts:
            kind = "text or a list of texts" if name in _LISTS else "text"
            problems.append(f"{where(name)}: expected {kind}, found {_shown(value)}")
            made[name] = None
        else:
            made[name] = tuple(texts) if name in _LISTS else texts[0]
    for name in ("prompt", "targets", "group"):
        if name not in made or made[name] in ("", ()):
            problems.append(f"{where(name)}: is missing or empty; every probe needs it")
    for name in _LISTS:
        if any(not text.strip() for text in made.get(name) or ()):
            problems.append(f"{where(name)}: holds an empty text")
    for name, known in _CHOICES.items():
        if made.get(name) and made[name] not in known:
            problems.append(f"{where(name)}: {_unknown(name, made[name])}")
    if made.get("date") and not _is_iso_date(made["date"]):
        problems.append(f"{where('date')}: expected YYYY-MM-DD, found {made['date']!r}")
    right = {_plain(text) for text in made.get("targets") or ()}
    for text in made.get("old_targets") or ():
        if _plain(text) in right:
            problems.append(
                f"{where('old_targets')}: {text!r} is a target too; an answer cannot "
                "be both right and out of date"
            )
    if len(problems) > n_before:
        return None
    return Probe(**{"id": default_id, **{k: v for k, v in made.items() if k != "id" or v}})


def _as_text(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        return None
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair, which no tokenizer takes
        return None
    return value


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_iso_date(text: str) -> bool:
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _unknown(name: str, value: str) -> str:
    return f"{name} {value!r} is unknown. {did_you_mean(value, _CHOICES[name])}"


def _unknown_key(key: str) -> str:
    return f"unknown key {key!r}. {did_you_mean(key, _FIELDS)}"


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip().casefold()


def _entity_key(probe: Probe) -> str:
    """What a probe is about; spelling variants in case and Unicode form count as one."""
    return f"entity {_plain(probe.entity)}" if probe.entity.strip() else f"probe {probe.id}"


def _draw(seed: int, key: str) -> float:
    """A number in [0, 1) that depends on the seed and the key alone."""
    digest = hashlib.sha256(f"{seed}\n{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


# Code points of scripts written without spaces between words.
_SPACELESS = (
    (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19FF),  # Tai Le, New Tai Lue, Khmer symbols
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x2E80, 0x312F),  # CJK radicals and punctuation, kana, bopomofo (Hangul has spaces)
    (0x31A0, 0x9FFF),  # kana extensions, CJK ideographs
    (0xA980, 0xA9FF),  # Javanese, Myanmar extended
    (0xAA60, 0xAADF),  # Myanmar extended, Tai Viet
    (0xF900, 0xFAFF),  # CJK compatibility ideographs
    (0xFF00, 0xFF9F),  # full-width forms, half-width kana
    (0x1B000, 0x1B16F),  # kana supplements
    (0x20000, 0x3FFFF),  # CJK ideographs, supplementary planes
)
_QUOTES = "\"'"
_CLOSING = set(".,;:!?%‰…、。，．：；！？،؛؟।॥")
_CLITIC = re.compile(r"['’](s|t|d|m|ll|re|ve)\b(?!-)", re.IGNORECASE)


def join(prompt: str, answer: str) -> str:
    """Put an answer behind a prompt, with one space between them where writing wants one.

    No space is put if either is empty; if the prompt ends, or the answer begins, with white
    space; if the prompt ends with an opening bracket or quote, a dash or a currency sign that
    nothing precedes; if the answer begins with closing punctuation, a combining mark, or a
    hyphen and a letter; or if both neighbours belong to scripts written without spaces
    (Chinese, Japanese, Thai, Lao, Khmer, Myanmar, ...).

    Example:
        >>> join("The capital of France is", "Paris")
        'The capital of France is Paris'
        >>> join("The film (", "1994")
        'The film (1994'
        >>> join("日本の首都は", "東京")
        '日本の首都は東京'
    """
    glued = not prompt or not answer or prompt[-1].isspace() or answer[0].isspace()
    glued = glued or _opens(prompt) or _closes(answer)
    glued = glued or (_is_spaceless(prompt[-1]) and _is_spaceless(answer[0]))
    return prompt + answer if glued else f"{prompt} {answer}"


def _opens(prompt: str) -> bool:
    """Whether the last character belongs to what follows."""
    last, before = prompt[-1], prompt[-2:-1]
    category = unicodedata.category(last)
    if category in ("Ps", "Pd") or last in "¿¡":
        return True
    # Quotes differ between languages: “ opens in English and closes in German. What stands
    # before a quote decides.
    alone = not before or before.isspace() or unicodedata.category(before) in ("Ps", "Pi", "Pd")
    return alone and (category in ("Pi", "Pf", "Sc") or last in _QUOTES)


def _closes(answer: str) -> bool:
    """Whether the first character belongs to what precedes."""
    first, after = answer[0], answer[1:2]
    category = unicodedata.category(first)
    if category == "Pe" or category.startswith("M") or _CLITIC.match(answer):
        return True
    if first in _CLOSING:
        return not (first == "." and after.isalnum())  # .NET, .5
    if category == "Pd":
        return after.isalpha()
    if category in ("Pi", "Pf") or first in _QUOTES:
        return not after or after.isspace() or after in _CLOSING
    return False


def _is_spaceless(character: str) -> bool:
    return any(low <= ord(character) <= high for low, high in _SPACELESS)
