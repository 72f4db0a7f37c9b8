"""What solving for a merge gives: ``merge.json``."""

from dataclasses import dataclass, field
from typing import ClassVar

from gradloc.localization.plan import LayerPlan
from gradloc.utils.records import Record


@dataclass(frozen=True)
class MergeSolution(Record):
    """How much of each unit's change to keep, and what that was seen to do.

    The measures are dictionaries by point: ``base``, ``tuned``, ``merged`` (the solution) and
    ``uniform`` (one scale for all units that keeps as much uptake: the control).

    Args:
        plan: Unit -> scale, 0-1; policy ``merge_solve``. Its scores are the shares of the
            uptake that the units hold, which add up to 1.
        min_uptake: Share of the uptake that was asked for, 0-1.
        target: Share that the scales were solved for, where the loss is a sum over units;
            above ``min_uptake`` where it is not.
        kept: Share that was measured, of the loss difference of the probes measured on.
        kept_low: Lower end of its 95 % bootstrap interval over entities; ``None`` where there is
            one entity only. That the target was chosen on these probes is not in it.
        kept_high: Upper end.
        uniform_scale: The control's scale.
        probe_loss_nats: Span loss of localisation probes that were not solved on, nats per
            token; lower is better.
        reference_loss_nats: Loss on reference texts that were not solved on; lower is better.
        reference_kl_nats: KL(base || point) there, nats per token; lower is better. ``predicted``
            is the quadratic form at the solution.
        gain_error: (sum of the units' gains - true loss difference) / true loss difference of
            the probes solved on: how far the quadrature along the path is off.
        shrinkage: Weight of the diagonal in the cost, 0-1; near 1, the reference texts told
            little of how units disturb together.
        counts: Numbers of probes and reference texts that were solved on, and measured on.
        warnings: What a reader should know before using the plan.
    """

    KIND: ClassVar[str] = "merge"
    WHAT: ClassVar[str] = "merge solution"

    plan: LayerPlan
    min_uptake: float
    target: float
    kept: float
    kept_low: float | None
    kept_high: float | None
    uniform_scale: float
    probe_loss_nats: dict[str, float]
    reference_loss_nats: dict[str, float]
    reference_kl_nats: dict[str, float]
    gain_error: float
    shrinkage: float
    counts: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
