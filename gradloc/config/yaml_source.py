"""A YAML 1.2 file as plain data, with where each value stands and every problem found so far."""

import io
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.constructor import ConstructorError, DuplicateKeyError, RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import Node
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from gradloc.errors import GradlocError, ProblemsError
from gradloc.utils.io import read_text

# assumption: no recipe comes near; an alias bomb of 300 bytes means 10^9 values.
MAX_VALUES = 100_000
MAX_DEPTH = 50
MAX_DIGITS = 40
# What YAML 1.1 readers, or people, take for a number, a date or true and false.
_AMBIGUOUS = re.compile(r"[-+]?[\d.][\d.:_eE+-]*|y|n|yes|no|on|off", re.IGNORECASE)


class _Constructor(RoundTripConstructor):
    """Dates stay text, as in YAML 1.2's core schema; endless digits are no number."""

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        """Refuse what refers to itself, where ruamel would give ``None``."""
        if node in self.recursive_objects and node not in self.constructed_objects:
            problem = "a value that refers to itself; write it out"
            raise ConstructorError(None, None, problem, node.start_mark)
        return super().construct_object(node, deep)


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", lambda self, node: node.value)
_Constructor.add_constructor(
    "tag:yaml.org,2002:int",
    lambda self, node: self.construct_yaml_int(node) if len(node.value) <= MAX_DIGITS else math.inf,
)


class _TooMuch(Exception):
    """Reading stops: the file is nested too deeply, or means too many values."""


@dataclass
class Source:
    """What was read, before any of it is checked against a schema.

    Args:
        data: Mappings, lists and scalars; ``None`` where the text is no YAML at all.
        lines: Dotted key (``probes.sources.0.path``) -> line it stands on, to report problems in
            the file's order.
        problems: Dotted key -> what is wrong; what to write. The first one found for a key
            stays: it is nearest to the cause.
    """

    data: Any = None
    lines: dict[str, int] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    n_values: int = 0

    def report(self, key: str, problem: str) -> None:
        """Add a problem unless the key has one already."""
        self.problems.setdefault(key, problem)

    def problem_lines(self) -> list[str]:
        """All problems, ``key: problem``, in the order of the file."""

        def line(key: str) -> float:
            while key and key not in self.lines:
                key = key.rpartition(".")[0]
            return self.lines[key] if key else math.inf

        # sorted() is stable, so problems of one line keep the order in which they were found.
        return [
            f"{key}: {self.problems[key]}" if key else self.problems[key]
            for key in sorted(self.problems, key=line)
        ]


def read_mapping(file: Path, name: object, error: type[ProblemsError], needs: str) -> Source:
    """Read a YAML file that must hold a mapping.

    Args:
        file: The file.
        name: What the user calls it, for the error.
        error: Class of the error.
        needs: What an empty file lacks (``a recipe needs at least the line 'name: ...'``).

    Raises:
        FileError: The file is missing or is not UTF-8 text.
        ProblemsError: It is no YAML, empty, or holds something else.
    """
    source = read_yaml(read_text(file, "YAML file"))
    if source.data is None and not source.problems:
        source.report("", f"the file is empty; {needs}")
    elif source.data is not None and not isinstance(source.data, dict):
        source.report("", f"expected a mapping (lines of key: value); {needs}")
    if not isinstance(source.data, dict):
        raise error(name, source.problem_lines())
    return source


def read_yaml(text: str) -> Source:
    """Read one YAML 1.2 document: dates are text, ``no`` is text, ``1e-3`` is a number.

    Reported: duplicate keys, tags, numbers that are not finite or too long, half characters, and
    files that mean far more values than they look like. Nothing is executed.
    """
    source = Source()
    try:
        yaml = YAML(pure=True)
        yaml.Constructor, yaml.max_depth = _Constructor, MAX_DEPTH + 1  # the file itself is one
        source.data = _plain(source, yaml.load(text), "")
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the file"
        problem = error.problem or error.context or "no YAML"
        if isinstance(error, DuplicateKeyError):
            problem = problem.splitlines()[0].partition(" with value")[0] + "; keep one"
        elif "'\\t'" in problem:
            problem = "a tab; YAML is indented with spaces only"
        elif "maximum depth" in problem:
            problem = f"is nested more than {MAX_DEPTH} levels deep"
        elif not isinstance(error, ConstructorError):
            problem += "; check the indentation and put text that contains ': ' or '#' in quotes"
        source.report(where, problem)
    except (YAMLError, ValueError) as error:
        source.report("", f"cannot be read as YAML text: {error}")
    except (RecursionError, _TooMuch) as error:
        source.report("", str(error) if isinstance(error, _TooMuch) else "is nested too deeply")
    return source


def parse_yaml(text: str) -> Any:
    """A YAML text as plain data.

    Raises:
        GradlocError: It is no YAML; all its problems are named.
    """
    source = read_yaml(text)
    if source.problems:
        raise GradlocError("; ".join(source.problem_lines()))
    return source.data


def _plain(source: Source, value: Any, key: str, depth: int = 0) -> Any:
    """What ruamel read, as plain values; aliases are written out, so they count each time."""
    source.n_values += 1
    if source.n_values > MAX_VALUES:
        raise _TooMuch(f"means more than {MAX_VALUES:,} values; write out what its aliases mean")
    if depth > MAX_DEPTH:
        raise _TooMuch(f"is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, TaggedScalar) or getattr(getattr(value, "tag", None), "value", None):
        source.report(key, f"the tag '{value.tag.value}' is not supported; remove it")
    elif isinstance(value, (CommentedMap, CommentedSeq)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        children = []
        for name, child in items:
            inner = f"{key}.{name}".lstrip(".")
            # What was merged in by `<<` stands elsewhere.
            source.lines.setdefault(inner, value.lc.data.get(name, [value.lc.line])[0])
            children.append((str(name), _plain(source, child, inner, depth + 1)))
        return dict(children) if isinstance(value, dict) else [child for _, child in children]
    else:
        try:
            return _scalar(value)
        except ValueError as error:
            source.report(key, str(error))
    return None


def _scalar(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"must be a finite number of at most {MAX_DIGITS} digits")
        return float(value)
    text = str(value)
    if half := re.search("[\ud800-\udfff]", text):
        raise ValueError(f"\\u{ord(half[0]):x} is half of a surrogate pair and no character")
    return text


def apply_overrides(source: Source, overrides: Iterable[str]) -> None:
    """Set ``key.path=value`` in what was read; the values are YAML, read by the same rules.

    Whole numbers in the path pick items of lists (``probes.sources.0.path=facts.jsonl``).
    """
    for override in overrides:
        path, equals, text = override.partition("=")
        path = path.strip()
        if not equals or not path:
            lacking = "key" if equals else "value"
            source.report(f"override '{override}'", f"has no {lacking}; write key.path=value")
            continue
        # What stood there before no longer matters.
        for table in (source.lines, source.problems):
            for key in [key for key in table if key == path or key.startswith(path + ".")]:
                del table[key]
        value = read_yaml(text)
        for key, problem in value.problems.items():
            inner = key if key in value.lines else ""
            source.report(f"{path}.{inner}".rstrip("."), problem)
        _set(source, path, value.data)


def _set(source: Source, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    target = source.data
    for name in parents:
        if isinstance(target, list) and name.isdigit() and int(name) < len(target):
            target = target[int(name)]
        elif isinstance(target, dict):
            if target.get(name) is None:
                target[name] = {}
            target = target[name]
        else:
            target = None
            break
    if isinstance(target, dict):
        target[last] = value
    elif isinstance(target, list) and last.isdigit() and int(last) < len(target):
        target[int(last)] = value
    else:
        source.report(f"override '{path}'", "leads to nothing that can be set in this file")


def dump_yaml(data: Any) -> str:
    """Write plain data as YAML text that ``read_yaml`` reads back to equal data.

    Texts that a reader of YAML 1.1, or a person, would take for something else are quoted.
    """
    yaml = YAML(pure=True)
    yaml.width, yaml.allow_unicode = 100, True
    text = io.StringIO()
    yaml.dump(_quoted(data), text)
    return text.getvalue().removesuffix("...\n")


def _quoted(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _quoted(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_quoted(value) for value in data]
    if isinstance(data, str) and _AMBIGUOUS.fullmatch(data):
        return DoubleQuotedScalarString(data)
    return data
