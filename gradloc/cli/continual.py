"""The command ``gradloc continual``. Heavy imports happen inside."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from gradloc.cli.options import Count, Json, Overrides, show
from gradloc.errors import GradlocError

PAGE_FILE = "continual.html"


def continual(
    recipe: Annotated[str, Positional, arg(metavar="RECIPE")],
    *,
    by: Literal["month", "quarter", "year"] = "month",
    first: Annotated[str, arg(name="from", metavar="PERIOD")] = "",
    last: Annotated[str, arg(name="to", metavar="PERIOD")] = "",
    arms: Annotated[tuple[str, ...], arg(name="arm")] = (),
    measure: Literal["each", "once"] = "each",
    overrides: Overrides = (),
    jobs: Count = 1,
    keep_weights: bool = False,
    as_json: Json = False,
) -> None:
    """Train on one month after another, and see what each adds and what it loses.

    RECIPE is a YAML file or the name of a shipped one (current-events-continual). Each stage trains
    on the documents of one period, from the weights of the stage before; after every stage all
    items are scored. Killed at any point, it continues where it stopped. It ends in continual.html:
    score matrices, transfer and forgetting.

      gradloc continual current-events-continual --arm full --arm interference_ratio
      gradloc continual news.yaml --by quarter --from 2024-Q3 --to 2025-Q2

    A continual.json alone (of another machine, say) is drawn by

      gradloc continual runs/news/continual.json

    Args:
        recipe: Recipe file or name, or a finished record to draw.
        by: One stage a month, quarter or year.
        first: First period, such as 2025-01, 2025-Q1 or 2025. Default: the recipe's cut-off.
        last: Last period, itself included. Default: that of the last document.
        arms: Only this arm; may be repeated.
        measure: Choose layers anew in every stage, or take those of the first.
        overrides: Override a recipe value, such as name=news or training.max_steps=20; may be
            repeated.
        jobs: Arms at a time, each in its own process with its share of the cores and, where there
            are several, an accelerator of its own (CUDA_VISIBLE_DEVICES says which).
        keep_weights: Keep the weights of every stage; without it, also where they were kept
            before, those of each arm's last stage alone.
    """
    if recipe.endswith(".json"):
        _draw(Path(recipe), as_json)
        return
    from gradloc.experiments.continual.continual_record import ContinualRecord
    from gradloc.experiments.continual.run_continual import run_continual
    from gradloc.experiments.continual.shared_inputs import Division
    from gradloc.experiments.jobs import failure_text
    from gradloc.experiments.recipes import load_recipe

    path, failed = run_continual(
        load_recipe(recipe, overrides),
        Division(by, first, last, measure),
        arms=arms,
        jobs=jobs,
        keep_weights=keep_weights,
        command=shlex.join(["gradloc", *sys.argv[1:]]),
    )
    if not failed or ContinualRecord.load(path).arms:
        _draw(path, as_json)
    if failed:
        raise GradlocError(failure_text(failed))


def _draw(path: Path, as_json: bool) -> None:
    from gradloc.experiments.continual.continual_figures import continual_figures
    from gradloc.experiments.continual.continual_page import continual_tables, write_continual_page
    from gradloc.experiments.continual.continual_record import ContinualRecord

    record = ContinualRecord.load(path)
    figures = continual_figures(record)
    page = write_continual_page(record, figures, path.parent / PAGE_FILE)
    show(as_json, figures.to_dict, continual_tables(figures), page)
