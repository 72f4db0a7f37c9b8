"""The layer plan: which units are trained, and at what share of the learning rate.

Comes in: a scale for every unit. Goes out: ``LayerPlan``, which ``plan.json`` holds. It chooses
nothing (``gradloc.localization.policies`` does) and touches no model
(``gradloc.training.freezing`` does).
"""

from dataclasses import dataclass, field
from pathlib import Path

from gradloc.errors import GradlocError, PlanMismatchError
from gradloc.models.unit_info import UnitInfo, lowest_block
from gradloc.utils.io import read_json, to_jsonable, write_json

FORMAT = 1


@dataclass(frozen=True)
class LayerPlan:
    """Unit -> scale of its learning rate; 0 is frozen, 1 is trained as it is.

    Args:
        scale: Unit name -> scale, >= 0, for every unit of the model. ``rgn_scaled`` gives
            values above 1 as well.
        units: The units the plan was made for; name and size must match the model's.
        policy: The policy that made it, "" for a plan written by hand.
        options: Options of the policy.
        granularity: ``sublayer`` or ``block``.
        model: Name or path of the measured model, for the record.
        score_name: What ``scores`` are ("interference ratio"), "" for policies without scores.
        scores: Unit name -> the score that the policy ranked by.
        reliability: How far the ranking can be trusted: ``split_half`` (Spearman, -1 to 1),
            ``low`` and ``high`` (unit -> 95 % bootstrap interval of its score) and ``warning``
            (empty where the ranking is sound). Empty for policies without scores.
        predicted: ``time_ratio`` and ``memory_ratio`` against full training, ``lowest_block``.
    """

    scale: dict[str, float]
    units: tuple[UnitInfo, ...] = ()
    policy: str = ""
    options: dict = field(default_factory=dict)
    granularity: str = "sublayer"
    model: str = ""
    score_name: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    reliability: dict = field(default_factory=dict)
    predicted: dict = field(default_factory=dict)

    def __post_init__(self):
        bad = [
            f"{name}: {value!r}"
            for name, value in self.scale.items()
            if not isinstance(value, (int, float)) or not 0 <= value < float("inf")
        ]
        if bad:
            raise GradlocError(
                "a plan's scales must be finite numbers from 0 (frozen) up; found " + ", ".join(bad)
            )

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the units that are trained."""
        return tuple(name for name, scale in self.scale.items() if scale > 0)

    @property
    def frozen(self) -> tuple[str, ...]:
        """Names of the units that are not trained."""
        return tuple(name for name, scale in self.scale.items() if scale == 0)

    @property
    def lowest_block(self) -> int | None:
        """The lowest block that is trained; 0 where embeddings are, ``None`` where no block is."""
        return lowest_block(unit for unit in self.units if self.scale[unit.name] > 0)

    @property
    def trainable_fraction(self) -> float:
        """Parameters of trained units / all parameters, 0-1."""
        total = sum(unit.n_parameters for unit in self.units)
        trained = sum(unit.n_parameters for unit in self.units if self.scale[unit.name] > 0)
        return trained / total if total else float("nan")

    def check_units(self, units: tuple[UnitInfo, ...], what: str = "model") -> None:
        """Compare the plan's units with those of a model or checkpoint.

        Raises:
            PlanMismatchError: A unit is missing, unknown, or of another size.
        """
        theirs = {unit.name: unit.n_parameters for unit in units}
        problems = [f"the {what} has no unit {name}" for name in self.scale if name not in theirs]
        problems += [
            f"the plan says nothing of {name}" for name in theirs if name not in self.scale
        ]
        problems += [
            f"{unit.name} has {unit.n_parameters:,} parameters in the plan, "
            f"{theirs[unit.name]:,} in the {what}"
            for unit in self.units
            if unit.name in theirs and theirs[unit.name] != unit.n_parameters
        ]
        if problems:
            shown = "\n  ".join(problems[:8])
            more = f"\n  ... and {len(problems) - 8} more" if len(problems) > 8 else ""
            raise PlanMismatchError(
                f"the plan (made for {self.model or 'an unnamed model'}) does not fit this "
                f"{what}:\n  {shown}{more}\nMeasure this model and select again, or load the "
                "model that the plan was made for."
            )

    def to_dict(self) -> dict:
        """The plan as plain JSON values."""
        return to_jsonable({"format": FORMAT, "kind": "plan", **vars(self)})

    @classmethod
    def from_dict(cls, data: dict, source: object = "plan") -> "LayerPlan":
        """Build a plan from ``to_dict``'s values.

        Raises:
            GradlocError: Another kind of file, no unit, an unknown format or unknown keys.
        """
        if not isinstance(data, dict) or not isinstance(data.get("scale"), dict):
            raise GradlocError(f"{source}: not a layer plan of gradloc ('scale' is missing).")
        if not data["scale"]:
            raise GradlocError(f"{source}: a layer plan without units ('scale' is empty).")
        data = {key: value for key, value in data.items() if key != "kind"}
        if (found := data.pop("format", FORMAT)) != FORMAT:
            raise GradlocError(f"{source}: plan format {found}, this version reads {FORMAT}.")
        try:
            data["units"] = tuple(UnitInfo(**unit) for unit in data.get("units", ()))
            return cls(**data)
        except TypeError as error:
            raise GradlocError(f"{source}: not a layer plan of gradloc: {error}") from error

    def save(self, path: str | Path) -> Path:
        """Write ``plan.json``."""
        return write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> "LayerPlan":
        """Read ``plan.json``, also one written by hand with nothing but ``scale``.

        Raises:
            GradlocError: The file is missing, not JSON, or no plan.
        """
        return cls.from_dict(read_json(path, "layer plan"), path)


def as_plan(plan: "LayerPlan | str | Path") -> LayerPlan:
    """Take a plan as an object or as the path of its file."""
    return plan if isinstance(plan, LayerPlan) else LayerPlan.load(plan)
