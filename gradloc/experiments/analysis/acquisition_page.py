"""The page of an acquisition analysis: learning, exposures and forgetting of injected facts."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gradloc.evaluation.results import MetricValue
from gradloc.experiments.analysis import analysis_tables as tables
from gradloc.experiments.analysis.dynamics import AcquisitionAnalysis, GroupDynamics
from gradloc.report.charts import BETTER, Line, Picture, line_picture, plain_points
from gradloc.report.formatting import capitalize, interval, number
from gradloc.report.headline import BigFigure
from gradloc.report.page import Figures, Page, Pictures, Section, Text, write_page
from gradloc.report.styles import ArmStyle, assign_styles

CONTROL = "control"
_DASHES = {"verbatim": (1, 0), "paraphrase": (6, 3), "composition": (2, 2)}
_OTHER_DASH = (8, 3, 2, 3)
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


def write_acquisition_page(analysis: AcquisitionAnalysis, path: str | Path, *, title: str) -> Path:
    """Write the page.

    Args:
        analysis: What is shown.
        path: The file.
        title: Name of the run.

    Raises:
        GradlocError: The file cannot be written.
    """
    return write_page(acquisition_page(analysis, title), path)


def acquisition_page(analysis: AcquisitionAnalysis, title: str) -> Page:
    """Make the page."""
    return Page(
        title=title,
        command="analyze acquisition",
        lead=_lead(analysis),
        sections=[
            Section("figures", "Figures", _figures(analysis)),
            Section("learning", "Learning", _learning(analysis)),
            Section("effectivity", "What each exposure adds", _effectivity(analysis)),
            Section("retention", "Forgetting", _retention(analysis)),
            Section("method", "How it is computed", [
                Text(_METHOD.format(window=analysis.window, factor=analysis.outlier_factor))
            ]),
        ],
        source="the training’s acquisition.json",
    )  # fmt: skip


def _lead(analysis: AcquisitionAnalysis) -> list[Any]:
    n = {group.scenario: group.n_entities for group in analysis.groups}
    counts = ", ".join(f"{count} {scenario}" for scenario, count in n.items())
    every = "step" if analysis.every == 1 else f"{analysis.every} steps"
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
            f"Their probes were measured every {every} up to step {analysis.n_steps:,}."
        ),
        Figures(constants),
        Text(
            "The decay constant is the share of what was learned that is lost each time the steps "
            "since the last maximum grow tenfold; lower is better. Below 0, the facts became "
            "better known after their last injection.",
            "note",
        ),
    ]


def _figures(analysis: AcquisitionAnalysis) -> list[Any]:
    note = (
        f"Effectivity is the mean over exposures; retainability is {analysis.times[-1]} steps "
        "after the local acquisition maximum of the last one. Small: 95 % intervals over entities; "
        "they say nothing of what another seed of the training would give."
    )
    return [tables.group_table(analysis), Text(note, "note")]


def _learning(analysis: AcquisitionAnalysis) -> list[Any]:
    """Mean gain over training steps, one picture a scenario, one line a depth."""
    values = [v for group in analysis.groups for v in (*group.curve, *group.control_curve)]
    room = 0.05 * (max(values) - min(values) or 1.0)
    domain = [min(0.0, *values) - room, max(values) + room]
    pictures = []
    for scenario, style in _styles(analysis).items():
        groups = [group for group in analysis.groups if group.scenario == scenario]
        lines = []
        for group in groups:
            dash = _DASHES.get(group.depth, _OTHER_DASH)
            own = replace(style, dash=dash)
            points = plain_points(group.curve_steps, group.curve)
            lines.append(Line(group.depth, own, points))
        for group in groups:
            gray = ArmStyle(CONTROL, "var(--reference)", "square", _DASHES.get(group.depth, (1, 0)))
            points = plain_points(group.curve_steps, group.control_curve)
            lines.append(Line(f"{group.depth}, {CONTROL}", gray, points))
        pictures.append(
            line_picture(
                f"learning-{slug(scenario)}",
                f"{capitalize(scenario)}, {groups[0].n_entities} facts",
                lines,
                x_title="Steps since a fact’s first injection",
                y_title="log-probability gained, nats per token",
                direction="↑ higher is better known",
                domain=domain,
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
    return [Text(text), Pictures(_drawn(pictures), "medium")]


def _effectivity(analysis: AcquisitionAnalysis) -> list[Any]:
    """What each exposure adds; none where all facts are shown once."""
    if max(len(group.effectivity) for group in analysis.groups) < 2:
        return []
    text = (
        "Nats per token gained from before an exposure to the local acquisition maximum after it, "
        f"within {analysis.window} steps. The maximum of a wavering curve lies above its mean, so "
        "a little is gained even where nothing is learned."
    )
    return [Text(text), tables.exposure_table(analysis)]


def _retention(analysis: AcquisitionAnalysis) -> list[Any]:
    """Retainability over the logarithm of the steps, with the fitted lines, one a depth."""
    if len(analysis.times) < 2:
        text = (
            "The training ends right after the last exposure, so nothing can be said. Train longer."
        )
        return [Text(text, "empty")]
    styles = _styles(analysis)
    pictures = [
        line_picture(
            f"retention-{slug(depth)}",
            f"{capitalize(depth)} probes",
            [line for group in groups for line in _kept(group, analysis.times, styles)],
            x_title="Steps since the local acquisition maximum",
            y_title="Retainability, %",
            direction=BETTER[True],
            is_log=True,
            has_zero=True,
        )
        for depth, groups in _by_depth(analysis).items()
    ]
    text = (
        "The share that is left of what all exposures added, over the logarithm of the steps. "
        "Dashed: the fits, whose slope is the decay constant; where one meets zero is the "
        "learnability threshold."
    )
    return [Text(text), Pictures(_drawn(pictures))]


def _kept(group: GroupDynamics, times: Sequence[int], styles: dict[str, ArmStyle]) -> list[Line]:
    """What one group retains, and the line fitted to it."""
    style = styles[group.scenario]
    kept = zip(times, group.retainability, strict=True)
    measured = {float(t): found for t, found in kept if t > 0}
    lines = [Line(group.scenario, style, measured)]
    fit = group.decay
    if math.isfinite(fit.slope):
        values = {t: fit.intercept + fit.slope * math.log10(t) for t in (times[1], times[-1])}
        fitted = {
            float(t): MetricValue(value, None, None, 0, "fraction", True)
            for t, value in values.items()
        }
        lines.append(Line(f"{group.scenario}, fit", replace(style, dash=_FIT_DASH), fitted))
    return lines


def _styles(analysis: AcquisitionAnalysis) -> dict[str, ArmStyle]:
    return assign_styles(list(dict.fromkeys(group.scenario for group in analysis.groups)))


def slug(text: str) -> str:
    """A word as part of a picture's key."""
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower())


def _by_depth(analysis: AcquisitionAnalysis) -> dict[str, list[GroupDynamics]]:
    depths = list(dict.fromkeys(group.depth for group in analysis.groups))
    return {depth: [g for g in analysis.groups if g.depth == depth] for depth in depths}


def _drawn(pictures: Sequence[Picture | None]) -> list[Picture]:
    return [picture for picture in pictures if picture is not None]
