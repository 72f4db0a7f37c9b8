"""What the commands have in common: options, and how a result is printed.

Comes in: a result for machines and one for people. Goes out: one of them on standard output. It
knows no command.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from gradloc.errors import GradlocError

INPUT = click.Path(path_type=Path)
SHOW_JSON = click.option("--json", "as_json", is_flag=True, help="Print the machine form instead.")
MAX_LENGTH = click.option(
    "--max-length",
    type=click.IntRange(min=2),
    default=128,
    show_default=True,
    help="Tokens a sequence at most.",
)


def how_many(name: str, text: str, least: int = 1) -> Callable:
    """An option that says how many sequences are measured at most."""
    return click.option(
        name, type=click.IntRange(min=least), default=24, show_default=True, help=text
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
        click.echo(json.dumps(machine(), ensure_ascii=False))
        return
    from rich.console import Console

    # A pipe has no width; rich would fall back to 80 columns and fold the tables.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    for item in human:
        console.print(item)
    if written is not None:
        click.echo(f"\n{written}")


def policy_options(pairs: tuple[str, ...]) -> dict[str, object]:
    """Read ``--option KEY=VALUE`` pairs, values as YAML reads them."""
    import yaml

    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise GradlocError(f"--option {pair!r}: write KEY=VALUE, such as k=10.")
        options[key] = yaml.safe_load(value)
    return options


def refuse_overwrite(path: Path, force: bool, kept: str = "") -> None:
    """Stop before work whose result would replace a file; ``kept``: what is not lost anyway."""
    if path.exists() and not force:
        note = f" ({kept})" if kept else ""
        raise GradlocError(
            f"{path} exists. Choose another --out, or overwrite it with --force{note}."
        )
