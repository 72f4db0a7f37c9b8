"""The figures of continual training: score matrices, transfer and forgetting, curves over stages.

The formulas of transfer and forgetting stand in ``gradloc.evaluation.metrics.stage_transfer``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gradloc.errors import GradlocError
from gradloc.evaluation.bootstrap import BootstrapEstimate, derive_seed, figure, undefined
from gradloc.evaluation.results import MetricValue
from gradloc.evaluation.score_record import ItemScores, estimate_items
from gradloc.evaluation.stage_figures import stage_figures
from gradloc.experiments.continual.continual_record import ArmRecord, ContinualRecord, uptake_metric
from gradloc.utils.io import to_jsonable

FORMAT = 1
UPTAKE_UNIT = "nats"


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
            finished stages and their own periods. Empty where a stage has no items of its own, or
            weights have diverged.
        seen: After each stage, mean uptake over the periods trained on up to then.
        current: After each stage, uptake on its own period.
        known_facts: After each stage, share of known facts that are no longer right.
        known_facts_nll: After each stage, log-probability of known facts lost, nats per token.
        general_text: After each stage, log-probability of general text lost, nats per token.
        train_seconds: Wall-clock seconds of all its trainings.
        trainable_fraction: Parameters trained / all parameters in each stage, 0-1.
        n_trained: Units trained in each stage.
        n_units: Units of the model.
        policy, methods, learning_rate: How it trains.
    """

    stages: tuple[str, ...]
    uptake: tuple[tuple[MetricValue, ...], ...]
    measures: dict[str, MetricValue]
    seen: tuple[MetricValue, ...]
    current: tuple[MetricValue, ...]
    known_facts: tuple[MetricValue, ...]
    known_facts_nll: tuple[MetricValue, ...]
    general_text: tuple[MetricValue, ...]
    train_seconds: float
    trainable_fraction: tuple[float, ...]
    n_trained: tuple[int, ...]
    n_units: int
    policy: str
    methods: dict[str, dict[str, Any]]
    learning_rate: float


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
    arms: dict[str, ArmFigures] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

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
    base = [_estimates(record, [record.base[uptake_metric(name)]], name) for name in record.columns]
    return ContinualFigures(
        name=record.name,
        stages=record.stages,
        columns=record.columns,
        base=tuple(figure(own, UPTAKE_UNIT, True) for (own,) in base),
        arms={name: _arm(record, arm) for name, arm in record.arms.items()},
        notes=record.notes,
    )


def paired_differences(record: ContinualRecord, main: str) -> dict[str, dict[str, MetricValue]]:
    """One arm against each other one after the last stage, over the same items and resamples.

    Args:
        record: The record.
        main: Name of the arm.

    Returns:
        Other arm -> ``uptake``: how much more ``main`` took up, mean over periods, nats per
        token; ``known_facts``: how much more of them the other one lost, share. Above 0 is good
        for ``main`` in both. Arms with other stages than ``main`` are left out.
    """

    def difference(arm: str, other: str, metric: str, key: str) -> BootstrapEstimate:
        one, two = (record.arms[name].stages[-1].metrics[metric] for name in (arm, other))
        values = np.array(one.values) - np.array(two.values)
        return _estimates(record, [replace(one, values=tuple(values))], key)[0]

    def differences(other: str) -> dict[str, MetricValue]:
        gained = [difference(main, other, uptake_metric(name), name) for name in record.columns]
        figures = {"uptake": _figure_of_mean(gained)}
        if "known_facts" in record.arms[main].stages[-1].metrics:
            lost = difference(other, main, "known_facts", "known_facts")
            figures["known_facts"] = figure(lost, "fraction", True)
        return figures

    stages = [stage.period for stage in record.arms[main].stages]
    return {
        name: differences(name)
        for name, arm in record.arms.items()
        if name != main and [stage.period for stage in arm.stages] == stages
    }


def _arm(record: ContinualRecord, arm: ArmRecord) -> ArmFigures:
    names = [stage.period for stage in arm.stages]
    # One list of estimates a column, one estimate a stage.
    columns = {
        name: _estimates(record, _over_stages(arm, uptake_metric(name)), name)
        for name in record.columns
    }
    screened = "facts that the base model has right" if record.screened else ""
    seen, current = [], []
    for place, name in enumerate(names):
        up_to_now = [columns[own][place] for own in names[: place + 1] if own in columns]
        seen.append(_figure_of_mean(up_to_now))
        current.append(_figure_of_mean([columns[name][place]] if name in columns else []))
    return ArmFigures(
        stages=tuple(names),
        uptake=tuple(
            tuple(figure(column[place], UPTAKE_UNIT, True) for column in columns.values())
            for place in range(len(names))
        ),
        measures=_measures(columns, names),
        seen=tuple(seen),
        current=tuple(current),
        known_facts=_lost(record, arm, "known_facts", "known_facts", screened),
        known_facts_nll=_lost(record, arm, "known_facts_nll", "known_facts", screened),
        general_text=_lost(record, arm, "general_text", "general_text"),
        train_seconds=sum(stage.train_seconds for stage in arm.stages),
        trainable_fraction=tuple(stage.trainable_fraction for stage in arm.stages),
        n_trained=tuple(len(stage.trained) for stage in arm.stages),
        n_units=arm.n_units,
        policy=arm.policy,
        methods=arm.methods,
        learning_rate=arm.learning_rate,
    )


def _lost(
    record: ContinualRecord, arm: ArmRecord, metric: str, key: str, note: str = ""
) -> tuple[MetricValue, ...]:
    """What was lost after each stage; nothing where the record lacks the metric."""
    rows = _over_stages(arm, metric)
    if not rows:
        return ()
    found = _estimates(record, rows, key)
    return tuple(figure(own, rows[0].unit, False, note) for own in found)


def _over_stages(arm: ArmRecord, metric: str) -> list[ItemScores]:
    return [stage.metrics[metric] for stage in arm.stages if metric in stage.metrics]


def _estimates(
    record: ContinualRecord, rows: Sequence[ItemScores], key: str
) -> tuple[BootstrapEstimate, ...]:
    """One estimate a row; rows of the same key are drawn alike."""
    seed = derive_seed(record.seed, key)
    return estimate_items(rows, n_bootstrap=record.n_bootstrap, seed=seed)


def _figure_of_mean(cells: Sequence[BootstrapEstimate]) -> MetricValue:
    if not cells:
        return undefined(0, UPTAKE_UNIT, True, "no evaluation item")
    mean = BootstrapEstimate(
        float(np.mean([cell.value for cell in cells])),
        np.mean([cell.replicates for cell in cells], axis=0),
        sum(cell.n for cell in cells),
        min(cell.n_clusters for cell in cells),
    )
    return figure(mean, UPTAKE_UNIT, True)


def _measures(
    columns: dict[str, tuple[BootstrapEstimate, ...]], names: Sequence[str]
) -> dict[str, MetricValue]:
    """Transfer and forgetting over the finished stages and their own periods."""
    if any(name not in columns for name in names):
        return {}
    own = [columns[name] for name in names]
    if not np.isfinite([[found.value for found in column] for column in own]).all():
        return {}  # a stage whose weights diverged; its scores are shown as missing
    # Uptake is counted from the base model, so its own is 0 in every resample.
    with_base = [
        (column[0]._replace(value=0.0, replicates=np.zeros_like(column[0].replicates)), *column)
        for column in own
    ]
    return stage_figures(with_base, UPTAKE_UNIT, has_base=True)
