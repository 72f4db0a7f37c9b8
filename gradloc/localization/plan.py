"""The layer plan: which units are trained, and at what share of the learning rate."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import TypedDict

from gradloc.errors import GradlocError, PlanMismatchError
from gradloc.localization.cost.prediction import PredictedCost
from gradloc.models.unit_info import Granularity, UnitInfo, lowest_block, unit_problems
from gradloc.utils.records import FloatOrNan, Record


class Reliability(TypedDict, total=False):
    """How far a ranking of units can be trusted; see ``gradloc.localization.reliability``."""

    split_half: float | None
    low: dict[str, FloatOrNan]
    high: dict[str, FloatOrNan]
    warning: str


@dataclass(frozen=True)
class LayerPlan(Record):
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

    KIND: ClassVar[str] = "plan"
    WHAT: ClassVar[str] = "layer plan"

    scale: dict[str, float]
    units: tuple[UnitInfo, ...] = ()
    policy: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    granularity: Granularity = "sublayer"
    model: str = ""
    score_name: str = ""
    scores: dict[str, FloatOrNan] = field(default_factory=dict)
    reliability: Reliability = field(default_factory=Reliability)
    predicted: PredictedCost = field(default_factory=PredictedCost)

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

    def problems(self) -> list[str]:
        """Units without a scale, or named twice."""
        if not self.scale:
            return ["scale: is empty; name at least one unit"]
        return [
            f"scale.{unit.name}: is missing" for unit in self.units if unit.name not in self.scale
        ] + (unit_problems(self.units) if self.units else [])


def as_plan(plan: "LayerPlan | str | Path") -> LayerPlan:
    """Take a plan as an object or as the path of its file."""
    return plan if isinstance(plan, LayerPlan) else LayerPlan.load(plan)
