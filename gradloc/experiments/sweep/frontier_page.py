"""The page of a sweep: every arm's curve of uptake against forgetting beside full training's."""

from pathlib import Path
from statistics import median
from typing import Any

from gradloc.experiments.sweep import frontier_tables as tables
from gradloc.experiments.sweep.frontier_values import ArmFrontier, CorpusFrontier, Frontier
from gradloc.experiments.sweep.frontiers import find_frontier, read_record
from gradloc.experiments.sweep.sweep_record import SweepRecord
from gradloc.report.charts import Picture
from gradloc.report.formatting import learning_rate
from gradloc.report.metric_names import metric_label
from gradloc.report.page import (
    Code,
    Details,
    Notes,
    Page,
    Pictures,
    Section,
    Terms,
    Text,
    environment_rows,
    write_page,
)
from gradloc.report.scatter import Model, loss_title, tradeoff_picture
from gradloc.report.styles import N_COLORS, ArmStyle, assign_styles

_N_NOTES = 3
# Policies that say what a selection is worth: chance, depth alone, the opposite.
CONTROLS = ("random_k", "last_third_mlp", "top_k", "bottom_k", "inverse", "none")


def write_frontier(
    record: SweepRecord | str | Path, out: str | Path, *, frontier: Frontier | None = None
) -> Path:
    """Write the page of a sweep.

    Args:
        record: The sweep's record, or its ``sweep.json``; it may be unfinished.
        out: The file to write.
        frontier: The figures, where they have been found from this record already.

    Returns:
        Path of the page.

    Raises:
        GradlocError: The record cannot be read or compared (see ``find_frontier``), or the page
            cannot be written.
    """
    record = read_record(record)
    return write_page(frontier_page(record, frontier or find_frontier(record)), out)


def frontier_page(record: SweepRecord, frontier: Frontier) -> Page:
    """Make the page."""
    styles = frontier_styles(frontier)
    line = frontier.line
    return Page(
        title=frontier.name,
        command="sweep",
        lead=[
            Text(
                "What each arm takes up of new facts and what it forgets for it, on "
                f"{_counts(record)}. Each arm was trained at several learning rates, which gives a "
                "curve from the base model on. Arms are compared where they take up equally much "
                f"({metric_label(frontier.axis)}), with {line} as the line to compare with."
            ),
            *(
                Text(f"{name}. {tables.verdict(corpus, line)}", "said")
                for name, corpus in frontier.corpora.items()
            ),
            Text(
                f"“Less” and “more”: the 95 % interval of the paired difference from {line} "
                "excludes 0. These are many comparisons: of twenty arms no different from it, "
                "about one would seem so.",
                "note",
            ),
        ],
        sections=[
            *(
                Section(f"corpus-{place}", name, _corpus(place, corpus, frontier, styles))
                for place, (name, corpus) in enumerate(frontier.corpora.items())
            ),
            Section("reading", "How to read it", [Terms(_terms(frontier))]),
            Section("details", "How it was made", _details(record)),
        ],
        source="sweep.json",
    )


def frontier_styles(frontier: Frontier) -> dict[str, ArmStyle]:
    """Arm -> its look, the same on every corpus; the line is gray and dashed.

    A handful of colors can be told apart, so a rule says who gets one: of the arms that are no
    controls those with the lowest ratios to the line, median over corpora and measures. Colors are
    dealt in the order of the record, so that a change of rank repaints little.
    """
    found: dict[str, list[ArmFrontier]] = {}
    for corpus in frontier.corpora.values():
        for name, arm in corpus.arms.items():
            found.setdefault(name, []).append(arm)
    names = sorted(found, key=lambda name: name != frontier.line)
    rank = {
        name: _typical_ratio(arms)
        for name, arms in found.items()
        if name != frontier.line
        and not any(arm.policy in CONTROLS and not arm.methods for arm in arms)
    }
    strong = sorted(rank, key=lambda name: rank[name])[:N_COLORS]
    quiet = [name for name in names if name not in (frontier.line, *strong)]
    return assign_styles(names, references=[frontier.line], quiet=quiet)


def _typical_ratio(arms: list[ArmFrontier]) -> float:
    """Median ratio to the line; an arm without any ranks last."""
    levels = [tables.ranked_level(arm, loss).ratio for arm in arms for loss in arm.forgetting]
    ratios = [ratio.value for ratio in levels if ratio.value is not None]
    return median(ratios) if ratios else float("inf")


def _corpus(
    place: int, corpus: CorpusFrontier, frontier: Frontier, styles: dict[str, ArmStyle]
) -> list[Any]:
    blocks: list[Any] = [Notes(corpus.notes[:_N_NOTES])] if corpus.notes else []
    if more := corpus.notes[_N_NOTES:]:
        blocks.append(Details(f"{len(more)} more notes", [Notes(more)]))
    losses = next(iter(corpus.arms.values())).forgetting
    drawn = [
        curve_picture(f"frontier-{place}-{turn}", corpus, styles, frontier.axis, loss)
        for turn, loss in enumerate(losses)
    ]
    blocks.append(tables.ratio_table(corpus, frontier.line, styles))
    if found := [picture for picture in drawn if picture is not None]:
        blocks.append(Pictures(found))
    return [*blocks, Details("Every arm at every rate", [tables.point_table(corpus)])]


def curve_picture(
    key: str, corpus: CorpusFrontier, styles: dict[str, ArmStyle], axis: str, loss: str
) -> Picture | None:
    """Uptake against forgetting, one curve an arm over its learning rates."""
    models = [
        Model(
            name, styles[name], point.metrics[axis], point.metrics[loss],
            learning_rate(point.learning_rate), name, point.on_curve[loss],
        )
        for name, arm in corpus.arms.items()
        for point in arm.points
        if axis in point.metrics and loss in point.metrics
    ]  # fmt: skip
    return tradeoff_picture(key, loss_title(loss), models, axis, loss)


def _counts(record: SweepRecord) -> str:
    """What the sweep is made of, in words."""
    runs = record.runs
    parts = [
        (len({run.corpus for run in runs}), "corpus", "corpora"),
        (len({run.arm for run in runs}), "arm", "arms"),
        (len({run.learning_rate for run in runs}), "learning rate", "learning rates"),
        (len({run.seed for run in runs}), "seed", "seeds"),
    ]
    words = ", ".join(f"{n} {one if n == 1 else many}" for n, one, many in parts)
    return f"{words}: {len(runs):,} trained models"


def _terms(frontier: Frontier) -> list[tuple[str, str]]:
    line = frontier.line
    return [
        (
            "Forgetting ratio",
            f"What the arm forgets at 50, 75 and 90 % of the best uptake of {line}, divided by "
            f"what {line} forgets at the same uptake. Green and red: the 95 % interval lies on one "
            "side of 1.",
        ),
        (
            "Curve",
            "Straight from the base model through the rates up to that of the largest uptake. "
            "Higher rates, which take up less, are hollow points and not part of it. Nothing is "
            "extrapolated. Few rates far apart overstate forgetting, since a straight line lies "
            "above a curve that bends.",
        ),
        (
            "Intervals",
            f"95 %, from {frontier.n_bootstrap:,} resamples of the seeds and, within each, of its "
            "entities and texts, the same for all arms. A resample in which an arm does not take "
            "up so much counts as infinite forgetting.",
        ),
        ("Time, memory", "Medians over rates of one seed, then over seeds, on one machine."),
        (
            "Colors",
            f"At most {N_COLORS} arms have one: those with the lowest ratios to {line}. Controls "
            f"are gray: policies {', '.join(CONTROLS)} without a method.",
        ),
    ]


def _details(record: SweepRecord) -> list[Any]:
    return [
        *(Code(session["command"]) for session in record.sessions if session["command"]),
        *(
            Details("Versions and machine", [Terms(rows)])
            for session in record.sessions
            if (rows := environment_rows(session["environment"]))
        ),
    ]
