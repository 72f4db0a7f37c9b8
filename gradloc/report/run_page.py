"""The report of a run folder, or of a results file."""

from pathlib import Path
from typing import Any

from gradloc.evaluation.results import EvalResult
from gradloc.report import result_tables
from gradloc.report.answers import example_blocks
from gradloc.report.arms import (
    UPTAKE,
    arm_styles,
    checkpoint_series,
    leading_arms,
    main_arm,
    uptake_metric,
)
from gradloc.report.charts import BETTER, Line, Picture, line_picture, plain_points
from gradloc.report.formatting import capitalize, unit_name
from gradloc.report.headline import FACTS, TEXT, big_figures, judge
from gradloc.report.layer_map import layer_maps, plan_words, reliability_text
from gradloc.report.measures import first_measures, main_losses, measures
from gradloc.report.metric_names import metric_label
from gradloc.report.page import (
    Code,
    Details,
    Figures,
    Notes,
    Page,
    Pictures,
    Section,
    Terms,
    Text,
    write_page,
)
from gradloc.report.run_folder import COMMANDS, Run, read_run
from gradloc.report.scatter import Model, loss_title, tradeoff_picture
from gradloc.report.styles import ArmStyle
from gradloc.report.table import make_table

Styles = dict[str, ArmStyle]
# More columns than that nobody compares; Details have every arm.
MAX_ARMS = 8
# About a screen of rows; of more measures the first of each set is seen at once.
MAX_MEASURES = 14
_CURVES = {"loss": "Training loss", "new_nll": "New facts", "invariant_nll": "Known facts"}
_FULL = "full training"


def write_report(run_dir: str | Path) -> Path:
    """Write the page of a run or of a results file.

    Args:
        run_dir: Folder with ``results.json``, whose ``recipe.yaml``, ``profile.json`` and
            ``plan.json`` are shown where they exist; or a file that ``gradloc evaluate`` wrote,
            of any checkpoints.

    Returns:
        Path of the page: ``report.html`` in the folder, or ``NAME.html`` beside ``NAME.json``.

    Raises:
        RunError: There is no such folder or file, or it has no results.
        GradlocError: A file cannot be read or is no results file, or the page cannot be written.
    """
    run = read_run(run_dir)
    return write_page(report_page(run), run.page)


def report_page(run: Run) -> Page:
    """Make the page of what was read."""
    results = run.results
    main = main_arm(results, list(run.recipe.get("arms") or ()))
    styles = arm_styles(results, main)
    about = [f"Suite {results.suite}", f"base model {results.baseline}" if results.baseline else ""]
    if run.recipe.get("seed") is not None:
        about.append(f"seed {run.recipe['seed']}")
    return Page(
        title=run.name,
        command="report",
        lead=[
            judge(results, main),
            Figures(big_figures(results, main)),
            Text(" · ".join(filter(None, about)), "note"),
        ],
        sections=[
            Section("results", "Results", _results(results, styles, main)),
            Section("changes", _changes_title(results), _changes(results, main)),
            Section("tradeoff", "Uptake against forgetting", _tradeoff(results, styles)),
            Section("layers", "Where it trained", _layers(run, main)),
            Section("series", "Over the checkpoints", _series(results, styles)),
            Section("curves", "During training", _curves(results, styles)),
            Section("examples", "Before and after", example_blocks(results, styles)),
            Section("details", "Details", _details(run)),
        ],
        source="the files of this run folder" if run.is_folder else "a results file",
    )


def _results(results: EvalResult, styles: Styles, main: str) -> list[Any]:
    leading = leading_arms(results)
    meaning = "No base model was scored beside them, so these are plain scores."
    if results.baseline_scores:
        meaning = (
            "Uptake is what an arm gained over the base model on the new facts, forgetting is what "
            "it lost of what the base model had. An arm that learns nothing forgets nothing: the "
            "columns against full training compare at equal uptake."
        )
    blocks = [Text(meaning), result_tables.results_table(results, styles, leading, main)]
    if len(leading) < len(results.arms):
        every = result_tables.results_table(results, styles, list(results.arms), main)
        blocks.append(Details(f"All {len(results.arms)} checkpoints, step by step", [every]))
    blocks.append(
        Text("Small: 95 % intervals. ↑ higher is better, ↓ lower is better, ★ best of its column.",
             "note")
    )  # fmt: skip
    notes = result_tables.footnotes(results)
    return [*blocks, Notes(notes)] if notes else blocks


def _changes_title(results: EvalResult) -> str:
    return "What was learned, what was lost" if results.baseline_scores else "Scores by measure"


def _changes(results: EvalResult, main: str) -> list[Any]:
    leading = leading_arms(results)
    first = [main, *(name for name in leading if name in results.reference_arms), *leading]
    shown = set(list(dict.fromkeys(first))[:MAX_ARMS])
    arms = [name for name in leading if name in shown]
    kinds = ("uptake", "forgetting") if results.baseline_scores else ("scores",)
    tables, more = [], []
    for kind in kinds:
        keys = measures(results, kind)
        whole = result_tables.change_table(results, arms, kind, keys)
        if len(keys) > MAX_MEASURES:
            more.append(Details(f"All {len(keys)} measures", [whole]))
            whole = result_tables.change_table(results, arms, kind, first_measures(keys))
        tables.append(whole)
    tables = [table for table in tables if table is not None]
    if not tables:
        return []
    blocks: list[Any] = []
    if results.baseline_scores:
        blocks.append(
            Text("▲ better and ▼ worse than the base model: the 95 % interval excludes zero. ≈ no "
                 "clear change. Of twenty intervals one is expected to miss by chance.")
        )  # fmt: skip
    blocks += [*tables, *more]
    if len(arms) < len(leading):
        blocks.append(Text(f"Shown are {len(arms)} of {len(leading)} arms.", "note"))
    return blocks


def _tradeoff(results: EvalResult, styles: Styles) -> list[Any]:
    uptake = uptake_metric(results)
    if uptake is None:
        return []
    series = {name: run for run, names in checkpoint_series(results).items() for name in names}
    pictures = []
    for key in main_losses(results):
        models = [
            Model(
                name, styles[name], arm.uptake[uptake], arm.forgetting[key],
                f"step {arm.step:,}" if arm.step is not None else "",
                _FULL if name in results.reference_arms else series.get(name, ""),
            )
            for name, arm in results.arms.items()
            if uptake in arm.uptake and key in arm.forgetting
        ]  # fmt: skip
        pictures.append(tradeoff_picture(f"tradeoff-{key}", loss_title(key), models, uptake, key))
    pictures = [picture for picture in pictures if picture is not None]
    if not pictures:
        return []
    lead = "Each point is a model with its 95 % intervals; the base model stands at zero."
    if results.reference_arms:
        lead += (
            " The dashed line joins the arms of full training: what lies above and to the left of "
            "it learned as much and lost less."
        )
    return [Text(lead), Pictures(pictures)]


def _layers(run: Run, main: str) -> list[Any]:
    if not run.is_folder:
        return []
    blocks: list[Any] = [
        Text(f"This folder has no {name}. Make it with: {COMMANDS[name]}", "empty")
        for name, value in (("profile.json", run.profile), ("plan.json", run.plan))
        if value is None
    ]
    if maps := layer_maps(run.profile, run.plan):
        marked = f" ● marks the units that {main} trains." if run.plan else ""
        blocks += [Text(f"Each cell is one unit of the network.{marked}"), Pictures(maps, "narrow")]
    if words := plan_words(run.profile, run.plan):
        blocks.append(Terms(words))
    if run.plan and run.plan.reliability:
        blocks.append(Text(reliability_text(run.plan.reliability.get("split_half"))))
        if warning := run.plan.reliability.get("warning"):
            blocks.append(Text(f"Warning: {warning}", "warning"))
    return blocks


def _series(results: EvalResult, styles: Styles) -> list[Any]:
    series = checkpoint_series(results)
    wanted = [("uptake", uptake_metric(results)), ("forgetting", FACTS), ("forgetting", TEXT)]
    if not results.baseline_scores:
        wanted = [("scores", key) for key in (UPTAKE, FACTS, TEXT)]
    pictures = [_series_picture(results, styles, series, kind, key or "") for kind, key in wanted]
    found = [picture for picture in pictures if picture is not None]
    return [Pictures(found, "medium")] if found else []


def _series_picture(
    results: EvalResult, styles: Styles, series: dict[str, list[str]], kind: str, key: str
) -> Picture | None:
    lines, first = [], None
    for run, names in series.items():
        points = {
            arm.step: getattr(arm, kind)[key]
            for name in names
            if (arm := results.arms[name]).step is not None and key in getattr(arm, kind)
        }
        first = first or next(iter(points.values()), None)
        lines.append(Line(run, styles[names[-1]], points))
    if first is None:
        return None
    verb = {"uptake": "gained", "forgetting": "lost", "scores": ""}[kind]
    unit = unit_name(first.unit, difference=kind != "scores")
    return line_picture(
        f"series-{key}", capitalize(metric_label(key)), lines,
        x_title="Step", y_title=f"{unit} {verb}".strip(),
        direction=BETTER[first.higher_is_better], has_zero=kind != "scores",
    )  # fmt: skip


def _curves(results: EvalResult, styles: Styles) -> list[Any]:
    pictures = []
    for column, title in _CURVES.items():
        lines = [
            Line(name, styles[name], plain_points(arm.curve.get("step", ()), arm.curve[column]))
            for name, arm in results.arms.items()
            if column in arm.curve
        ]
        pictures.append(
            line_picture(
                f"curve-{column}", title, lines, x_title="Step", y_title="nats per token",
                direction=BETTER[False],
            )
        )  # fmt: skip
    found = [picture for picture in pictures if picture is not None]
    return [Pictures(found, "medium")] if found else []


def _details(run: Run) -> list[Any]:
    results = run.results
    blocks: list[Any] = [
        Details(
            f"{name}: all metrics",
            [Text(arm.checkpoint, "note"), result_tables.metric_table(results, arm)],
        )
        for name, arm in results.arms.items()
    ]
    if results.counts:
        counts = [(key.replace("_", " "), f"{n:,}") for key, n in results.counts.items()]
        blocks.append(Details("What was scored", [make_table(("Items", "Number"), counts)]))
    if run.recipe_text:
        blocks.append(Details("Recipe", [Code(run.recipe_text)]))
    elif run.is_folder:
        blocks.append(Text("This folder has no recipe.yaml.", "empty"))
    if results.versions:
        blocks.append(Details("Library versions", [Terms(list(results.versions.items()))]))
    return blocks
