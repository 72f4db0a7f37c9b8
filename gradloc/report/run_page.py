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
from gradloc.report.charts import BETTER, Line, line_picture, plain_points
from gradloc.report.formatting import capitalize
from gradloc.report.headline import FACTS, TEXT, big_figures, judge
from gradloc.report.layer_map import layer_map
from gradloc.report.measures import first_measures, grouped_measures, main_losses, measures
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
from gradloc.report.plan_tables import plan_words
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
            Section("tradeoff", "Uptake against forgetting", _tradeoff(results, styles)),
            Section("layers", "Where it trained", _layers(run, main)),
            Section("series", "Over the checkpoints", _series(results, styles)),
            Section("curves", "During training", _curves(results, styles)),
            Section("examples", "Before and after", example_blocks(results, styles)),
            Section("measures", "Every measure", _measures(results, main)),
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


def _measures(results: EvalResult, main: str) -> list[Any]:
    leading = leading_arms(results)
    first = [main, *(name for name in leading if name in results.reference_arms), *leading]
    shown = set(list(dict.fromkeys(first))[:MAX_ARMS])
    arms = [name for name in leading if name in shown]
    every = [key for keys in grouped_measures(results).values() for key in keys]
    kinds = ("uptake", "forgetting") if results.baseline_scores else ("scores",)
    keys = [key for kind in kinds for key in measures(results, kind)]
    keys = first_measures(keys) if len(keys) > MAX_MEASURES else keys
    if not keys:
        return []
    blocks: list[Any] = []
    if results.baseline_scores:
        meaning = (
            "▲ better and ▼ worse than the base model: the 95 % interval excludes zero. ≈ no "
            "clear change. Of twenty intervals one is expected to miss by chance."
        )
        blocks.append(Text(meaning))
    blocks.append(result_tables.measure_table(results, arms, keys))
    if len(every) > len(keys):
        whole = result_tables.measure_table(results, arms, every)
        blocks.append(Details(f"All {len(every)} measures", [whole]))
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
    if picture := layer_map(run.profile, run.plan):
        marked = f" ● marks the units that {main} trains." if run.plan else ""
        blocks += [Text(f"Each cell is one unit of the network.{marked}")]
        blocks += [Pictures([picture], "narrow")]
    if run.plan:
        blocks.append(Terms(plan_words(run.plan)))
    return blocks


def _series(results: EvalResult, styles: Styles) -> list[Any]:
    """The figures of checkpoints over their steps; scores where there is no base model."""
    is_change, pictures = bool(results.baseline_scores), []
    for key in (uptake_metric(results) or UPTAKE, FACTS, TEXT):
        lines = []
        for run, names in checkpoint_series(results).items():
            points = {}
            for arm in map(results.arms.get, names):
                found = result_tables.figure_of(arm, key, is_change) if arm else None
                if arm and arm.step is not None and found:
                    points[arm.step] = found
            lines.append(Line(run, styles[names[-1]], points))
        if first := next((figure for line in lines for figure in line.points.values()), None):
            picture = line_picture(
                f"series-{key}", capitalize(metric_label(key)), lines, x_title="Step",
                y_title=result_tables.change_unit(first, is_change),
                direction=BETTER[first.higher_is_better], has_zero=is_change,
            )  # fmt: skip
            pictures.append(picture)
    return [Pictures(pictures, "medium")] if pictures else []


def _curves(results: EvalResult, styles: Styles) -> list[Any]:
    pictures = []
    for column, title in _CURVES.items():
        lines = []
        for name, arm in results.arms.items():
            steps = [step for step in arm.curve.get("step", ()) if step is not None]
            if column in arm.curve:
                lines.append(Line(name, styles[name], plain_points(steps, arm.curve[column])))
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
    checkpoints = [(name, arm.checkpoint) for name, arm in results.arms.items()]
    blocks: list[Any] = [Details("Checkpoints", [Terms(checkpoints)])]
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
