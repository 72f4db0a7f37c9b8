"""Options of commands, read from their signatures and docstrings, and how a result is printed."""

import contextlib
import functools
import inspect
import io
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_type_hints

import tyro
from pydantic import Field, ValidationError, validate_call
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, UseAppendAction, arg
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from gradloc.config.yaml_source import parse_yaml
from gradloc.errors import GradlocError
from gradloc.utils.names import did_you_mean
from gradloc.utils.value_errors import rule

Count = Annotated[int, Field(ge=1)]
Dtype = Literal["float32", "bfloat16"]
Json = Annotated[bool, arg(name="json", help="Print the machine form instead.")]
Overrides = Annotated[tuple[str, ...], arg(name="set", metavar="KEY=VALUE")]
PolicyOptions = Annotated[
    tuple[str, ...],
    arg(
        name="option",
        aliases=["-o"],
        metavar="KEY=VALUE",
        help="Option of the policy, such as k=10; may be repeated.",
    ),
]


_REGISTRY = ConstructorRegistry()


@_REGISTRY.primitive_rule
def _optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """``int | None`` is shown and read as a whole number: leaving the option out means ``None``."""
    kinds = [kind for kind in get_args(info.type) if kind is not type(None)]
    if info.type_origin not in (Union, UnionType) or len(kinds) != 1:
        return None
    kind = getattr(kinds[0], "__origin__", kinds[0])  # Count is an annotated int
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=kind.__name__.upper(),
        instance_from_str=lambda words: kind(words[0]),
        is_instance=lambda value: value is None or isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )


def fields_of(cls: type, positional: str = "", **defaults: Any) -> Any:
    """Take the fields of a dataclass as options, some with another default than the dataclass has.

    One of them may be a positional argument.
    They become the dataclass in ``read_options``, so that bounds are told as those of any option.
    """

    def options(**values: Any) -> Callable[[], Any]:
        return functools.partial(cls, **values)

    parameters = inspect.signature(cls).parameters.values()
    options.__signature__ = inspect.Signature(
        [item.replace(default=defaults.get(item.name, item.default)) for item in parameters]
    )
    hints = get_type_hints(cls, include_extras=True)
    if positional:
        hints[positional] = Annotated[
            hints[positional], Positional, arg(metavar=positional.upper())
        ]
    options.__annotations__ = hints
    options.__doc__ = (cls.__doc__ or "").replace("``", "")
    return arg(constructor=options)


def read_options(function: Callable[..., None], prog: str, given: list[str]) -> Callable[[], None]:
    """Read the arguments of a command; the command itself is called by the caller.

    Args:
        function: The command. Its annotations and the Args of its docstring make the options.
        prog: Its name, for help and errors.
        given: The arguments.

    Returns:
        The command, its arguments filled in.

    Raises:
        GradlocError: An option is unknown or out of bounds.
        SystemExit: After ``--help``, or (code 2) where an argument is missing or of another type.
    """

    def bind(*values: Any, **options: Any) -> Callable[[], None]:
        return functools.partial(function, *values, **options)

    bind.__signature__ = inspect.signature(function)
    bind.__annotations__ = function.__annotations__
    # Help is wrapped to the terminal, so each entry of Args has to be one line.
    bind.__doc__ = re.sub(r"\n {8,}", " ", inspect.getdoc(function) or "")
    style = (OmitArgPrefixes, FlagCreatePairsOff, UseAppendAction)
    read = functools.partial(tyro.cli, bind, prog=prog, config=style, registry=_REGISTRY)
    help_text, errors = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(help_text), contextlib.redirect_stderr(errors):
            bound = read(args=given)
    except SystemExit as stop:
        if stop.code:
            _refuse_unknown(read, prog, given)
            print(errors.getvalue().rstrip(), file=sys.stderr)
        else:
            print(_wrapped(help_text.getvalue()))
        raise
    try:
        values = {
            name: value() if isinstance(value, functools.partial) else value
            for name, value in bound.keywords.items()
        }
        return validate_call(bind)(*bound.args, **values)
    except ValidationError as error:
        lines = [
            f"--{str(detail['loc'][0]).replace('_', '-')} {rule(detail)}"
            for detail in error.errors(include_url=False)
        ]
        raise GradlocError("\n".join(lines)) from error


def _wrapped(text: str) -> str:
    """A help text whose paragraphs fit the terminal; tyro wraps the options only.

    What is left out by default has no default worth showing.
    """
    text = re.sub(r"\s*\(default:\s*(None|False|'')?\s*\)", "", text)
    width = shutil.get_terminal_size().columns
    return "\n".join(
        line.rstrip()
        if line.startswith(" ")
        else textwrap.fill(line, width, break_on_hyphens=False)
        for line in re.sub(r"\n{3,}", "\n\n", text).splitlines()
    )


def _refuse_unknown(read: Callable[..., Any], prog: str, given: list[str]) -> None:
    """Name the first option that the help does not show, with the nearest that it does."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        read(args=["--help"])
    known = dict.fromkeys(re.findall(r"(?<![\w-])-{1,2}[a-z][\w-]*", text.getvalue()))
    for word in given:
        option = word.partition("=")[0]
        if option.startswith("--") and option.replace("_", "-") not in known:
            raise GradlocError(f"{prog} has no option {option}. {did_you_mean(option, known)}")


def policy_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Read ``--option KEY=VALUE`` pairs, values as YAML reads them."""
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise GradlocError(f"--option {pair!r}: write KEY=VALUE, such as k=10.")
        options[key] = parse_yaml(value)
    return options


def comma_list(text: str) -> list[str]:
    """The names between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def refuse_overwrite(path: Path, force: bool, kept: str = "") -> None:
    """Stop before work whose result would replace a file; ``kept``: what is not lost anyway."""
    if path.exists() and not force:
        note = f" ({kept})" if kept else ""
        raise GradlocError(
            f"{path} exists. Choose another --out, or overwrite it with --force{note}."
        )


def show(
    as_json: bool, machine: Callable[[], Any], human: Sequence[Any], written: Path | None
) -> None:
    """Print a result.

    Args:
        as_json: Print the machine form alone.
        machine: Makes the value to print as JSON.
        human: Texts and tables to print one below the other.
        written: File or folder to name at the end.
    """
    if as_json:
        print(json.dumps(machine(), ensure_ascii=False))
        return
    from rich.console import Console

    # A pipe has no width; rich would fall back to 80 columns and fold the tables.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    for item in human:
        console.print(item)
    if written is not None:
        print(f"\n{written}")
