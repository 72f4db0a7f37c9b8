"""The commands of ``gradloc analyze``.

Comes in: arguments. Goes out: tables on the terminal or JSON, and the files of an analysis. Heavy
imports happen inside the commands.
"""

from pathlib import Path

import click

from gradloc.cli.commands import INPUT, MAX_LENGTH, SHOW_JSON, how_many, refuse_overwrite, show
from gradloc.errors import GradlocError


@click.group()
def analyze() -> None:
    """Analyse what happened along a training, or where a model's facts pull."""


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


@analyze.command()
@click.argument("model")
@click.option("--probes", type=INPUT, help="JSONL of probes: new or updated, and invariant.")
@click.option(
    "--reference",
    type=INPUT,
    help="Ordinary text: JSONL with 'text', or .txt. Default: the shipped passages.",
)
@click.option("--recipe", help="Take probes and reference text of this recipe instead.")
@how_many("--n", "Probes a group, and reference texts, at most.", least=4)
@MAX_LENGTH
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True
)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=INPUT, default=Path("localization.json"), show_default=True)
@click.option("--force", is_flag=True, help="Overwrite an earlier analysis.")
@SHOW_JSON
def localization(
    model, probes, reference, recipe, n, max_length, dtype, seed, out, force, as_json
) -> None:
    """Say at which layers new and updated facts pull harder than known facts.

    Gradient norms of facts that are new, updated, and old and known to MODEL, and of ordinary
    text. Writes localization.json, and a page with heat maps beside it.
    """
    from gradloc.experiments.analysis.localization import analyse_localization
    from gradloc.experiments.analysis.localization_page import write_localization_page
    from gradloc.experiments.analysis.localization_tables import localization_tables
    from gradloc.models import load_model, load_tokenizer
    from gradloc.utils.io import write_json

    if (probes is None) == (recipe is None):
        raise GradlocError("give --probes FILE or --recipe NAME: one of them says what is asked.")
    if recipe is not None and reference is not None:
        raise GradlocError("--recipe brings its own reference text; leave --reference out.")
    refuse_overwrite(out, force)
    probe_set, texts = read_facts(probes, reference, recipe)
    analysis = analyse_localization(
        load_model(model, dtype=dtype),
        load_tokenizer(model),
        probe_set,
        texts,
        n=n,
        max_length=max_length,
        seed=seed,
    )
    write_json(out, analysis.to_dict())
    page = write_localization_page(analysis, out.with_suffix(".html"), title=str(model))
    show(as_json, analysis.to_dict, localization_tables(analysis), page)


def read_facts(probes: Path | None, reference: Path | None, recipe: str | None):
    """Probes and reference texts, of files or of a recipe.

    Raises:
        GradlocError: A file or recipe is missing or has problems.
    """
    from gradloc.localization.probe_profile import recipe_reference, reference_texts

    if recipe is None:
        from gradloc.data.probes import load_probes

        return load_probes(probes), reference_texts(reference)
    from gradloc.data.corpora import read_corpus
    from gradloc.data.preparation import build_probes
    from gradloc.experiments.recipes import load_recipe

    found = load_recipe(recipe)
    corpus = read_corpus(found.corpus, seed=found.seed)
    return build_probes(found, corpus), recipe_reference(found, corpus)


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
