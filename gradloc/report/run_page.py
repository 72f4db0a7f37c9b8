"""The report of a run folder, or of a results file."""

from functools import partial
from pathlib import Path
from typing import Any

from gradloc.evaluation.results import UPTAKE_AXIS, EvalResult, MetricValue
from gradloc.report import page
from gradloc.report.answers import example_blocks
from gradloc.report.arms import (
    arm_styles,
    checkpoint_series,
    leading_arms,
    main_arm,
    uptake_metric,
)
from gradloc.report.charts import BETTER, Line, line_picture, plain_points
from gradloc.report.formatting import capitalize
from gradloc.report.headline import FACTS, TEXT, big_figures, judge
from gradloc.report.heat_map import layer_map
from gradloc.report.measures import first_measures, grouped_measures, main_losses, measures
from gradloc.report.metric_names import metric_label
from gradloc.report.plan_tables import plan_words
from gradloc.report.result_tables import (
    change_unit,
    figure_of,
    footnotes,
    measure_table,
    results_table,
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
_CHANGES = (
    "Uptake is what an arm gained over the base model on the new facts, forgetting is what it lost "
    "of what the base model had. An arm that learns nothing forgets nothing: the columns against "
    "full training compare at equal uptake."
)
_SCORES = "No base model was scored beside them, so these are plain scores."
_LEGEND = "Small: 95 % intervals. ↑ higher is better, ↓ lower is better, ★ best of its column."
_SIGNS = (
    "▲ better and ▼ worse than the base model: the 95 % interval excludes zero. ≈ no clear change. "
    "Of twenty intervals one is expected to miss by chance."
)


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
    return page.write_page(report_page(run), run.page)


def report_page(run: Run) -> page.Page:
    """Make the page of what was read."""
    results = run.results
    main = main_arm(results, list(run.recipe.get("arms") or ()))
    styles = arm_styles(results, main)
    about = [f"Suite {results.suite}"]
    about += [f"base model {results.baseline}"] if results.baseline else []
    about += [f"seed {seed}"] if (seed := run.recipe.get("seed")) is not None else []
    return page.Page(
        title=run.name,
        command="report",
        lead=[
            judge(results, main),
            page.Figures(big_figures(results, main)),
            page.Text(" · ".join(about), "note"),
        ],
        sections=[
            page.Section("results", "Results", _results(results, styles, main)),
            page.Section("tradeoff", "Uptake against forgetting", _tradeoff(results, styles)),
            page.Section("layers", "Where it trained", _layers(run, main)),
            page.Section("series", "Over the checkpoints", _series(results, styles)),
            page.Section("curves", "During training", _curves(results, styles)),
            page.Section("examples", "Before and after", example_blocks(results, styles)),
            page.Section("measures", "Every measure", _measures(results, main)),
            page.Section("details", "Details", _details(run)),
        ],
        source="the files of this run folder" if run.is_folder else "a results file",
    )


def _results(results: EvalResult, styles: Styles, main: str) -> list[Any]:
    leading, every = leading_arms(results), list(results.arms)
    table = partial(results_table, results, styles, main=main)
    blocks = [page.Text(_CHANGES if results.baseline_scores else _SCORES), table(leading)]
    if len(leading) < len(every):
        title = f"All {len(every)} checkpoints, step by step"
        blocks.append(page.Details(title, [table(every)]))
    blocks.append(page.Text(_LEGEND, "note"))
    notes = footnotes(results)
    return [*blocks, page.Notes(notes)] if notes else blocks


def _measures(results: EvalResult, main: str) -> list[Any]:
    leading = leading_arms(results)
    first = [main, *(name for name in leading if name in results.reference_arms), *leading]
    shown = list(dict.fromkeys(first))[:MAX_ARMS]
    arms = [name for name in leading if name in shown]
    every = [key for keys in grouped_measures(results).values() for key in keys]
    kinds = ("uptake", "forgetting") if results.baseline_scores else ("scores",)
    keys = [key for kind in kinds for key in measures(results, kind)]
    keys = first_measures(keys) if len(keys) > MAX_MEASURES else keys
    if not keys:
        return []
    blocks: list[Any] = [page.Text(_SIGNS)] if results.baseline_scores else []
    blocks.append(measure_table(results, arms, keys))
    if len(every) > len(keys):
        whole = measure_table(results, arms, every)
        blocks.append(page.Details(f"All {len(every)} measures", [whole]))
    if len(arms) < len(leading):
        blocks.append(page.Text(f"Shown are {len(arms)} of {len(leading)} arms.", "note"))
    return blocks


def _tradeoff(results: EvalResult, styles: Styles) -> list[Any]:
    uptake = uptake_metric(results) or ""
    curves = {name: run for run, names in checkpoint_series(results).items() for name in names}
    curves |= dict.fromkeys(results.reference_arms, _FULL)
    pictures = []
    for key in main_losses(results):
        models = [
            Model(
                name, styles[name], arm.uptake[uptake], arm.forgetting[key],
                f"step {arm.step:,}" if arm.step is not None else "", curves.get(name, ""),
            )
            for name, arm in results.arms.items()
            if uptake in arm.uptake and key in arm.forgetting
        ]  # fmt: skip
        pictures.append(tradeoff_picture(f"tradeoff-{key}", loss_title(key), models, uptake, key))
    lead = "Each point is a model with its 95 % intervals; the base model stands at zero."
    if results.reference_arms:
        lead += (
            " The dashed line joins the arms of full training: what lies above and to the left of "
            "it learned as much and lost less."
        )
    drawn = page.picture_blocks(pictures)
    return [page.Text(lead), *drawn] if drawn else []


def _layers(run: Run, main: str) -> list[Any]:
    if not run.is_folder:
        return []
    blocks: list[Any] = [
        page.Text(f"This folder has no {name}. Make it with: {COMMANDS[name]}", "empty")
        for name, value in (("profile.json", run.profile), ("plan.json", run.plan))
        if value is None
    ]
    if picture := layer_map(run.profile, run.plan):
        marked = f" ● marks the units that {main} trains." if run.plan else ""
        blocks += [page.Text(f"Each cell is one unit of the network.{marked}")]
        blocks += [page.Pictures([picture], "narrow")]
    return [*blocks, page.Terms(plan_words(run.plan))] if run.plan else blocks


def _series(results: EvalResult, styles: Styles) -> list[Any]:
    """The figures of checkpoints over their steps; scores where there is no base model."""
    is_change, pictures = bool(results.baseline_scores), []
    for key in (uptake_metric(results) or UPTAKE_AXIS, FACTS, TEXT):
        lines = []
        for run, names in checkpoint_series(results).items():
            points: dict[float, MetricValue] = {}
            for arm in map(results.arms.__getitem__, names):
                if arm.step is not None and (found := figure_of(arm, key, is_change)):
                    points[arm.step] = found
            lines.append(Line(run, styles[names[-1]], points))
        if first := next((figure for line in lines for figure in line.points.values()), None):
            picture = line_picture(
                f"series-{key}", capitalize(metric_label(key)), lines, x_title="Step",
                y_title=change_unit(first, is_change), direction=BETTER[first.higher_is_better],
                has_zero=is_change,
            )  # fmt: skip
            pictures.append(picture)
    return page.picture_blocks(pictures, "medium")


def _curves(results: EvalResult, styles: Styles) -> list[Any]:
    pictures = []
    for column, title in _CURVES.items():
        lines = []
        for name, arm in results.arms.items():
            steps = [step for step in arm.curve.get("step", ()) if step is not None]
            points = plain_points(steps, arm.curve.get(column, ()))
            lines.append(Line(name, styles[name], points))
        picture = line_picture(
            f"curve-{column}", title, lines, x_title="Step", y_title="nats per token",
            direction=BETTER[False],
        )  # fmt: skip
        pictures.append(picture)
    return page.picture_blocks(pictures, "medium")


def _details(run: Run) -> list[Any]:
    results = run.results
    checkpoints = [(name, arm.checkpoint) for name, arm in results.arms.items()]
    counts = [(key.replace("_", " "), f"{n:,}") for key, n in results.counts.items()]
    blocks: list[Any] = [page.Details("Checkpoints", [page.Terms(checkpoints)])]
    if counts:
        blocks.append(page.Details("What was scored", [make_table(("Items", "Number"), counts)]))
    if run.recipe_text:
        blocks.append(page.Details("Recipe", [page.Code(run.recipe_text)]))
    elif run.is_folder:
        blocks.append(page.Text("This folder has no recipe.yaml.", "empty"))
    if results.versions:
        versions = list(results.versions.items())
        blocks.append(page.Details("Library versions", [page.Terms(versions)]))
    return blocks
