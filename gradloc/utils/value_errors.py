"""What pydantic finds wrong with values from a file, in words that say what to write instead."""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

# Characters of a value that a message shows.
MOST_SHOWN = 60

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
        value: The value as YAML or JSON gives it.

    Example:
        >>> mismatch(["float"], "1e-3")
        "'1e-3' is text, not a number; write 1e-3 without quotes"
        >>> mismatch(["str"], 12)
        '12 is a number; write "12" in quotes'
    """
    raw = str(value).lower() if isinstance(value, bool) else str(value)
    raw = raw if len(raw) <= MOST_SHOWN else raw[: MOST_SHOWN - 3] + "..."
    if value is None:
        return f"is empty; give {_words(kinds)} or remove the line"
    if isinstance(value, str) and (number := _as_number(value, kinds)):
        return f"'{raw}' is text, not a number; write {number} without quotes"
    if isinstance(value, str) and "bool" in kinds and value.lower() in _TRUTH:
        return f"'{raw}' is text; write {_TRUTH[value.lower()]} without quotes"
    if isinstance(value, bool) and "str" in kinds:
        return f'{raw} is no text; write "{raw}" in quotes'
    if isinstance(value, int | float) and not isinstance(value, bool) and "str" in kinds:
        return f'{raw} is a number; write "{raw}" in quotes'
    if isinstance(value, float) and "int" in kinds and value.is_integer():
        return f"{raw} is not a whole number; write {int(value)}"
    if "list" in kinds and not isinstance(value, list | dict):
        return f"expected a list, found {raw!r}; write [{raw}]"
    found = {"list": "a list", "map": "a mapping"}.get(kind_of(value), shown(value))
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


def explain(detail: Mapping[str, Any]) -> str:
    """One of pydantic's error details as text: what was expected, what was found, the cure."""
    kind, value = detail["type"], detail["input"]
    if kind in _KINDS_OF_ERROR:
        return mismatch([_KINDS_OF_ERROR[kind]], value)
    if kind == "literal_error":
        if not isinstance(value, str):
            return mismatch(["str"], value)
        return f"expected {detail['ctx']['expected']}, found '{value}'"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    return rule(detail)


def rule(detail: Mapping[str, Any]) -> str:
    """What pydantic says of a value out of bounds: ``must be greater than 0, found 0``."""
    if detail["type"] == "too_short":
        return f"needs at least {detail['ctx']['min_length']}, found {len(detail['input'])}"
    wanted = detail["msg"].removeprefix("Input should be ")
    return f"must be {wanted}, found {shown(detail['input'])}"


def shown(value: Any) -> str:
    """A value as messages show it: cut where it is long."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 3] + "..."
