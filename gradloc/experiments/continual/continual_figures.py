"""The figures of continual training: score matrices, transfer and forgetting, curves over stages.

The formulas of transfer and forgetting stand in ``gradloc.evaluation.metrics.stage_transfer``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradloc.errors import GradlocError
from gradloc.evaluation.bootstrap import BootstrapEstimate, derive_seed, figure, undefined
from gradloc.evaluation.results import MetricValue
from gradloc.evaluation.score_record import ItemScores, estimate_items
from gradloc.evaluation.stage_figures import stage_figures
from gradloc.experiments.continual.continual_record import ArmRecord, ContinualRecord, uptake_metric
from gradloc.utils.io import to_jsonable

FORMAT = 2
UPTAKE_UNIT = "nats"
# What is lost of what the base model knows: metrics of a stage's record.
LOSSES = ("known_facts", "general_text")


@dataclass(frozen=True)
class ArmFigures:
    """One arm as far as it has come.

    Args:
        stages: Names of its finished stages.
        uptake: R: one row a stage, one figure a column: log-probability gained against the base
            model, nats per token.
        measures: ``average_accuracy`` (mean uptake after the last stage),
            ``average_incremental_accuracy`` (mean over stages of the mean uptake on periods seen
            up to then), ``backward_transfer``, ``forward_transfer`` and ``forgetting``, over the
            finished stages and their own periods, but where a stage has no items of its own, or
            weights have diverged; the last of ``known_facts`` and ``general_text``.
        curves: A figure after each stage: ``current``, uptake on its own period; ``seen``, mean
            uptake over the periods trained on up to then; ``known_facts``, share that is no longer
            right; ``general_text``, log-probability lost, nats per token.
    """

    stages: tuple[str, ...]
    uptake: tuple[tuple[MetricValue, ...], ...]
    measures: dict[str, MetricValue]
    curves: dict[str, tuple[MetricValue, ...]]


@dataclass(frozen=True)
class ContinualFigures:
    """A continual training as far as it has come.

    Args:
        name: Its name.
        stages: Names of all stages, those included that no arm has reached.
        columns: Names of the periods with evaluation items, in order.
        base: The base model's log-probability of the items of each column, nats per token.
        arms: Name -> arm.
        notes: What was left out, and why.
    """

    name: str
    stages: tuple[str, ...]
    columns: tuple[str, ...]
    base: tuple[MetricValue, ...]
    arms: dict[str, ArmFigures]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: what ``--json`` prints."""
        return {"format": FORMAT, "kind": "continual_figures", **to_jsonable(self)}


def continual_figures(record: ContinualRecord) -> ContinualFigures:
    """Find the figures of continual training.

    Items of a column are averaged with equal weight, columns likewise. Intervals are from a
    bootstrap of the entities of each column (of texts, for general text), with the same resamples
    for all stages and arms, so differences between them are paired.

    Raises:
        GradlocError: The record has no finished stage.
    """
    if not record.arms:
        raise GradlocError(f"continual training {record.name}: no stage is finished yet.")
    base = [estimates(record, [record.base[uptake_metric(name)]], name) for name in record.columns]
    return ContinualFigures(
        name=record.name,
        stages=record.stages,
        columns=record.columns,
        base=tuple(figure(own, UPTAKE_UNIT, True) for (own,) in base),
        arms={name: _arm(record, arm) for name, arm in record.arms.items()},
        notes=record.notes,
    )


def estimates(
    record: ContinualRecord, rows: Sequence[ItemScores], key: str
) -> tuple[BootstrapEstimate, ...]:
    """One estimate a row; rows of the same key are drawn alike."""
    seed = derive_seed(record.seed, key)
    return estimate_items(rows, n_bootstrap=record.n_bootstrap, seed=seed)


def figure_of_mean(cells: Sequence[BootstrapEstimate]) -> MetricValue:
    """Mean uptake over columns."""
    if not cells:
        return undefined(0, UPTAKE_UNIT, True, "no evaluation item")
    mean = BootstrapEstimate(
        float(np.mean([cell.value for cell in cells])),
        np.mean([cell.replicates for cell in cells], axis=0),
        sum(cell.n for cell in cells),
        min(cell.n_clusters for cell in cells),
    )
    return figure(mean, UPTAKE_UNIT, True)


def _arm(record: ContinualRecord, arm: ArmRecord) -> ArmFigures:
    names = [stage.period for stage in arm.stages]
    # One list of estimates a column, one estimate a stage.
    columns = {
        name: estimates(record, arm.over_stages(uptake_metric(name)), name)
        for name in record.columns
    }

    def mean_uptake(place: int, periods: Sequence[str]) -> MetricValue:
        return figure_of_mean([columns[name][place] for name in periods if name in columns])

    curves = {
        "current": tuple(mean_uptake(i, [name]) for i, name in enumerate(names)),
        "seen": tuple(mean_uptake(i, names[: i + 1]) for i in range(len(names))),
    }
    for metric in LOSSES:
        screened = record.screened and metric == "known_facts"
        note = "facts that the base model has right" if screened else ""
        if rows := arm.over_stages(metric):
            found = estimates(record, rows, metric)
            curves[metric] = tuple(figure(own, rows[0].unit, False, note) for own in found)
    return ArmFigures(
        stages=tuple(names),
        uptake=tuple(
            tuple(figure(column[place], UPTAKE_UNIT, True) for column in columns.values())
            for place in range(len(names))
        ),
        measures=_transfer([columns.get(name, ()) for name in names])
        | {metric: curves[metric][-1] for metric in LOSSES if metric in curves},
        curves=curves,
    )


def _transfer(own: Sequence[Sequence[BootstrapEstimate]]) -> dict[str, MetricValue]:
    """Transfer and forgetting over the finished stages and their own periods."""
    if not all(own):
        return {}  # a stage without items
    if not np.isfinite([[found.value for found in column] for column in own]).all():
        return {}  # a stage whose weights diverged; its scores are shown as missing
    # Uptake is counted from the base model, so its own is 0 in every resample.
    with_base = [
        (column[0]._replace(value=0.0, replicates=np.zeros_like(column[0].replicates)), *column)
        for column in own
    ]
    return stage_figures(with_base, UPTAKE_UNIT, has_base=True)
