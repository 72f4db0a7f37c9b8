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

INPUT = click.Path(path_type=Path)
SHOW_JSON = click.option("--json", "as_json", is_flag=True, help="Print the machine form instead.")


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
