"""A YAML 1.2 file as plain data, with where each value stands and every problem found so far."""

import io
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from gradloc.errors import GradlocError, ProblemsError
from gradloc.utils.io import read_text

_TAG = "tag:yaml.org,2002:"
# assumption: no recipe comes near; an alias bomb of 300 bytes means 10^9 values.
MAX_VALUES = 100_000
MAX_DEPTH = 50
# What YAML 1.1 readers, or people, take for a number, a date or true and false.
_AMBIGUOUS = re.compile(r"[-+]?[\d.][\d.:_eE+-]*|y|n|yes|no|on|off", re.IGNORECASE)


class _TooMuch(Exception):
    """Reading stops: the file is nested too deeply, or means too many values."""


@dataclass
class Source:
    """What was read, before any of it is checked against a schema.

    Args:
        data: Mappings, lists and scalars; ``None`` where the text is no YAML at all.
        raw: Dotted key (``probes.sources.0.path``) -> the scalar as written.
        lines: Dotted key -> line it stands on, to report problems in the file's order.
        problems: Dotted key -> what is wrong; what to write. The first one found for a key
            stays: it is nearest to the cause.
    """

    data: Any = None
    raw: dict[str, str] = field(default_factory=dict)
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
        node = YAML(typ="safe", pure=True).compose(text)
        source.data = None if node is None else _value(source, node, "", ())
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the file"
        problem = error.problem or error.context or "no YAML"
        cure = "check the indentation and put text that contains ': ' or '#' in quotes"
        if "'\\t'" in problem:
            problem, cure = "a tab", "YAML is indented with spaces only"
        source.report(where, f"{problem}; {cure}")
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


def _value(source: Source, node: Node, key: str, parents: tuple[Node, ...]) -> Any:
    """The plain value of a node; aliases are written out, so they count each time."""
    source.lines.setdefault(key, node.start_mark.line)
    source.n_values += 1
    if source.n_values > MAX_VALUES:
        raise _TooMuch(f"means more than {MAX_VALUES:,} values; write out what its aliases mean")
    if len(parents) > MAX_DEPTH:
        raise _TooMuch(f"is nested more than {MAX_DEPTH} levels deep")
    if node in parents:
        source.report(key, "refers to itself; write the value out")
        return None
    if isinstance(node, ScalarNode):
        return _scalar(source, node, key)
    if node.tag not in (_TAG + "map", _TAG + "seq"):
        source.report(key, f"the tag '{node.tag}' is not supported; remove it")
        return None
    if isinstance(node, MappingNode):
        return _mapping(source, node, key, (*parents, node))
    return [
        _value(source, child, f"{key}.{index}".lstrip("."), (*parents, node))
        for index, child in enumerate(node.value)
    ]


def _mapping(source: Source, node: MappingNode, key: str, parents: tuple[Node, ...]) -> dict:
    values: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    first_line: dict[str, int] = {}
    for name_node, child in node.value:
        if not isinstance(name_node, ScalarNode):
            source.report(key, "has a list or mapping as a key; a key must be text")
            continue
        name, line = name_node.value, name_node.start_mark.line + 1
        inner = f"{key}.{name}".lstrip(".")
        if name in first_line:
            source.report(inner, f"given twice (lines {first_line[name]} and {line}); keep one")
        first_line.setdefault(name, line)
        value = _value(source, child, inner, parents)
        if name_node.tag == _TAG + "merge" and isinstance(value, dict):
            merged |= value
        else:
            values[name] = value
    return {**merged, **values}


def _scalar(source: Source, node: ScalarNode, key: str) -> Any:
    raw, kind = node.value, node.tag.removeprefix(_TAG)
    source.raw[key] = raw
    try:
        if kind in ("str", "timestamp"):
            raw.encode("utf-8")
            return raw
        if kind in ("int", "float"):
            return _number(raw, kind)
        if kind in ("bool", "null"):
            return {"true": True, "false": False}.get(raw.lower())
        source.report(key, f"the tag '{node.tag}' is not supported; remove it")
    except UnicodeEncodeError:
        half = next(c for c in raw if 0xD800 <= ord(c) < 0xE000)
        source.report(key, f"\\u{ord(half):x} is half of a surrogate pair and no character")
    except ValueError as error:
        source.report(key, str(error))
    return None


def _number(raw: str, kind: str) -> int | float:
    if kind == "int":
        digits = raw.replace("_", "")
        if len(digits) > 40:
            raise ValueError(f"a number of {len(digits):,} digits; write a shorter one")
        return int(digits, 0) if re.match(r"[-+]?0[xob]", digits) else int(digits)
    text = raw.replace("_", "").lower()
    value = float(text.replace(".inf", "inf").replace(".nan", "nan"))
    if not math.isfinite(value):
        raise ValueError(f"{raw} is not a finite number")
    return value


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
        for table in (source.raw, source.lines, source.problems):
            for key in [key for key in table if key == path or key.startswith(path + ".")]:
                del table[key]
        value = read_yaml(text)
        for key, problem in value.problems.items():
            inner = key if key in value.lines else ""
            source.report(f"{path}.{inner}".rstrip("."), problem)
        source.raw |= {f"{path}.{key}".rstrip("."): raw for key, raw in value.raw.items()}
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
