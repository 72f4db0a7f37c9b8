"""From plain data to a checked dataclass, each problem with its cure."""

import dataclasses
import json
from collections.abc import Callable, Collection
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from gradloc.config.yaml_source import Source
from gradloc.utils.names import did_you_mean
from gradloc.utils.value_errors import explain, mismatch


def report_mismatch(source: Source, key: str, kinds: Collection[str], value: Any) -> None:
    """Add the problem that the value of a key is of none of the expected kinds."""
    source.report(key, mismatch(kinds, value))


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
            if detail["type"] == "unexpected_keyword_argument":
                known = _field_names(cls, detail["loc"][:-1])
                # The value may be a trap as well: both are said, the key first.
                earlier = source.problems.pop(key, "")
                name, place = detail["loc"][-1], place_of(key)
                near = f"Did you mean '{place}'?" if place else did_you_mean(name, known)
                hint = f"unknown key. {near}"
                source.report(key, f"{hint} Also, {earlier}" if earlier else hint)
            elif detail["type"] == "missing":
                source.report(key, f"is missing; add the line '{detail['loc'][-1]}: ...'")
            else:
                source.report(key, explain(detail))
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
