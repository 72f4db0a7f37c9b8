"""The commands of ``gradloc analyze``.

Comes in: arguments. Goes out: tables on the terminal or JSON, and the files of an analysis. Heavy
imports happen inside the commands.
"""

from pathlib import Path

import click

from gradloc.cli.commands import INPUT, SHOW_JSON, show
from gradloc.errors import GradlocError


@click.group()
def analyze() -> None:
    """Analyse what happened along a training."""


@analyze.command()
@click.argument("run", type=INPUT)
@click.option("--arm", help="Arm whose record is read. Default: the run's main one.")
@click.option(
    "--window",
    type=click.IntRange(min=1),
    help="Steps after an exposure in which its effect is looked for. Default: 50, or the distance "
    "between two exposures where that is shorter.",
)
@click.option(
    "--released",
    is_flag=True,
    help="Take the released code's choices: outliers beyond 2.0 interquartile ranges, left out of "
    "effectivity as well.",
)
@click.option(
    "--against-control",
    is_flag=True,
    help="Subtract what facts gained that were measured and not injected.",
)
@click.option("--out", type=INPUT, help="Folder of the files. Default: the run's.")
@SHOW_JSON
def acquisition(run, arm, window, released, against_control, out, as_json) -> None:
    """Say how a RUN's facts were learned and forgotten: effectivity, retainability, decay.

    RUN is a run folder, a checkpoint folder or an acquisition.json. Writes
    acquisition_analysis.json and acquisition.html; those of an earlier analysis are replaced.
    """
    from gradloc.experiments.analysis import analyse_acquisition
    from gradloc.experiments.analysis.page import write_page
    from gradloc.experiments.analysis.tables import acquisition_tables
    from gradloc.training.acquisition import AcquisitionRecord
    from gradloc.utils.io import write_json

    path = find_record(run, arm)
    folder = out or (run if run.is_dir() else run.parent)
    analysis = analyse_acquisition(
        AcquisitionRecord.load(path),
        window=window,
        released=released,
        against_control=against_control,
    )
    write_json(folder / "acquisition_analysis.json", analysis.to_dict())
    title = path.parent.parent.name if path.parent.name == "checkpoint" else path.parent.name
    page = write_page(analysis, folder / "acquisition.html", title=f"{title} {arm or ''}".strip())
    show(as_json, analysis.to_dict, acquisition_tables(analysis), page)


@analyze.command()
@click.argument("results", type=INPUT)
@click.option(
    "--by",
    type=click.Choice(["task", "kind", "month"]),
    default="task",
    show_default=True,
    help="What each stage was trained on: the columns of the score matrix.",
)
@click.option(
    "--metric",
    type=click.Choice(["nll", "exact"]),
    default="nll",
    show_default=True,
    help="Score: log-probability of the answers, or share answered right.",
)
@click.option(
    "--stage",
    "stage_names",
    multiple=True,
    metavar="ARM",
    help="Arm that is a stage; repeat it in the order of training. Default: all arms in order.",
)
@SHOW_JSON
def stages(results, by, metric, stage_names, as_json) -> None:
    """Show what a sequence of stages did to every task: transfer and forgetting.

    RESULTS is a results.json whose arms are the stages in their order; its baseline is the model
    before any stage.
    """
    from gradloc.evaluation.results import EvalResult
    from gradloc.experiments.analysis import analyse_stages
    from gradloc.experiments.analysis.tables import stage_tables

    analysis = analyse_stages(EvalResult.load(results), by=by, metric=metric, stages=stage_names)
    show(as_json, analysis.to_dict, stage_tables(analysis), None)


def find_record(run: Path, arm: str | None = None) -> Path:
    """The acquisition record that a user means by a run folder, a checkpoint or the file itself.

    Raises:
        GradlocError: There is none; the places that were looked at are named.
    """
    if run.is_file():
        return run
    if arm:
        places = [run / "checkpoint" / "arms" / arm, run / "arms" / arm]
    else:
        places = [run, run / "checkpoint"]
    found = [place / "acquisition.json" for place in places]
    for path in found:
        if path.is_file():
            return path
    raise GradlocError(
        f"{run}: no acquisition record, neither {' nor '.join(str(path) for path in found)}. "
        "Train with AcquisitionCallback, or run a recipe with an 'injection' (recipes/"
        "acquisition.yaml)."
    )
