"""The commands of ``gradloc analyze``. Heavy imports happen inside."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from gradloc.cli.options import Count, Json, show
from gradloc.errors import GradlocError


def analyze_acquisition(
    run: Annotated[Path, Positional, arg(metavar="RUN")],
    *,
    arm: str | None = None,
    window: Count | None = None,
    out: Path | None = None,
    as_json: Json = False,
) -> None:
    """Say how a RUN's facts were learned and forgotten: effectivity, retainability, decay.

    Writes acquisition_analysis.json and acquisition.html; those of an earlier analysis are
    replaced.

    Args:
        run: Run folder, checkpoint folder or acquisition.json.
        arm: Arm whose record is read. Default: the run's main one.
        window: Steps after an exposure in which its effect is looked for. Default: 50, or the
            distance between two exposures where that is shorter.
        out: Folder of the files. Default: the run's.
    """
    from gradloc.experiments.analysis import analyse_acquisition
    from gradloc.experiments.analysis.acquisition_page import write_acquisition_page
    from gradloc.experiments.analysis.analysis_tables import acquisition_tables
    from gradloc.training.acquisition import AcquisitionRecord
    from gradloc.utils.io import write_json

    path = find_record(run, arm)
    folder = out or (run if run.is_dir() else run.parent)
    analysis = analyse_acquisition(AcquisitionRecord.load(path), window=window)
    write_json(folder / "acquisition_analysis.json", analysis.to_dict())
    title = path.parent.parent.name if path.parent.name == "checkpoint" else path.parent.name
    title = f"{title} {arm or ''}".strip()
    page = write_acquisition_page(analysis, folder / "acquisition.html", title=title)
    show(as_json, analysis.to_dict, acquisition_tables(analysis), page)


def analyze_stages(
    results: Annotated[Path, Positional, arg(metavar="RESULTS")],
    *,
    by: Literal["task", "kind", "month"] = "task",
    metric: Literal["nll", "exact"] = "nll",
    stage_names: Annotated[tuple[str, ...], arg(name="stage", metavar="ARM")] = (),
    as_json: Json = False,
) -> None:
    """Show what a sequence of stages did to every task: transfer and forgetting.

    Args:
        results: A results.json whose arms are the stages in their order; its baseline is the model
            before any stage.
        by: What each stage was trained on: the columns of the score matrix.
        metric: Score: log-probability of the answers, or share answered right.
        stage_names: Arm that is a stage; repeat it in the order of training. Default: all arms in
            order.
    """
    from gradloc.evaluation.results import EvalResult
    from gradloc.experiments.analysis import analyse_stages
    from gradloc.experiments.analysis.analysis_tables import stage_tables

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
