"""What an analysis of a training's record found, as values."""

from dataclasses import dataclass
from typing import Any

from gradloc.evaluation.metrics.decay import DecayFit
from gradloc.evaluation.results import MetricValue
from gradloc.utils.io import to_jsonable

FORMAT = 1


@dataclass(frozen=True)
class ProbeDynamics:
    """One probe's own numbers.

    Args:
        id, entity, scenario, depth: Which probe.
        loss_before: Loss before the first exposure, nats per token.
        loss_best: Loss at the local acquisition maximum of the last exposure.
        effectivity: What each exposure added, nats per token.
        retainability: Share left at the last common time; NaN where nothing was acquired.
        decay: The line through its own retainability.
    """

    id: str
    entity: str
    scenario: str
    depth: str
    loss_before: float
    loss_best: float
    effectivity: tuple[float, ...]
    retainability: float
    decay: DecayFit


@dataclass(frozen=True)
class GroupDynamics:
    """The probes of one scenario and depth together.

    Args:
        scenario, depth: Which probes.
        n_probes, n_entities: How many, about how many entities.
        n_not_acquired: Probes that no exposure made likelier, which have no retainability.
        effectivity: What each exposure added, in order, nats per token.
        mean_effectivity: Its mean over the exposures.
        retainability: Mean share left at each of the analysis' ``times``, without outliers.
        n_outliers: Probes left out as outliers at each time.
        decay: The line through the mean retainability.
        decay_constant, r2, threshold_steps: What is read off it, with intervals.
        curve: Mean change of the log-probability since before the first exposure, in nats per
            token, at ``curve_steps``.
        control_curve: The same of entities that were not injected; empty where there are none.
        curve_steps: Steps since each entity's first exposure.
        injections: Steps of the exposures on that axis.
    """

    scenario: str
    depth: str
    n_probes: int
    n_entities: int
    n_not_acquired: int
    effectivity: tuple[MetricValue, ...]
    mean_effectivity: MetricValue
    retainability: tuple[MetricValue, ...]
    n_outliers: tuple[int, ...]
    decay: DecayFit
    decay_constant: MetricValue
    r2: MetricValue
    threshold_steps: MetricValue
    curve_steps: tuple[float, ...]
    curve: tuple[float, ...]
    control_curve: tuple[float, ...]
    injections: tuple[int, ...]


@dataclass(frozen=True)
class AcquisitionAnalysis:
    """All groups of a training's record.

    Args:
        window: Steps after an exposure in which its effect is looked for.
        outlier_factor: Interquartile ranges beyond which a retainability is an outlier.
        every: Steps between two measurements.
        n_steps: Last measured step.
        times: Steps since the local acquisition maximum of the last exposure.
        groups: One a scenario and depth.
        probes: Every probe's own numbers.
    """

    window: int
    outlier_factor: float
    every: int
    n_steps: int
    times: tuple[int, ...]
    groups: tuple[GroupDynamics, ...]
    probes: tuple[ProbeDynamics, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: what ``acquisition_analysis.json`` holds and ``--json`` prints."""
        data = to_jsonable(self)
        # A named tuple is a list to JSON; its fields' names are wanted.
        for name in ("groups", "probes"):
            for item, row in zip(getattr(self, name), data[name], strict=True):
                row["decay"] = to_jsonable(item.decay._asdict())
        return {"format": FORMAT, "kind": "acquisition_analysis", **data}
