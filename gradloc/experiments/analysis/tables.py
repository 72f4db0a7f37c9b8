"""The tables of an analysis, for the terminal and for the page.

Comes in: an ``AcquisitionAnalysis`` or a ``StageAnalysis``. Goes out: rich tables, and rows of
text. It computes nothing that the values do not hold.
"""

from rich import box
from rich.table import Table
from rich.text import Text

from gradloc.evaluation.results import MetricValue
from gradloc.experiments.analysis.dynamics import AcquisitionAnalysis, GroupDynamics, ProbeDynamics
from gradloc.experiments.analysis.stages import StageAnalysis
from gradloc.report.formatting import MISSING, by_unit, interval, number, percent, unit_name

GROUP_COLUMNS = (
    "Scenario", "Depth", "Probes", "Effectivity, nats per token", "Retainability, %",
    "Decay constant a ± s.e.", "R²", "Threshold, steps", "Outliers, values",
)  # fmt: skip
PROBE_COLUMNS = (
    "Probe", "Scenario", "Depth", "NLL before", "NLL at its best", "Gain of each exposure",
    "Retainability, %", "Decay constant",
)  # fmt: skip


def group_rows(analysis: AcquisitionAnalysis) -> list[tuple[tuple[str, str], ...]]:
    """One row a group: each cell a text and a small text below it."""
    return [_group_row(analysis, group) for group in analysis.groups]


def probe_rows(analysis: AcquisitionAnalysis) -> list[tuple[str, ...]]:
    """Every probe's own numbers."""
    return [_probe_row(probe) for probe in analysis.probes]


def acquisition_tables(analysis: AcquisitionAnalysis) -> tuple[Table, Table]:
    """The groups' figures, and what each of their exposures added."""
    first = _table(
        f"retainability after {analysis.times[-1]} steps; window {analysis.window} steps; outliers "
        f"beyond {analysis.outlier_factor} interquartile ranges",
        "95 % intervals below: entities drawn anew; ↑ higher is better, ↓ lower is better",
    )
    arrows = ("", "", "", " ↑", " ↑", " ↓", " ↑", " ↑", "")
    for place, (name, arrow) in enumerate(zip(GROUP_COLUMNS, arrows, strict=True)):
        head, _, unit = name.partition(", ")
        unit = f"\n[dim]{unit}[/dim]" if unit else ""
        first.add_column(
            f"{head}{arrow}{unit}", justify="left" if place < 2 else "right", no_wrap=place < 2
        )
    for row in group_rows(analysis):
        first.add_row(*(_two_lines(*cell) for cell in row))
    second = _table("effectivity of each exposure, nats per token ↑", "95 % intervals below")
    second.add_column("Exposure", justify="right")
    for group in analysis.groups:
        second.add_column(f"{group.scenario}\n{group.depth}", justify="right")
    for turn in range(max(len(group.effectivity) for group in analysis.groups)):
        gains = [group.effectivity[turn : turn + 1] for group in analysis.groups]
        cells = [_two_lines(*_value(found[0])) if found else Text() for found in gains]
        second.add_row(str(turn + 1), *cells)
    return first, second


def stage_tables(analysis: StageAnalysis) -> tuple[Table, Table]:
    """The score matrix, and the measures that are read off it."""
    unit = analysis.scores[0][0].unit
    words = "log-probability" if analysis.metric == "nll" else analysis.metric
    matrix = _table(
        f"score after each stage: {words}, {unit_name(unit, difference=False)} ↑",
        f"columns: {analysis.by}; 95 % intervals below",
    )
    matrix.add_column("stage")
    for task, found in zip(analysis.tasks, analysis.scores[0], strict=True):
        matrix.add_column(f"{task}\n[dim]n={found.n}[/dim]", justify="right")
    named = [("baseline", analysis.base)] if analysis.base else []
    named += zip(analysis.stages, analysis.scores, strict=True)
    for name, row in named:
        matrix.add_row(name, *(_two_lines(*_value(found)) for found in row))
    measures = _table("over all stages", None)
    for name in ("measure", "value", "95 % interval", "better"):
        measures.add_column(name)
    for name, found in analysis.measures.items():
        value, ends = _value(found)
        arrow = "↑ higher" if found.higher_is_better else "↓ lower"
        measures.add_row(name.replace("_", " "), value, ends, arrow)
    return matrix, measures


def _group_row(analysis: AcquisitionAnalysis, group: GroupDynamics) -> tuple[tuple[str, str], ...]:
    n_kept = group.n_probes - group.n_not_acquired
    n_values = n_kept * len(analysis.times)
    n_out = sum(group.n_outliers)
    return (
        (group.scenario, ""),
        (group.depth, ""),
        (
            str(group.n_probes),
            f"{group.n_not_acquired} learned nothing" if group.n_not_acquired else "",
        ),
        _value(group.mean_effectivity),
        _value(group.retainability[-1]),
        (
            f"{number(group.decay.decay_constant)} ± {number(group.decay.slope_standard_error, 2)}",
            interval(group.decay_constant),
        ),
        _value(group.r2, as_percent=False),
        _value(group.threshold_steps),
        (percent(n_out / n_values if n_values else None), f"{n_out} of {n_values}"),
    )


def _probe_row(probe: ProbeDynamics) -> tuple[str, ...]:
    return (
        probe.id,
        probe.scenario,
        probe.depth,
        number(probe.loss_before),
        number(probe.loss_best),
        "  ".join(number(gain, 2) for gain in probe.effectivity),
        number(100 * probe.retainability),
        number(probe.decay.decay_constant),
    )


def _value(found: MetricValue, *, as_percent: bool = True) -> tuple[str, str]:
    """The value and its interval; the note where there is no value."""
    if found.value is None:
        return MISSING, found.note
    if as_percent:
        return by_unit(found.value, found.unit), interval(found)
    ends = () if found.low is None or found.high is None else (found.low, found.high)
    return number(found.value), " to ".join(number(end) for end in ends)


def _two_lines(text: str, small: str) -> Text:
    return Text.assemble((text, "bold"), (f"\n{small}" if small else "", "dim"))


def _table(title: str, caption: str | None) -> Table:
    return Table(box=box.SIMPLE_HEAD, title=title, caption=caption, title_justify="left")
