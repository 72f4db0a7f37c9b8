"""The command ``gradloc stream``.

Comes in: arguments. Goes out: stage folders, ``stream.json``, ``stream.html`` and tables on the
terminal. Heavy imports happen inside.
"""

import shlex
import sys
import time
from pathlib import Path

import click

from gradloc.cli.commands import SHOW_JSON, show


@click.command()
@click.argument("recipe")
@click.option(
    "--by",
    type=click.Choice(["month", "quarter", "year"]),
    default="month",
    show_default=True,
    help="One stage a month, quarter or year.",
)
@click.option(
    "--from",
    "first",
    default="",
    metavar="PERIOD",
    help="First period, such as 2025-01, 2025-Q1 or 2025. Default: the recipe's cut-off.",
)
@click.option(
    "--to",
    "last",
    default="",
    metavar="PERIOD",
    help="Last period, itself included. Default: that of the last document.",
)
@click.option("--arm", "arms", multiple=True, help="Only this arm; may be repeated.")
@click.option(
    "--measure",
    type=click.Choice(["each", "once"]),
    default="each",
    show_default=True,
    help="Choose layers anew in every stage, or take those of the first.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a recipe value, such as name=news or training.max_steps=20.",
)
@click.option(
    "--keep-weights",
    is_flag=True,
    help="Keep the weights of every stage; without it, also where they were kept before, those of "
    "each arm's last stage alone.",
)
@SHOW_JSON
def stream(recipe, by, first, last, arms, measure, overrides, keep_weights, as_json) -> None:
    """Train on one month after another, and see what each adds and what it loses.

    RECIPE is a YAML file or the name of a shipped one (current-events-stream). Each stage trains
    on the documents of one period, from the weights of the stage before; after every stage all
    items are scored. A stream that was killed continues where it stopped. It ends in stream.html:
    score matrices, transfer and forgetting.

    \b
      gradloc stream current-events-stream --arm full --arm interference_ratio
      gradloc stream news.yaml --by quarter --from 2024-Q3 --to 2025-Q2
    A stream.json alone (of another machine, say) is drawn by
      gradloc stream runs/news/stream.json
    """
    if recipe.endswith(".json"):
        _draw(Path(recipe), as_json)
        return
    from gradloc.experiments.continual.running import run_stream
    from gradloc.experiments.continual.start import Division
    from gradloc.experiments.recipes import load_recipe

    began = time.monotonic()

    def say(text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        click.echo(f"[{minutes:2d}:{seconds:02d}] {text}", err=True)

    path = run_stream(
        load_recipe(recipe, overrides),
        Division(by, first, last, measure),
        arms=arms,
        keep_weights=keep_weights,
        command=shlex.join(["gradloc", *sys.argv[1:]]),
        say=say,
    )
    _draw(path, as_json)


def _draw(path: Path, as_json: bool) -> None:
    from gradloc.experiments.continual.figures import stream_figures
    from gradloc.experiments.continual.page import PAGE_FILE, write_stream_page
    from gradloc.experiments.continual.records import StreamRecord
    from gradloc.experiments.continual.table import stream_tables

    record = StreamRecord.load(path)
    figures = stream_figures(record)
    page = write_stream_page(record, path.parent / PAGE_FILE, figures=figures)
    show(as_json, figures.to_dict, stream_tables(figures), page)
