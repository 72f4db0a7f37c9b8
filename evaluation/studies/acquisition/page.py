"""The tables and the page of an analysis: learning, exposures and forgetting of injected facts."""

import math
from collections.abc import Sequence
from typing import Any

from rich import table as rich_tables

from gradloc.evaluation.results import MetricValue
from gradloc.report.charts import BETTER, Line, line_picture, plain_points
from gradloc.report.formatting import MISSING, capitalize, interval, number, percent
from gradloc.report.headline import BigFigure
from gradloc.report.page import Figures, Page, Pictures, Section, Text
from gradloc.report.styles import ArmStyle, assign_styles
from gradloc.report.table import Cell, Column, Table, figure_cell, make_table, rich_table

from .analysis import Analysis, GroupDynamics

_DASHES = {"verbatim": (1, 0), "paraphrase": (6, 3), "composition": (2, 2)}
_FIT_DASH = (5, 4)
_METHOD = (
    "θₜ are the weights before update t; the loss is the mean negative log-likelihood of an "
    "answer’s tokens. The local acquisition maximum of an exposure at step t is the first minimum "
    "of the loss over the measured steps t + 1 … t + {window}. Effectivity is the loss at t less "
    "the loss there. Retainability is (loss before the first exposure − loss s steps after the "
    "last maximum) ÷ (loss before the first exposure − loss at that maximum). It is averaged over "
    "the probes of a scenario and depth, those beyond {factor} interquartile ranges left out at "
    "each s apart, and a line over log₁₀ s is fitted to the mean by least squares. Chang et al. "
    "2024, “How do large language models acquire factual knowledge during pretraining?”, "
    "arXiv:2406.11813."
)


def acquisition_tables(analysis: Analysis) -> list[rich_tables.Table]:
    """For the terminal: the groups' figures, and what each of their exposures added."""
    title = (
        f"retainability after {analysis.times[-1]} steps; window {analysis.window} steps; outliers "
        f"beyond {analysis.outlier_factor} interquartile ranges"
    )
    caption = "95 % intervals over entities below; ↑ higher is better, ↓ lower is better"
    exposures = "effectivity of each exposure, nats per token ↑"
    return [
        rich_table(_group_table(analysis), title, caption),
        rich_table(_exposure_table(analysis), exposures, "95 % intervals below"),
    ]


def acquisition_page(analysis: Analysis, title: str) -> Page:
    """Make the page."""
    method = _METHOD.format(window=analysis.window, factor=analysis.outlier_factor)
    return Page(
        title=title,
        command="study: acquisition",
        lead=_lead(analysis),
        sections=[
            Section("figures", "Figures", _figures(analysis)),
            Section("learning", "Learning", _learning(analysis)),
            Section("effectivity", "What each exposure adds", _effectivity(analysis)),
            Section("retention", "Forgetting", _retention(analysis)),
            Section("method", "How it is computed", [Text(method)]),
        ],
        source="the training’s acquisition.json",
    )


def _lead(analysis: Analysis) -> list[Any]:
    n = {group.scenario: group.n_entities for group in analysis.groups}
    counts = ", ".join(f"{count} {scenario}" for scenario, count in n.items())
    depth = analysis.groups[0].depth
    constants = [
        BigFigure(
            number(group.decay.decay_constant),
            f"decay constant, {group.scenario} ({depth})",
            f"95 % interval {ends}" if (ends := interval(group.decay_constant)) else "",
        )
        for group in analysis.groups
        if group.depth == depth
    ]
    return [
        Text(
            f"How facts are learned from single exposures and forgotten after the last: {counts}. "
            f"Their probes were measured every {analysis.every} steps up to step "
            f"{analysis.n_steps:,}."
        ),
        Figures(constants),
        Text(
            "The decay constant is the share of what was learned that is lost each time the steps "
            "since the last maximum grow tenfold; lower is better. Below 0, the facts became "
            "better known after their last injection.",
            "note",
        ),
    ]


def _figures(analysis: Analysis) -> list[Any]:
    note = (
        f"Effectivity is the mean over exposures; retainability is {analysis.times[-1]} steps "
        "after the local acquisition maximum of the last one. Small: 95 % intervals over entities; "
        "they say nothing of what another seed of the training would give."
    )
    if analysis.against_control:
        note += " What the controls gained has been subtracted from every probe."
    return [_group_table(analysis), Text(note, "note")]


def _learning(analysis: Analysis) -> list[Any]:
    """Mean gain over training steps, one picture a scenario, one line a depth."""
    values = [v for group in analysis.groups for v in (*group.curve, *group.control_curve)]
    room = 0.05 * (max(values) - min(values) or 1.0)
    pictures = []
    for scenario, style in _styles(analysis).items():
        groups = [group for group in analysis.groups if group.scenario == scenario]
        own, controls = [], []
        for group in groups:
            dash = _DASHES[group.depth]
            gain, control = (
                plain_points(group.curve_steps, curve)
                for curve in (group.curve, group.control_curve)
            )
            gray = ArmStyle("control", "var(--reference)", "square", dash)
            own.append(Line(group.depth, style._replace(dash=dash), gain))
            controls.append(Line(f"{group.depth}, control", gray, control))
        pictures.append(
            line_picture(
                f"learning-{scenario}",
                f"{capitalize(scenario)}, {groups[0].n_entities} facts",
                [*own, *controls],
                x_title="Steps since a fact’s first injection",
                y_title="log-probability gained, nats per token",
                direction="↑ higher is better known",
                domain=[min(0.0, *values) - room, max(values) + room],
                has_zero=True,
                marks=groups[0].injections,
            )
        )
    text = (
        "What the answers’ log-probability gained since before each fact’s first injection. Facts "
        "are aligned at that step; dotted lines are injections."
    )
    if any(group.control_curve for group in analysis.groups):
        text += " Gray: control facts, which were not injected."
    return [Text(text), Pictures([p for p in pictures if p is not None], "medium")]


def _effectivity(analysis: Analysis) -> list[Any]:
    text = (
        "Nats per token gained from before an exposure to the local acquisition maximum after it, "
        f"within {analysis.window} steps. The maximum of a wavering curve lies above its mean, so "
        "a little is gained even where nothing is learned."
    )
    return [Text(text), _exposure_table(analysis)]


def _retention(analysis: Analysis) -> list[Any]:
    """Retainability over the logarithm of the steps, with the fitted lines, one a depth."""
    styles = _styles(analysis)
    pictures = []
    for depth in dict.fromkeys(group.depth for group in analysis.groups):
        groups = [group for group in analysis.groups if group.depth == depth]
        picture = line_picture(
            f"retention-{depth}",
            f"{capitalize(depth)} probes",
            [line for group in groups for line in _kept(group, analysis.times, styles)],
            x_title="Steps since the local acquisition maximum",
            y_title="Retainability, %",
            direction=BETTER[True],
            is_log=True,
            has_zero=True,
        )
        if picture is not None:
            pictures.append(picture)
    text = (
        "The share that is left of what all exposures added, over the logarithm of the steps. "
        "Dashed: the fits, whose slope is the decay constant; where one meets zero is the "
        "learnability threshold."
    )
    return [Text(text), Pictures(pictures)]


def _kept(group: GroupDynamics, times: Sequence[int], styles: dict[str, ArmStyle]) -> list[Line]:
    """What one group retains, and the line fitted to it."""
    style = styles[group.scenario]
    kept = zip(times, group.retainability, strict=True)
    lines = [Line(group.scenario, style, {float(t): found for t, found in kept if t > 0})]
    if math.isfinite(slope := group.decay.slope):
        fitted = {
            float(t): MetricValue(
                group.decay.intercept + slope * math.log10(t), None, None, 0, "fraction", True
            )
            for t in (times[1], times[-1])
        }
        lines.append(Line(f"{group.scenario}, fit", style._replace(dash=_FIT_DASH), fitted))
    return lines


def _styles(analysis: Analysis) -> dict[str, ArmStyle]:
    return assign_styles(list(dict.fromkeys(group.scenario for group in analysis.groups)))


def _group_table(analysis: Analysis) -> Table:
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


def _group_row(analysis: Analysis, group: GroupDynamics) -> list[str | Cell]:
    n_values = (group.n_probes - group.n_not_acquired) * len(analysis.times)
    n_out = sum(group.n_outliers)
    slope, error = group.decay.decay_constant, group.decay.slope_standard_error
    missed = f"{group.n_not_acquired} learned nothing" if group.n_not_acquired else ""
    threshold = figure_cell(group.threshold_steps)
    if group.threshold_steps.value is None:
        threshold = Cell(MISSING, group.threshold_steps.note)
    r2 = Cell(MISSING, group.r2.note)
    if group.r2.value is not None:
        ends = [number(end) for end in (group.r2.low, group.r2.high) if end is not None]
        r2 = Cell(number(group.r2.value), " to ".join(ends))
    return [
        group.scenario,
        group.depth,
        Cell(str(group.n_probes), missed),
        figure_cell(group.mean_effectivity),
        figure_cell(group.retainability[-1]),
        Cell(f"{number(slope)} ± {number(error, 2)}", interval(group.decay_constant)),
        r2,
        threshold,
        Cell(percent(n_out / n_values if n_values else None), f"{n_out} of {n_values}"),
    ]


def _exposure_table(analysis: Analysis) -> Table:
    """What each exposure added, one column a scenario and depth."""
    heads = (Column(group.scenario, group.depth) for group in analysis.groups)
    rows = [
        [
            str(turn + 1),
            *(
                figure_cell(group.effectivity[turn]) if turn < len(group.effectivity) else ""
                for group in analysis.groups
            ),
        ]
        for turn in range(max(len(group.effectivity) for group in analysis.groups))
    ]
    return make_table(["Exposure", *heads], rows)
