"""Scores of single items, as they are kept: what every figure and interval is computed from."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from gradloc.errors import GradlocError
from gradloc.evaluation.bootstrap import (
    N_BOOTSTRAP,
    BootstrapEstimate,
    ClusterSums,
    cluster_sums,
    estimate,
)
from gradloc.utils.records import FloatOrNan, Record

# Nats to four digits: rounding is far below any interval, and the file stays small.
_DIGITS = 4
_SHARED = ("kind", "unit", "clusters", "weights")


@dataclass(frozen=True)
class CheckpointScores(Record):
    """Scores of one checkpoint on every item, before anything is averaged.

    Args:
        checkpoint: Where the weights are.
        probe_ids: Ids of the probes, in the order of the columns.
        columns: Columns that the requests found (``gradloc.evaluation.requests``); ``None`` where
            a probe was not asked in that way.
        texts: Domain -> ``nats``, ``tokens`` and ``bytes`` of each text.
        answers: Probe id -> what the model writes after the prompt, for the examples.
        tasks: Task of lm-evaluation-harness -> its scores, ``TaskScores`` as a dictionary.
    """

    KIND: ClassVar[str] = "scores"
    WHAT: ClassVar[str] = "score file"

    checkpoint: str
    probe_ids: tuple[str, ...]
    columns: dict[str, list]
    texts: dict[str, dict[str, list]]
    answers: dict[str, str]
    tasks: dict[str, dict] = field(default_factory=dict)

    def only(self, probe_ids: Sequence[str]) -> "CheckpointScores":
        """The same scores of some of the probes, in the order asked for.

        Raises:
            GradlocError: Not all of them were scored.
        """
        row = {identifier: number for number, identifier in enumerate(self.probe_ids)}
        if missing := [identifier for identifier in probe_ids if identifier not in row]:
            raise GradlocError(
                f"{self.checkpoint}: {len(missing)} probes were not scored, such as "
                f"{missing[0]!r}. Score it anew."
            )
        indices = [row[identifier] for identifier in probe_ids]
        columns = {name: [col[index] for index in indices] for name, col in self.columns.items()}
        return replace(self, probe_ids=tuple(probe_ids), columns=columns)

    def problems(self) -> list[str]:
        """Columns whose length is not that of the probes."""
        n = len(self.probe_ids)
        return [
            f"columns.{name}: has {len(column)} entries for {n} probes; score again"
            for name, column in self.columns.items()
            if len(column) != n
        ]


@dataclass(frozen=True)
class ItemScores:
    """One metric of one system, item by item.

    Args:
        kind: ``uptake`` (gain over the base model, positive is good) or ``forgetting`` (loss,
            positive is bad).
        unit: ``nats``, ``fraction`` or ``nats/token``.
        values: The change of each item; NaN where a score is not finite.
        clusters: Number of the entity that each item belongs to; ``None``: each stands for itself.
        weights: What each item counts (tokens of a text); ``None``: all the same.
    """

    kind: str
    unit: str
    values: tuple[FloatOrNan, ...]
    clusters: tuple[int, ...] | None = None
    weights: tuple[float, ...] | None = None

    @property
    def higher_is_better(self) -> bool:
        """Direction: much uptake is good, much forgetting is bad."""
        return self.kind == "uptake"

    @property
    def items(self) -> tuple:
        """What systems that were asked the same have in common."""
        return len(self.values), self.clusters, self.weights


def item_sums(systems: Sequence[ItemScores]) -> ClusterSums:
    """Sums over the clusters of systems that were asked the same items."""
    first = systems[0]
    return cluster_sums([own.values for own in systems], first.clusters, first.weights)


def estimate_items(
    systems: Sequence[ItemScores], *, n_bootstrap: int = N_BOOTSTRAP, seed: int = 0
) -> tuple[BootstrapEstimate, ...]:
    """Mean and replicates of systems that were asked the same items, paired."""
    first = systems[0]
    clusters = range(len(first.values)) if first.clusters is None else first.clusters
    return estimate(
        # Column by column: so the means of records that are kept were rounded.
        np.asfortranarray([own.values for own in systems]),
        clusters,
        weights=first.weights,
        n_bootstrap=n_bootstrap,
        seed=seed,
    )


class ScoreRecord(Record):
    """Mixin of records that hold ``ItemScores``: items that scores share are written once.

    In the file ``items`` lists the sets of items, and each ``ItemScores`` names its set.
    """

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        sets: dict[str, int] = {}
        data = _packed(super().to_dict(), sets)
        return data | {"items": [json.loads(text) for text in sets]}

    @classmethod
    def from_dict(cls, data: Any, source: object = "values") -> Self:
        """Build a record from what ``to_dict`` returned.

        Raises:
            GradlocError: As ``Record.from_dict``.
        """
        if isinstance(data, dict) and isinstance(sets := data.get("items"), list):
            data = _unpacked({k: v for k, v in data.items() if k != "items"}, sets)
        return super().from_dict(data, source)

    def save(self, path: str | Path, *, compact: bool = True) -> Path:
        """Write the record as JSON, whole or not at all."""
        return super().save(path, compact=compact)


def _packed(data: Any, sets: dict[str, int]) -> Any:
    if isinstance(data, dict) and data.keys() == {*_SHARED, "values"}:
        key = json.dumps({field: data[field] for field in _SHARED})
        place = sets.setdefault(key, len(sets))
        return {"items": place, "values": [_rounded(value) for value in data["values"]]}
    if isinstance(data, dict):
        return {key: _packed(value, sets) for key, value in data.items()}
    return [_packed(value, sets) for value in data] if isinstance(data, list) else data


def _unpacked(data: Any, sets: list[dict[str, Any]]) -> Any:
    if isinstance(data, dict) and data.keys() == {"items", "values"}:
        known = isinstance(data["items"], int) and 0 <= data["items"] < len(sets)
        return {**sets[data["items"]], "values": data["values"]} if known else data
    if isinstance(data, dict):
        return {key: _unpacked(value, sets) for key, value in data.items()}
    return [_unpacked(value, sets) for value in data] if isinstance(data, list) else data


def _rounded(value: float | None) -> float | int | None:
    if value is None:
        return None
    value = round(value, _DIGITS)
    return int(value) if value == int(value) else value
