"""From plain data to a checked dataclass, each problem with its cure."""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from gradloc.config.yaml_source import Source
from gradloc.utils.names import did_you_mean

KINDS: dict[Any, str] = {bool: "bool", int: "int", float: "float", str: "str", list: "list",
                         dict: "map", type(None): "none"}  # fmt: skip
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "map": "a mapping (lines of key: value)",
}
_TRUTH = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false",
          "off": "false"}  # fmt: skip
_KINDS_OF_ERROR = {
    "int_type": "int",
    "float_type": "float",
    "bool_type": "bool",
    "string_type": "str",
    "tuple_type": "list",
    "dict_type": "map",
    "dataclass_type": "map",
}


def kind_of(value: Any) -> str:
    """``int``, ``float``, ``bool``, ``str``, ``list``, ``map`` or ``none``."""
    return KINDS.get(type(value), "list")


def mismatch(kinds: Collection[str], value: Any) -> str:
    """Say why a value is not of the expected kind, and what to write instead.

    Args:
        kinds: Expected kinds (see ``kind_of``).
        value: The value as YAML reads it.

    Example:
        >>> mismatch(["float"], "1e-3")
        "'1e-3' is text, not a number; write 1e-3 without quotes"
        >>> mismatch(["str"], 12)
        '12 is a number in YAML; write "12" in quotes'
    """
    raw = str(value).lower() if isinstance(value, bool) else str(value)
    if value is None:
        return f"is empty; give {_words(kinds)} or remove the line"
    if isinstance(value, str) and (number := _as_number(value, kinds)):
        return f"'{raw}' is text, not a number; write {number} without quotes"
    if isinstance(value, str) and "bool" in kinds and value.lower() in _TRUTH:
        return f"'{raw}' is text; write {_TRUTH[value.lower()]} without quotes"
    if isinstance(value, bool) and "str" in kinds:
        return f'{raw} is no text in YAML; write "{raw}" in quotes'
    if isinstance(value, int | float) and not isinstance(value, bool) and "str" in kinds:
        return f'{raw} is a number in YAML; write "{raw}" in quotes'
    if isinstance(value, float) and "int" in kinds and value.is_integer():
        return f"{raw} is not a whole number in YAML; write {int(value)}"
    if "list" in kinds and not isinstance(value, list | dict):
        return f"expected a list, found {raw!r}; write [{raw}]"
    found = {"list": "a list", "map": "a mapping"}.get(kind_of(value), repr(value))
    return f"expected {_words(kinds)}, found {found}"


def _words(kinds: Collection[str]) -> str:
    return " or ".join(_WORDS[kind] for kind in kinds if kind in _WORDS)


def _as_number(text: str, kinds: Collection[str]) -> str:
    """The number that a text in quotes means; empty if it is none of ``kinds``."""
    try:
        value = float(text)
    except ValueError:
        return ""
    if "float" in kinds and math.isfinite(value):
        # A point without a digit before it makes YAML read text.
        return re.sub(r"^([-+]?)\.", r"\g<1>0.", text.strip())
    return str(int(value)) if "int" in kinds and value.is_integer() else ""


def report_mismatch(source: Source, key: str, kinds: Collection[str], value: Any) -> None:
    """Add the problem that the value of a key is of none of the expected kinds."""
    source.report(key, mismatch(kinds, value))


def rule(detail: Mapping[str, Any]) -> str:
    """What pydantic says of a value out of bounds: ``must be greater than 0, found 0``."""
    if detail["type"] == "too_short":
        return f"needs at least {detail['ctx']['min_length']}, found {len(detail['input'])}"
    return f"must be {detail['msg'].removeprefix('Input should be ')}, found {detail['input']!r}"


def build(cls: type, source: Source, place_of: Callable[[str], str] = lambda key: "") -> Any:
    """Make the dataclass, or note why it cannot be made.

    Args:
        cls: A pydantic dataclass.
        source: What was read; problems are added to it.
        place_of: Dotted unknown key -> the key that is meant, where it belongs elsewhere.

    Returns:
        The dataclass, or ``None`` where pydantic found a problem.
    """
    try:
        # Pydantic's strict mode takes lists for tuples and mappings for dataclasses in JSON only.
        return TypeAdapter(cls).validate_json(json.dumps(source.data))
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            # A key that is wrong itself: pydantic adds "[key]" to its place.
            key = ".".join(str(part) for part in detail["loc"] if part != "[key]")
            kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
            if kind == "unexpected_keyword_argument":
                known = _field_names(cls, detail["loc"][:-1])
                # The value may be a trap as well: both are said, the key first.
                earlier = source.problems.pop(key, "")
                name, place = detail["loc"][-1], place_of(key)
                near = f"Did you mean '{place}'?" if place else did_you_mean(name, known)
                hint = f"unknown key. {near}"
                source.report(key, f"{hint} Also, {earlier}" if earlier else hint)
            elif kind == "missing":
                source.report(key, f"is missing; add the line '{detail['loc'][-1]}: ...'")
            elif kind in _KINDS_OF_ERROR:
                report_mismatch(source, key, [_KINDS_OF_ERROR[kind]], value)
            elif kind == "literal_error" and not isinstance(value, str):
                report_mismatch(source, key, ["str"], value)
            elif kind == "literal_error":
                source.report(key, f"expected {context['expected']}, found '{value}'")
            elif kind == "value_error":
                source.report(key, str(context["error"]))
            else:
                source.report(key, rule(detail))
        return None


def _field_names(cls: type, loc: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the dataclass at ``loc``, from the live types."""
    hint: Any = cls
    for part in loc:
        if dataclasses.is_dataclass(hint):
            hint = get_type_hints(hint)[str(part)]
        else:
            # dict[str, X] and tuple[X, ...]
            arguments = [item for item in get_args(hint) if item is not Ellipsis]
            hint = arguments[-1]
    return [item.name for item in dataclasses.fields(hint)]
