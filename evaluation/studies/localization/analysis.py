"""Gradient norms of new, updated and known facts compared: the whole analysis as one value."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from gradloc.data.probes import ProbeSet
from gradloc.models.unit_info import UnitInfo
from gradloc.utils.io import to_jsonable
from localization.figures import (
    VARIANTS,
    Contrast,
    LocalizationFigures,
    localization_figures,
)
from localization.measure import GroupFacts, measure_groups

FORMAT = 1


@dataclass(frozen=True)
class LocalizationAnalysis:
    """Where groups of facts pull, and how far that can be trusted.

    Args:
        units: Units of the block stack; all arrays of the figures follow their order.
        facts: Group -> what it consists of.
        figures: Profiles, correlations and contrasts.
        model: Name or path of the model.
        dtype: Type of its weights.
        n_reference: Reference texts measured.
        settings: How sequences were drawn.
    """

    units: tuple[UnitInfo, ...]
    facts: dict[str, GroupFacts]
    figures: LocalizationFigures
    model: str
    dtype: str
    n_reference: int
    settings: dict

    def contrast(
        self, group: str, control: str = "invariant", variant: str = "rgn", centred: bool = False
    ) -> Contrast:
        """One of the contrasts.

        Raises:
            KeyError: It was not computed.
        """
        wanted = group, control, variant, centred
        for found in self.figures.contrasts:
            if (found.group, found.control, found.variant, found.centred) == wanted:
                return found
        raise KeyError(wanted)

    def to_dict(self) -> dict:
        """The analysis as plain JSON values, contrasts with their counts of units."""
        plain = to_jsonable({"format": FORMAT, "kind": "localization", **vars(self)})
        for contrast, row in zip(
            self.figures.contrasts, plain["figures"]["contrasts"], strict=True
        ):
            row["n_above"] = int(contrast.above.sum())
            row["n_below"] = int(contrast.below.sum())
        return {**plain, "variants": VARIANTS}


def analyse_localization(
    model: nn.Module,
    tokenizer: Any,
    probes: ProbeSet,
    reference: Sequence[str],
    *,
    n: int = 24,
    max_length: int = 128,
    n_bootstrap: int = 2000,
    seed: int = 0,
    progress: bool | None = None,
) -> LocalizationAnalysis:
    """Measure gradient norms of new, updated and known facts, and compare them.

    Args:
        model: Causal language model; left as found.
        tokenizer: Its fast tokenizer.
        probes: Probes of all groups.
        reference: Ordinary texts.
        n: Probes a group, and reference texts, at most.
        max_length: Tokens a sequence at most.
        n_bootstrap: Resamples for the intervals.
        seed: Which sequences are drawn, splits and resamples.
        progress: Show progress bars; ``None``: when on a terminal.

    Raises:
        MeasurementError: Too few probes or texts, or no known fact to compare with.

    References:
        Fernandez, Bisk, Strubell 2024, arXiv:2411.04448.
    """
    measured = measure_groups(
        model,
        tokenizer,
        probes,
        reference,
        n=n,
        max_length=max_length,
        seed=seed,
        progress=progress,
    )
    figures = localization_figures(
        measured.groups, measured.reference, n_bootstrap=n_bootstrap, seed=seed
    )
    return LocalizationAnalysis(
        units=measured.units,
        facts=measured.facts,
        figures=figures,
        model=getattr(model.config, "_name_or_path", ""),
        dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
        n_reference=len(measured.reference),
        settings={"n": n, "max_length": max_length, "n_bootstrap": n_bootstrap, "seed": seed},
    )
