"""Names that users write: the nearest known one, and what a name stands for."""

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from gradloc.errors import GradlocError


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """End of a sentence about an unknown name: the nearest known one, or all of them.

    Example:
        >>> did_you_mean("cutof", ["source", "cutoff"])
        "Did you mean 'cutoff'?"
        >>> did_you_mean("x", ["source", "cutoff"])
        'Known: source, cutoff.'
    """
    known = [str(item) for item in known]
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(known) or 'none'}."


def lookup(
    table: Mapping[str, Any], name: str, what: str, error: type[GradlocError] = GradlocError
) -> Any:
    """What a name stands for: an entry of a table, or an object of the user's own module.

    Args:
        table: The live table.
        name: A key of it, or an import path (``my_module:Mine``). The import runs that module.
        what: What is looked up, for the error text (``policy``, ``method``).
        error: Class of the error.

    Returns:
        The entry of the table, or the imported object.

    Raises:
        GradlocError: The table has no such key, or the import path leads to nothing.

    Example:
        >>> lookup({"all": len}, "al", "policy")
        Traceback (most recent call last):
        gradloc.errors.GradlocError: policy 'al' is unknown. Did you mean 'all'?
        >>> lookup({}, "math:sqrt", "policy")
        <built-in function sqrt>
    """
    if name in table:
        return table[name]
    module_name, colon, attribute = str(name).partition(":")
    if not colon:
        raise error(f"{what} {name!r} is unknown. {did_you_mean(name, table)}")
    try:
        module = importlib.import_module(module_name)
    except Exception as problem:  # The module is the user's: it may fail in any way.
        raise error(
            f"{what} {name!r}: importing {module_name!r} failed with {type(problem).__name__}: "
            f"{problem}. Write my_module:Name, the module in the working directory or installed."
        ) from problem
    if not hasattr(module, attribute):
        public = [item for item in vars(module) if not item.startswith("_")]
        raise error(
            f"{what} {name!r}: module {module_name!r} has no {attribute!r}. "
            f"{did_you_mean(attribute, public)}"
        )
    return getattr(module, attribute)
