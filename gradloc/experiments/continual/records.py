"""What is kept of a stream: every item's change after every stage.

Comes in: values of finished stages. Goes out: ``StreamRecord``, which ``stream.json`` holds. It
computes no figure (``figures`` does) and runs nothing.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from gradloc.errors import GradlocError
from gradloc.utils.io import read_json, write_json

FORMAT = 1
RECORD_FILE = "stream.json"
# Nats to four digits: rounding is far below any interval, and the file stays small.
_DIGITS = 4

# One value an item; NaN where a score is not finite.
Values = tuple[float, ...]


@dataclass(frozen=True)
class Items:
    """What is asked after every stage.

    Args:
        dates: ISO date of each probe on new and updated facts.
        entities: Which entity each of them is about.
        base: Log-probability of its answer by the base model, nats per token.
        known_entities: Which entity each known fact is about.
        text_tokens: Tokens of each general text, which is its weight.
    """

    dates: tuple[str, ...]
    entities: tuple[int, ...]
    base: Values
    known_entities: tuple[int, ...]
    text_tokens: tuple[int, ...]


@dataclass(frozen=True)
class StageRecord:
    """One stage of one arm, item by item, as changes against the base model.

    Args:
        period: Name of the period that it was trained on.
        uptake: Log-probability gained on each probe on new and updated facts, nats per token.
        known_facts: 1 for each known fact that is no longer right, 0 else (-1 for one that has
            become right, where facts are not screened).
        known_facts_nll: Log-probability lost on each known fact, nats per token.
        general_text: Log-probability lost on each general text, nats per token.
        n_steps: Optimizer steps.
        train_seconds: Wall-clock seconds of training.
        trainable_fraction: Parameters that trained / all parameters, 0-1.
        trained: Names of the units that trained.
    """

    period: str
    uptake: Values
    known_facts: Values
    known_facts_nll: Values
    general_text: Values
    n_steps: int
    train_seconds: float
    trainable_fraction: float
    trained: tuple[str, ...]


@dataclass(frozen=True)
class ArmRecord:
    """One arm as far as it has come.

    Args:
        policy: Its selection policy.
        methods: Its training methods with their options.
        learning_rate: Peak learning rate of each stage.
        n_units: Units of the model.
        stages: Its finished stages, in order.
        training: Training arguments of its own, but for the rate.
    """

    policy: str
    methods: dict[str, dict[str, Any]]
    learning_rate: float
    n_units: int
    stages: tuple[StageRecord, ...]
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StreamRecord:
    """A stream as far as it has come.

    Args:
        name: Name of the stream.
        model: The base model.
        by: ``month``, ``quarter`` or ``year``.
        measure: ``each`` or ``once``: for which stages a plan was measured.
        periods: ``(name, first day, day after the last)`` of every period.
        stages: Names of the periods that are trained on.
        items: What is asked.
        arms: Name -> arm.
        notes: What was left out, and why.
        seed: Seed of everything.
        n_bootstrap: Resamples for intervals.
        screened: Whether known facts are those that the base model has right.
        command: The command that made it.
        environment: Versions, machine.
    """

    name: str
    model: str
    by: str
    measure: str
    periods: tuple[tuple[str, str, str], ...]
    stages: tuple[str, ...]
    items: Items
    arms: dict[str, ArmRecord] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seed: int = 0
    n_bootstrap: int = 2000
    screened: bool = True
    command: str = ""
    environment: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path) -> Path:
        """Write ``stream.json``."""
        data = {"format": FORMAT, "kind": "stream", **vars(self)}
        data["items"] = _short(self.items)
        data["arms"] = {
            name: {**vars(arm), "stages": [_short(stage) for stage in arm.stages]}
            for name, arm in self.arms.items()
        }
        return write_json(path, data)

    @classmethod
    def load(cls, path: str | Path) -> "StreamRecord":
        """Read ``stream.json``.

        Raises:
            GradlocError: The file is missing, or holds something else.
        """
        data = read_json(path, "record of a stream")
        if not isinstance(data, dict) or data.pop("kind", None) != "stream":
            raise GradlocError(f"{path}: not the record of a stream; `gradloc stream` writes one.")
        if (found := data.pop("format")) != FORMAT:
            raise GradlocError(f"{path}: stream format {found}, this version reads {FORMAT}.")
        data["items"] = _long(Items, data["items"])
        data["arms"] = {
            name: ArmRecord(
                **{**arm, "stages": tuple(_long(StageRecord, stage) for stage in arm["stages"])}
            )
            for name, arm in data["arms"].items()
        }
        data["periods"] = tuple(tuple(period) for period in data["periods"])
        data["stages"], data["notes"] = tuple(data["stages"]), tuple(data["notes"])
        return cls(**data)


def _short(record: Items | StageRecord) -> dict[str, Any]:
    """The fields, lists of numbers rounded."""
    return {
        name: [round(x, _DIGITS) if isinstance(x, float) else x for x in value]
        if isinstance(value, tuple)
        else value
        for name, value in vars(record).items()
    }


def _long(kind: type, data: dict[str, Any]) -> Any:
    """The record again; JSON has no NaN, so it stands there as null."""
    known = {item.name for item in fields(kind)}
    return kind(
        **{
            name: tuple(float("nan") if x is None else x for x in value)
            if isinstance(value, list)
            else value
            for name, value in data.items()
            if name in known
        }
    )
