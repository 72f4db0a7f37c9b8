"""What is kept of a sweep: every item's change in every cell, and nothing as large as weights.

Comes in: values of finished cells. Goes out: ``SweepRecord``, which ``sweep.json`` holds. It
computes no figure (``frontiers`` does) and runs nothing.
"""

from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from gradloc.errors import GradlocError
from gradloc.utils.io import read_json, write_json

FORMAT = 2
# Nats to four digits: rounding is far below any interval, and the file stays small.
_DIGITS = 4
_ITEM_FIELDS = ("kind", "unit", "clusters", "weights")


@dataclass(frozen=True)
class MeasureRecord:
    """One metric of one cell, item by item, as changes against the base model.

    Args:
        kind: ``uptake`` (gain over the base, positive is good) or ``forgetting`` (loss, positive
            is bad).
        unit: ``nats``, ``share`` or ``nats/token``.
        values: The change of each item.
        clusters: Which entity each item belongs to; ``None``: each stands for itself.
        weights: What each item counts (tokens of a text); ``None``: all the same.
    """

    kind: str
    unit: str
    values: tuple[float, ...]
    clusters: tuple[int, ...] | None = None
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True)
class CellRecord:
    """One arm at one learning rate with one seed on one corpus.

    Args:
        corpus: Name of the corpus in the sweep.
        arm: Name of the arm.
        policy: Its selection policy.
        methods: Its training methods with their options.
        learning_rate: Peak learning rate.
        seed: Seed of corpus, splits, measurement and training.
        train_seconds: Wall-clock of the training and of what its methods did for it.
        peak_rss_mib: Peak memory of the training.
        trainable_fraction: Parameters that trained / all parameters, 0-1.
        n_trained: Units that trained.
        n_units: Units of the model.
        measures: Metric -> its items.
        sitting: In which sitting of the sweep it ran, from 0. Times of two sittings, perhaps on
            two machines, are not compared.
    """

    corpus: str
    arm: str
    policy: str
    methods: dict[str, dict[str, Any]]
    learning_rate: float
    seed: int
    train_seconds: float | None = None
    peak_rss_mib: float | None = None
    trainable_fraction: float | None = None
    n_trained: int | None = None
    n_units: int | None = None
    measures: dict[str, MeasureRecord] = field(default_factory=dict)
    sitting: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SweepRecord:
    """A sweep as far as it has come.

    Args:
        name: Name of the sweep.
        line: The arm that the others are compared with, full training at several rates.
        axis: The metric of uptake that arms are matched by.
        cells: The finished cells.
        command: The command of the last sitting.
        environment: Versions and machine of the last sitting.
        earlier: ``command`` and ``environment`` of the sittings before it, in order.
    """

    name: str
    line: str
    axis: str
    cells: tuple[CellRecord, ...] = ()
    command: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    earlier: tuple[dict[str, Any], ...] = ()

    @property
    def sittings(self) -> tuple[dict[str, Any], ...]:
        """Command and environment of every sitting; ``CellRecord.sitting`` is a place in it."""
        return (*self.earlier, {"command": self.command, "environment": self.environment})

    def save(self, path: str | Path) -> Path:
        """Write ``sweep.json``. Which items a measure has is written once for all its cells."""
        items: list[dict[str, Any]] = []
        places: dict[tuple, int] = {}
        cells = []
        for cell in self.cells:
            measures = {}
            for name, measure in cell.measures.items():
                key = (measure.kind, measure.unit, measure.clusters, measure.weights)
                if key not in places:
                    places[key] = len(items)
                    items.append(dict(zip(_ITEM_FIELDS, key, strict=True)))
                values = [_rounded(value) for value in measure.values]
                measures[name] = {"items": places[key], "values": values}
            cells.append({**vars(cell), "measures": measures})
        data = {"format": FORMAT, "kind": "sweep", **vars(self), "items": items, "cells": cells}
        return write_json(path, data, compact=True)

    @classmethod
    def load(cls, path: str | Path) -> "SweepRecord":
        """Read ``sweep.json``.

        Raises:
            GradlocError: The file is missing, or holds something else.
        """
        data = read_json(path, "record of a sweep")
        if not isinstance(data, dict) or data.get("kind") != "sweep":
            raise GradlocError(f"{path}: not the record of a sweep; `gradloc sweep` writes one.")
        if data["format"] != FORMAT:
            raise GradlocError(
                f"{path}: sweep format {data['format']}, this version reads {FORMAT}."
            )
        cells = tuple(_cell(cell, data["items"]) for cell in data["cells"])
        known = {name: data[name] for name in ("name", "line", "axis", "command", "environment")}
        return cls(cells=cells, earlier=tuple(data.get("earlier", ())), **known)


def _rounded(value: float | None) -> float | int | str | None:
    if value is None or not isfinite(value):
        return value
    value = round(value, _DIGITS)
    return int(value) if value == int(value) else value


def _cell(data: dict[str, Any], items: list[dict[str, Any]]) -> CellRecord:
    measures = {}
    for name, measure in data["measures"].items():
        shared = items[measure["items"]]
        measures[name] = MeasureRecord(
            shared["kind"],
            shared["unit"],
            tuple(measure["values"]),
            _tuple(shared["clusters"]),
            _tuple(shared["weights"]),
        )
    return CellRecord(**{**data, "measures": measures})


def _tuple(values: list | None) -> tuple | None:
    return None if values is None else tuple(values)
