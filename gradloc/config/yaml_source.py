"""A YAML file as plain data, with what YAML reads otherwise than it looks.

Comes in: YAML text and overrides. Goes out: a ``Source``: the data, where each value stands, and
the problems found so far. It knows no schema (``gradloc.config.schema`` does).
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = {_TAG + kind for kind in ("str", "int", "float", "bool", "null", "map", "seq")}
# YAML 1.1 reads 010 as 8 (octal) and 1:30 as 90 (base 60).
_DISGUISED_INT = re.compile(r"[-+]?0[0-7_]+|.*:.*")
# What a person means as a number; YAML 1.1 reads some of these as text (1e-3, 1.0e5).
NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+))(?:[eE]([-+]?)(\d+))?")


class Scalar(NamedTuple):
    """A scalar as it stands in the file: its text, whether in quotes, and its line (from 0)."""

    text: str
    quoted: bool
    line: int


@dataclass
class Source:
    """What was read, before any of it is checked against a schema.

    Args:
        data: Mappings, lists and scalars; ``None`` where the text is no YAML at all.
        scalars: Dotted key (``probes.sources.0.path``) -> the scalar as written.
        lines: Dotted key -> line it stands on, to report problems in the file's order.
        problems: Dotted key -> what is wrong; what to write. The first one found for a key
            stays: it is nearest to the cause.
    """

    data: Any = None
    scalars: dict[str, Scalar] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

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


def read_yaml(text: str) -> Source:
    """Read one YAML document and note what YAML reads in another way than it looks.

    Reported: duplicate keys, unquoted dates, ``no`` as a key, octal and base-60 numbers, tabs,
    tags, infinite numbers. Nothing is executed: only plain values exist afterwards.
    """
    source = Source()
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is not None and _note(source, node, "", ()):
            source.data = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the file"
        problem = error.problem or error.context or "no YAML"
        cure = "check the indentation and put text that contains ': ' or '#' in quotes"
        if "'\\t'" in problem:
            problem, cure = "a tab", "YAML is indented with spaces only"
        source.report(where, f"{problem}; {cure}")
    except yaml.YAMLError as error:
        source.report("", f"cannot be read as YAML text: {error}")
    return source


def read_value(text: str) -> Any:
    """A single value as YAML reads it, such as ``10`` or ``[a, b]``."""
    return yaml.safe_load(text)


def _note(source: Source, node: yaml.Node, key: str, parents: tuple[yaml.Node, ...]) -> bool:
    """Note places and traps below ``node``; false if it cannot be made into plain values."""
    source.lines.setdefault(key, node.start_mark.line)
    if node in parents:
        source.report(key, "refers to itself; write the value out")
        return False
    if isinstance(node, yaml.ScalarNode):
        return _note_scalar(source, node, key)
    if node.tag not in _PLAIN_TAGS:
        source.report(key, f"the tag '{node.tag}' is not supported; remove it")
        return False
    children = (
        _mapping_items(source, node, key)
        if isinstance(node, yaml.MappingNode)
        else ((str(index), child) for index, child in enumerate(node.value))
    )
    usable = True
    for name, child in children:
        usable &= _note(source, child, f"{key}.{name}".lstrip("."), (*parents, node))
    return usable


def _note_scalar(source: Source, node: yaml.ScalarNode, key: str) -> bool:
    raw, kind = node.value, node.tag.removeprefix(_TAG)
    source.scalars[key] = Scalar(raw, bool(node.style), node.start_mark.line)
    if kind == "timestamp":
        source.report(key, f'{raw} is a date in YAML; write "{raw}" in quotes')
        # Read on as text, so that the rest of the checks can run.
        node.tag = _TAG + "str"
    elif kind == "int" and _DISGUISED_INT.fullmatch(raw):
        read = yaml.SafeLoader("").construct_yaml_int(node)
        source.report(key, f'{raw} is read as {read} in YAML; write {read}, or "{raw}" in quotes')
    elif kind == "float" and raw.lower().lstrip("+-") in (".inf", ".nan"):
        source.report(key, f"{raw} is not a finite number")
    elif node.tag not in _PLAIN_TAGS:
        source.report(key, f"the tag '{node.tag}' is not supported; remove it")
        return False
    return True


def _mapping_items(
    source: Source, node: yaml.MappingNode, key: str
) -> Iterator[tuple[str, yaml.Node]]:
    first_line: dict[str, int] = {}
    for name_node, child in node.value:
        name, line = str(name_node.value), name_node.start_mark.line + 1
        if name_node.tag == _TAG + "merge":
            name = "<<"
        elif name_node.tag != _TAG + "str":
            label = name if isinstance(name_node, yaml.ScalarNode) else "a list or mapping"
            source.report(f"{key}.{label}".lstrip("."), f'a key must be text; write "{name}": ...')
            name_node.tag, name_node.value = _TAG + "str", name
        if name in first_line:
            source.report(
                f"{key}.{name}".lstrip("."),
                f"given twice (lines {first_line[name]} and {line}); keep one",
            )
        first_line.setdefault(name, line)
        yield name, child


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
        for table in (source.scalars, source.lines, source.problems):
            for key in [key for key in table if key == path or key.startswith(path + ".")]:
                del table[key]
        value = read_yaml(text)
        for key, problem in value.problems.items():
            inner = key if key in value.lines else ""
            source.report(f"{path}.{inner}".rstrip("."), problem)
        source.scalars |= {f"{path}.{k}".rstrip("."): item for k, item in value.scalars.items()}
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


class _Dumper(yaml.SafeDumper):
    """Quotes texts that another YAML reader, or a person, would take for a number."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = '"' if NUMBER.fullmatch(text) else None
        return self.represent_scalar(_TAG + "str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


def dump_yaml(data: Any) -> str:
    """Write plain data as YAML text that ``read_yaml`` reads back to equal data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
