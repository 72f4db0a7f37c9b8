"""The gradient profile: what was measured in each unit, and the ratios that follow from it.

Comes in: arrays of per-sequence norms and inner products. Goes out: ``GradientProfile``, which
``profile.json`` holds. It runs no model and imports no torch.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gradloc.errors import GradlocError
from gradloc.models.unit_info import UnitInfo
from gradloc.utils.io import read_json, write_json

FORMAT = 1
REDUCTIONS = ("mean_of_norms", "norm_of_mean")
# What is measured on request only, and the fields that it fills.
ALSO = {
    "weights": ("probe_weight_alignment", "reference_weight_alignment"),
    "signs": ("sign_agreement",),
    "spectrum": ("spectrum_snr",),
}


@dataclass(frozen=True)
class GradientProfile:
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
        probe_weight_alignment: Inner product of each probe gradient with the unit's weights,
            (n_probe, n_units), where measured: to first order the change of the loss, in nats,
            per relative change of the weights.
        reference_weight_alignment: The same for each reference gradient.
        sign_agreement: Fraction of each unit's parameters whose mean probe gradient and mean
            reference gradient have the same sign, (n_units,), where measured; 0.5 by chance.
        spectrum_snr: Signal-to-noise ratio of each unit's weights, (n_units,), where measured;
            see ``gradloc.localization.weight_spectrum``. 0 outside the stack.
        granularity: ``sublayer`` or ``block``.
        reduction: ``mean_of_norms`` or ``norm_of_mean``: what ``probe_norm``,
            ``reference_norm`` and ``rgn`` mean.
        model: Name or path of the measured model.
        dtype: Type of its weights.
        shape: Sizes of the model that its cost depends on (see ``gradloc.localization.cost``).
        settings: How the sequences were drawn (seed, lengths, loss), for the record.
    """

    units: tuple[UnitInfo, ...]
    probe_norms: np.ndarray
    reference_norms: np.ndarray | None = None
    probe_alignment: np.ndarray | None = None
    reference_alignment: np.ndarray | None = None
    probe_norm_of_mean: np.ndarray | None = None
    reference_norm_of_mean: np.ndarray | None = None
    probe_weight_alignment: np.ndarray | None = None
    reference_weight_alignment: np.ndarray | None = None
    sign_agreement: np.ndarray | None = None
    spectrum_snr: np.ndarray | None = None
    granularity: str = "sublayer"
    reduction: str = "mean_of_norms"
    model: str = ""
    dtype: str = "float32"
    shape: dict = field(default_factory=dict)
    settings: dict = field(default_factory=dict)

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
    def interference_matrix(self) -> np.ndarray:
        """Mean product of the inner products in two units, (n_units, n_units).

        What a step in both disturbs beyond what each disturbs alone, per squared learning rate;
        the diagonal is ``interference``.
        """
        aligned = self.need("reference_alignment")
        return aligned.T @ aligned / len(aligned)

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
        also = next((key for key, fields in ALSO.items() if name in fields), "")
        if not also or (name.startswith("reference") and self.reference_norms is None):
            reason, cure = "without reference text", "reference=... (command line: --reference FILE"
        else:
            reason = f"without {also!r}"
            cure = f"also=({also!r},) (recipe: measure.also; command line: --also {also}"
        raise GradlocError(
            f"this gradient profile has no {name}: it was measured {reason}. "
            f"Measure again with {cure})."
        )

    def save(self, path: str | Path) -> Path:
        """Write ``profile.json``."""
        derived = {"probe_norm": self.probe_norm}
        if self.reference_norms is not None:
            derived |= {
                name: getattr(self, name)
                for name in (
                    "reference_norm",
                    "rgn",
                    "benefit",
                    "interference",
                    "interference_ratio",
                )
            }
        n_reference = 0 if self.reference_norms is None else len(self.reference_norms)
        head = {
            "format": FORMAT,
            "kind": "profile",
            "n_probe": len(self.probe_norms),
            "n_reference": n_reference,
        }
        return write_json(path, {**head, **vars(self), "derived": derived})

    @classmethod
    def load(cls, path: str | Path) -> "GradientProfile":
        """Read ``profile.json``.

        Raises:
            GradlocError: The file is missing, not JSON, or of another kind or format.
        """
        data = read_json(path, "gradient profile")
        if not isinstance(data, dict) or data.get("kind") != "profile":
            raise GradlocError(f"{path}: not a gradient profile of gradloc.")
        if data["format"] != FORMAT:
            raise GradlocError(
                f"{path}: profile format {data['format']}, this version reads {FORMAT}."
            )
        for name in ("format", "kind", "n_probe", "n_reference", "derived"):
            data.pop(name)
        data["units"] = tuple(UnitInfo(**unit) for unit in data["units"])
        for name, value in data.items():
            if isinstance(value, list) and name != "units":
                data[name] = np.asarray(value, dtype=np.float64)
        return cls(**data)
