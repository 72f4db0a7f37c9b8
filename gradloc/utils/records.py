"""Values as JSON files with a kind and a version, checked key by key when they are read back.

A record is a frozen dataclass; its annotations are the schema of its file.
"""

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeVar

import numpy as np

from gradloc.errors import GradlocError, ProblemsError
from gradloc.utils.io import read_json, to_jsonable, write_json

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_T = TypeVar("_T")
# Problems that are written out.
_N_SHOWN = 8


class _Array:
    """Schema of a numeric array with a fixed number of dimensions."""

    def __init__(self, n_dimensions: int):
        self._n_dimensions = n_dimensions

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        schema = core_schema.float_schema(strict=True)
        for _ in range(self._n_dimensions):
            schema = core_schema.list_schema(schema)
        return core_schema.no_info_after_validator_function(self._array, schema)

    def _array(self, values: list) -> np.ndarray:
        if self._n_dimensions == 2 and len({len(row) for row in values}) > 1:
            raise ValueError("its rows have different lengths")
        return np.asarray(values, dtype=np.float64)


class _NullIsNan:
    """Schema of a number that is null in JSON where it is not finite."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        number = core_schema.nullable_schema(core_schema.float_schema(strict=True))
        return core_schema.no_info_after_validator_function(
            lambda value: float("nan") if value is None else value, number
        )


Vector = Annotated[np.ndarray, _Array(1)]
Matrix = Annotated[np.ndarray, _Array(2)]
FloatOrNan = Annotated[float, _NullIsNan()]


class Record:
    """Mixin that saves a frozen dataclass and loads it again.

    A subclass sets ``KIND`` (what its file calls itself), ``WHAT`` (what an error calls it) and,
    once its keys change meaning, ``VERSION``. ``DERIVED`` names keys that are written for other
    readers and ignored here, ``FORMER`` lists that only files of earlier versions have.
    """

    KIND: ClassVar[str]
    WHAT: ClassVar[str]
    VERSION: ClassVar[int] = 1
    DERIVED: ClassVar[tuple[str, ...]] = ()
    FORMER: ClassVar[tuple[str, ...]] = ()

    def derived(self) -> dict[str, Any]:
        """Values of the keys in ``DERIVED``."""
        return {}

    def problems(self) -> list[str]:
        """What of the values does not fit together, one line each: ``key: what; cure``."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        head = {"kind": self.KIND, "version": self.VERSION}
        return head | to_jsonable(self) | to_jsonable(self.derived())

    @classmethod
    def from_dict(cls, data: Any, source: object = "values") -> Self:
        """Build a record from what ``to_dict`` returned.

        Args:
            data: The plain values. ``kind`` and ``version`` may be missing.
            source: Where they come from, for the error text.

        Raises:
            GradlocError: Another kind, a newer version, or a value that does not fit; all
                problems are named with their keys.
        """
        data = cls._checked_head(data, source)
        where = f"{source} ({cls.WHAT})"
        former = {key for key in cls.FORMER if isinstance(data.get(key), list | None)}
        ignored = {*cls.DERIVED, *former}
        record = parse(cls, {k: v for k, v in data.items() if k not in ignored}, where)
        if problems := record.problems():
            raise ProblemsError(where, problems[:_N_SHOWN])
        return record

    def save(self, path: str | Path, *, compact: bool = False) -> Path:
        """Write the record as JSON, whole or not at all.

        Args:
            path: The file.
            compact: Without indentation.
        """
        return write_json(path, self.to_dict(), compact=compact)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            GradlocError: The file is missing, is no JSON, or ``from_dict`` refuses it.
        """
        return cls.from_dict(read_json(path, cls.WHAT), path)

    @classmethod
    def _checked_head(cls, data: Any, source: object) -> dict[str, Any]:
        """The data without kind and version, which are right."""
        kind = data.get("kind", cls.KIND) if isinstance(data, dict) else None
        if kind != cls.KIND:
            found = f"its kind is {kind!r}" if kind else "it holds no JSON object"
            raise GradlocError(f"{source}: expected {_article(cls.WHAT)} ({cls.KIND!r}); {found}.")
        # Files of gradloc 0.1 call the version "format".
        data = {key: value for key, value in data.items() if key != "kind"}
        version = data.pop("version", data.pop("format", cls.VERSION))
        if isinstance(version, int) and version > cls.VERSION:
            raise GradlocError(
                f"{source}: {cls.WHAT} of version {version}, written by a newer gradloc; this one "
                f"reads version {cls.VERSION}. Update gradloc to read it."
            )
        if version != cls.VERSION or isinstance(version, bool):
            raise GradlocError(
                f"{source}: {cls.WHAT} of version {version!r}, this gradloc reads version "
                f"{cls.VERSION}. Make the file again with this gradloc."
            )
        return data


def parse(cls: type[_T], data: Any, source: object) -> _T:
    """Build a dataclass from plain JSON values, checked against its annotations.

    Args:
        cls: The dataclass. Lists become tuples and objects become dataclasses as annotated.
        data: Values as ``json`` reads them.
        source: Where they come from, for the error text.

    Raises:
        ProblemsError: All keys that are missing, unknown or of another type.
    """
    from pydantic import ValidationError

    try:
        # Strict mode takes lists for tuples and objects for dataclasses in JSON only.
        return _adapter(cls).validate_json(json.dumps(data))
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
        problems = [_problem(detail) for detail in details[:_N_SHOWN]]
        if len(details) > _N_SHOWN:
            problems.append(f"... and {len(details) - _N_SHOWN} more")
        raise ProblemsError(source, problems) from error
    except GradlocError as error:  # from the dataclass's own checks
        raise ProblemsError(source, [str(error)]) from error


@cache
def _adapter(cls: type) -> "TypeAdapter":
    from pydantic import TypeAdapter

    if "__pydantic_config__" not in vars(cls):
        cls.__pydantic_config__ = {"extra": "forbid", "strict": True}
    return TypeAdapter(cls)


def _problem(detail: Any) -> str:
    """One line: key, what is wrong, what to do."""
    from gradloc.utils.value_errors import explain

    key = ".".join(str(part) for part in detail["loc"]) or "(whole file)"
    if detail["type"] == "missing":
        return f"{key}: is missing"
    if detail["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{key}: unknown key; if a newer gradloc wrote this file, update gradloc to read it"
    return f"{key}: {explain(detail)}"


def _article(what: str) -> str:
    return f"an {what}" if what[0] in "aeiou" else f"a {what}"
