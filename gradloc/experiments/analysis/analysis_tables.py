"""The tables of an acquisition or stage analysis, for its page and for the terminal."""

from rich import table as rich_tables

from gradloc.evaluation.results import MetricValue
from gradloc.experiments.analysis.dynamics import AcquisitionAnalysis, GroupDynamics
from gradloc.experiments.analysis.stages import StageAnalysis
from gradloc.report.formatting import MISSING, interval, number, percent, unit_name
from gradloc.report.table import Cell, Column, Table, figure_cell, make_table, rich_table


def group_table(analysis: AcquisitionAnalysis) -> Table:
    """One row a scenario and depth."""
    columns = [
        Column("Scenario"),
        Column("Depth"),
        Column("Probes"),
        Column("Effectivity", "nats per token", "", True),
        Column("Retainability", "%", "", True),
        Column("Decay constant a ± s.e.", "", "", False),
        Column("R²", "", "", True),
        Column("Threshold", "steps", "", True),
        Column("Outliers", "values"),
    ]
    return make_table(columns, [_group_row(analysis, group) for group in analysis.groups])


def exposure_table(analysis: AcquisitionAnalysis) -> Table:
    """What each exposure added, one column a scenario and depth."""
    n_exposures = max(len(group.effectivity) for group in analysis.groups)
    rows = [
        [
            str(turn + 1),
            *(
                figure_cell(group.effectivity[turn]) if turn < len(group.effectivity) else ""
                for group in analysis.groups
            ),
        ]
        for turn in range(n_exposures)
    ]
    heads = (Column(group.scenario, group.depth) for group in analysis.groups)
    return make_table(["Exposure", *heads], rows)


def acquisition_tables(analysis: AcquisitionAnalysis) -> list[rich_tables.Table]:
    """For the terminal: the groups' figures, and what each of their exposures added."""
    title = (
        f"retainability after {analysis.times[-1]} steps; window {analysis.window} steps; outliers "
        f"beyond {analysis.outlier_factor} interquartile ranges"
    )
    caption = "95 % intervals over entities below; ↑ higher is better, ↓ lower is better"
    exposures = "effectivity of each exposure, nats per token ↑"
    return [
        rich_table(group_table(analysis), title, caption),
        rich_table(exposure_table(analysis), exposures, "95 % intervals below"),
    ]


def stage_tables(analysis: StageAnalysis) -> list[rich_tables.Table]:
    """For the terminal: the score matrix, and the measures that are read off it."""
    unit = unit_name(analysis.scores[0][0].unit, difference=False)
    words = "log-probability" if analysis.metric == "nll" else analysis.metric
    heads = [
        Column(task, f"n={found.n}")
        for task, found in zip(analysis.tasks, analysis.scores[0], strict=True)
    ]
    named = [("baseline", analysis.base)] if analysis.base else []
    named += zip(analysis.stages, analysis.scores, strict=True)
    matrix = make_table(["stage", *heads], [[name, *map(figure_cell, row)] for name, row in named])
    measures = make_table(
        ["measure", "value", "better"],
        [
            [name.replace("_", " "), figure_cell(found), "↑" if found.higher_is_better else "↓"]
            for name, found in analysis.measures.items()
        ],
    )
    caption = f"columns: {analysis.by}; 95 % intervals below"
    return [
        rich_table(matrix, f"score after each stage: {words}, {unit} ↑", caption),
        rich_table(measures, "over all stages"),
    ]


def _group_row(analysis: AcquisitionAnalysis, group: GroupDynamics) -> list[str | Cell]:
    n_values = (group.n_probes - group.n_not_acquired) * len(analysis.times)
    n_out = sum(group.n_outliers)
    decay = group.decay
    slope = f"{number(decay.decay_constant)} ± {number(decay.slope_standard_error, 2)}"
    missed = f"{group.n_not_acquired} learned nothing" if group.n_not_acquired else ""
    return [
        group.scenario,
        group.depth,
        Cell(str(group.n_probes), missed),
        figure_cell(group.mean_effectivity),
        figure_cell(group.retainability[-1]),
        Cell(slope, interval(group.decay_constant)),
        _plain_cell(group.r2),
        figure_cell(group.threshold_steps)
        if group.threshold_steps.value is not None
        else Cell(MISSING, group.threshold_steps.note),
        Cell(percent(n_out / n_values if n_values else None), f"{n_out} of {n_values}"),
    ]


def _plain_cell(found: MetricValue) -> Cell:
    """A fraction that is no percentage."""
    if found.value is None:
        return Cell(MISSING, found.note)
    ends = () if found.low is None or found.high is None else (found.low, found.high)
    return Cell(number(found.value), " to ".join(number(end) for end in ends))
