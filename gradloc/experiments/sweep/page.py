"""The page of a sweep."""

from pathlib import Path
from typing import Any

from gradloc.experiments.sweep import looks, page_tables, pictures, ratio_picture
from gradloc.experiments.sweep.frontier_values import CorpusFrontier, Frontier
from gradloc.experiments.sweep.frontiers import find_frontier, read_record
from gradloc.experiments.sweep.sweep_record import SweepRecord
from gradloc.report import formatting, style
from gradloc.report.frame import environment_rows, page_parts, page_template
from gradloc.report.pictures import Picture
from gradloc.utils.io import write_text


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
    return write_text(out, render(record, frontier or find_frontier(record)))


def render(record: SweepRecord, frontier: Frontier) -> str:
    """Make the page."""
    shown = [_corpus(place, name, frontier) for place, name in enumerate(frontier.corpora)]
    everything = [p for corpus in shown for part in corpus["measures"] for p in part["pictures"]]
    return page_template("gradloc.experiments.sweep", "frontier.html.j2").render(
        frontier=frontier,
        corpora=shown,
        styles=looks.arm_looks(frontier),
        is_background=looks.is_background,
        n_strong=looks.N_STRONG,
        controls=looks.CONTROLS,
        signs={looks.share_text(share): style.SHAPES[sign]
               for share, sign in ratio_picture.SIGNS.items()},
        counts=_counts(record),
        axis=formatting.metric_label(frontier.axis),
        arm_rows=_arm_rows(frontier),
        run_columns=page_tables.run_columns(record),
        run_rows=page_tables.run_rows(record),
        point_columns=page_tables.POINT_COLUMNS,
        level_columns=page_tables.level_columns(frontier.line),
        sessions=[
            {"command": session["command"], "rows": environment_rows(session["environment"])}
            for session in record.sessions
        ],
        specs={picture.key: picture.spec for picture in everything},
        **page_parts(),
    )  # fmt: skip


def _corpus(place: int, name: str, frontier: Frontier) -> dict[str, Any]:
    """What the template needs of one corpus."""
    corpus = frontier.corpora[name]
    losses = next(iter(corpus.arms.values())).forgetting
    return {
        "name": name,
        "verdict": page_tables.verdict(corpus, frontier.line),
        "notes": corpus.notes,
        "point_rows": page_tables.point_rows(corpus),
        "measures": [
            _measure(f"{place}-{number}", corpus, frontier, loss)
            for number, loss in enumerate(losses)
        ],
    }


def _measure(key: str, corpus: CorpusFrontier, frontier: Frontier, loss: str) -> dict[str, Any]:
    """What the template needs of one measure of forgetting on one corpus."""
    styles, line = looks.arm_looks(frontier), frontier.line
    heads = page_tables.quantity_heads(corpus, line, loss)
    groups = list(dict.fromkeys(head.group for head in heads))
    drawn: list[Picture | None] = [
        pictures.frontier_picture(f"frontier-{key}", corpus, styles, frontier.axis, loss),
        ratio_picture.ratio_picture(f"ratios-{key}", corpus, styles, line, loss),
    ]
    return {
        "label": formatting.metric_label(loss),
        "pictures": [picture for picture in drawn if picture is not None],
        "heads": heads,
        "groups": [(group, sum(head.group == group for head in heads)) for group in groups],
        "rows": [
            (styles[name], page_tables.quantity_row(arm, loss, is_line=name == line))
            for name, arm in corpus.arms.items()
        ],
        "level_rows": page_tables.level_rows(corpus, loss),
        "matrix": page_tables.matrix_rows(corpus, loss),
    }


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


def _arm_rows(frontier: Frontier) -> list[tuple[str, ...]]:
    """What each arm is: policy, methods, size."""
    rows = {}
    for corpus in frontier.corpora.values():
        for name, arm in corpus.arms.items():
            if name in rows:
                continue
            methods = "; ".join(
                f"{method} ({', '.join(f'{k} {v}' for k, v in options.items())})"
                if options
                else method
                for method, options in arm.methods.items()
            )
            trained = formatting.MISSING
            if arm.n_trained is not None:
                low, high = arm.n_trained
                trained = f"{low}" if low == high else f"{low}{formatting.DASH}{high}"
                trained += f" of {arm.n_units}"
            rates = ", ".join(formatting.learning_rate(p.learning_rate) for p in arm.points)
            rows[name] = (
                name, arm.policy, methods or "none", trained,
                formatting.percent(arm.trainable_fraction), rates,
            )  # fmt: skip
    return list(rows.values())
