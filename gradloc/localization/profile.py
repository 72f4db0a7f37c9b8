"""The gradient profile: what was measured in each unit, and the ratios that follow from it."""

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from gradloc.errors import GradlocError
from gradloc.models.unit_info import Granularity, ModelShape, UnitInfo, unit_problems
from gradloc.utils.records import Matrix, Record, Vector

Reduction = Literal["mean_of_norms", "norm_of_mean"]
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)
# Sizes without which no cost can be predicted.
_NEEDED_SIZES = ("hidden_size", "vocab_size", "kv_size")


@dataclass(frozen=True)
class GradientProfile(Record):
    """Per-unit, per-sequence gradient measurements.

    ``d_u = -sign(mean probe gradient)`` is the direction of Adam's first step in unit u.

    Args:
        units: The units, in the model's order.
        probe_norms: L2 norm of each probe sequence's span-loss gradient, (n_probe, n_units).
        reference_norms: The same for each reference sequence, (n_reference, n_units).
        probe_alignment: Inner product of each probe gradient with ``-d_u``, (n_probe, n_units);
            its mean is the L1 norm of the mean gradient.
        reference_alignment: Inner product of each reference gradient with ``-d_u``.
        probe_norm_of_mean: L2 norm of the mean probe gradient, (n_units,), where measured.
        reference_norm_of_mean: The same for the reference text.
        granularity: ``sublayer`` or ``block``.
        reduction: ``mean_of_norms`` or ``norm_of_mean``: what ``probe_norm``,
            ``reference_norm`` and ``rgn`` mean.
        model: Name or path of the measured model.
        dtype: Type of its weights.
        shape: Sizes of the model that its cost depends on (see ``gradloc.localization.cost``).
        settings: How the sequences were drawn (seed, lengths, loss), for the record.
    """

    KIND: ClassVar[str] = "profile"
    WHAT: ClassVar[str] = "gradient profile"
    DERIVED: ClassVar[tuple[str, ...]] = ("n_probe", "n_reference", "derived")
    FORMER: ClassVar[tuple[str, ...]] = (
        "probe_weight_alignment",
        "reference_weight_alignment",
        "sign_agreement",
        "spectrum_snr",
    )

    units: tuple[UnitInfo, ...]
    probe_norms: Matrix
    reference_norms: Matrix | None = None
    probe_alignment: Matrix | None = None
    reference_alignment: Matrix | None = None
    probe_norm_of_mean: Vector | None = None
    reference_norm_of_mean: Vector | None = None
    granularity: Granularity = "sublayer"
    reduction: Reduction = "mean_of_norms"
    model: str = ""
    dtype: str = "float32"
    shape: ModelShape = field(default_factory=ModelShape)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Unit names, in order."""
        return tuple(unit.name for unit in self.units)

    @property
    def probe_norm(self) -> np.ndarray:
        """Probe gradient norm of each unit under ``reduction``, (n_units,)."""
        return self._reduced("probe")

    @property
    def reference_norm(self) -> np.ndarray:
        """Reference gradient norm of each unit under ``reduction``, (n_units,)."""
        return self._reduced("reference")

    @property
    def rgn(self) -> np.ndarray:
        """Relative gradient norm: probe norm / reference norm, (n_units,).

        The quantity of arXiv:2411.04448; not the Auto-RGN of surgical fine-tuning
        (arXiv:2210.11466), which divides by the norm of the parameters.
        """
        return self.probe_norm / self.reference_norm

    @property
    def benefit(self) -> np.ndarray:
        """First-order loss decrease per unit learning rate along ``d_u``, (n_units,)."""
        return self.need("probe_alignment").mean(axis=0)

    @property
    def interference(self) -> np.ndarray:
        """Mean squared inner product of reference gradients with ``d_u``, (n_units,).

        The Fisher form of the curvature of the reference behaviour along the step: what the
        step costs in KL divergence, per squared learning rate.
        """
        return (self.need("reference_alignment") ** 2).mean(axis=0)

    @property
    def interference_ratio(self) -> np.ndarray:
        """Benefit / interference, (n_units,): high where a step buys much and disturbs little."""
        return self.benefit / self.interference

    def _reduced(self, side: str) -> np.ndarray:
        if self.reduction == "mean_of_norms":
            return self.need(f"{side}_norms").mean(axis=0)
        return self.need(f"{side}_norm_of_mean")

    def need(self, name: str) -> np.ndarray:
        """A measured field.

        Args:
            name: Field of the profile.

        Raises:
            GradlocError: It was not measured; the message says how to.
        """
        values = getattr(self, name)
        if values is not None:
            return values
        raise GradlocError(
            f"this gradient profile has no {name}: it was measured without reference text. Measure "
            "again with reference=... (command line: --reference FILE)."
        )

    def derived(self) -> dict[str, Any]:
        """Sequence counts and the reduced values of each unit."""
        names = ["probe_norm"]
        if self.reference_norms is not None:
            names += ["reference_norm", "rgn", "benefit", "interference", "interference_ratio"]
        n_reference = 0 if self.reference_norms is None else len(self.reference_norms)
        return {
            "n_probe": len(self.probe_norms),
            "n_reference": n_reference,
            "derived": {name: getattr(self, name) for name in names},
        }

    def problems(self) -> list[str]:
        """Arrays whose shape is not that of the units and sequences."""
        n_units = len(self.units)
        n_sequences = {"probe": len(self.probe_norms), "reference": None}
        if self.reference_norms is not None:
            n_sequences["reference"] = len(self.reference_norms)
        problems = unit_problems(self.units)
        if not len(self.probe_norms):
            problems.append("probe_norms: is empty; measure at least one sequence")
        for item in fields(self):
            values = getattr(self, item.name)
            if not isinstance(values, np.ndarray):
                continue
            shape: tuple = (n_units,)
            if values.ndim == 2:
                shape = (n_sequences[item.name.partition("_")[0]], n_units)
            if values.shape != shape:
                problems.append(f"{item.name}: expected shape {shape}, found {values.shape}")
        missing = [key for key in _NEEDED_SIZES if self.shape and key not in self.shape]
        return problems + [f"shape.{key}: is missing" for key in missing]
