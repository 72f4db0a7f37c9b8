"""The result of a benchmark as a table for the terminal.

Comes in: the values of ``bench.json``. Goes out: rich renderables. It computes nothing that the
values do not hold.
"""

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from gradloc.experiments.bench.benchmark import BF16_REFERENCE
from gradloc.experiments.bench.steps import PARTS


def bench_table(result: dict[str, Any]) -> list[Any]:
    """The arms as rows, and what was left out below them."""
    settings, machine = result["settings"], result["machine"]
    has_memory = settings["memory_repeats"] > 0
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{result['model']['name']}: a Trainer step of {settings['batch_size']} x "
        f"{settings['sequence_length']} tokens, {settings['dtype']}, on "
        f"{machine.get('gpu') or machine['cpu']}, {threads(machine)}",
        caption=_caption(result),
    )
    table.add_column("arm", no_wrap=True)
    table.add_column("time / full ↓\n[dim]95 % interval[/dim]", justify="right", no_wrap=True)
    for head in ("predicted", "ideal", "seconds\n[dim]a step[/dim]"):
        table.add_column(head, justify="right")
    for part in PARTS:
        table.add_column(f"{part}\n[dim]/ full[/dim]", justify="right")
    if has_memory:
        table.add_column("memory / full ↓\n[dim]range[/dim]", justify="right")
        table.add_column("predicted", justify="right")
        table.add_column("MiB\n[dim]above weights[/dim]", justify="right")
    for name, arm in result["arms"].items():
        predicted, value = arm["predicted"], arm["time_ratio"]["value"]
        cells = [
            ratio_text(arm["time_ratio"]),
            _number(predicted["time_ratio"]),
            _number(predicted["ideal_time_ratio"]),
            f"{arm['step_seconds']:.3g}",
            *(_number(value * arm["shares"][part]) for part in PARTS),
        ]
        if has_memory:
            mib = sum(arm["memory_mib"]) / len(arm["memory_mib"])
            cells += [
                ratio_text(arm["memory_ratio"]),
                _number(predicted["memory_ratio"]),
                f"{mib:,.0f}",
            ]
        table.add_row(name, *cells)
    return [table, *_notes(result)]


def ratio_text(ratio: dict[str, float | None]) -> str:
    """A ratio with its ends: ``0.43 [0.41, 0.45]``."""
    if ratio["low"] is None:
        return _number(ratio["value"])
    return f"{ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"


def threads(machine: dict[str, Any]) -> str:
    """How many threads torch used: ``2 threads``."""
    n = machine["n_threads"]
    return f"{n} thread" + "s" * (n != 1)


def _caption(result: dict[str, Any]) -> str:
    settings = result["settings"]
    return (
        f"lower is better; {settings['rotations']} turns of {settings['steps']} steps, "
        f"seed {settings['seed']}; full training itself changed by {result['drift']:.1%} within "
        "a turn"
    )


def _notes(result: dict[str, Any]) -> list[Text]:
    notes = [
        Text(f"{name} against {BF16_REFERENCE}: {ratio_text(arm['time_ratio_to_full_bf16'])}")
        for name, arm in result["arms"].items()
        if name != BF16_REFERENCE and "time_ratio_to_full_bf16" in arm
    ]
    notes += [Text(f"skipped {name}: {why}") for name, why in result["skipped"].items()]
    return notes


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
