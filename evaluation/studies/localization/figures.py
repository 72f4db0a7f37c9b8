"""Profiles over units, their reliability, and differences between groups of facts.

Norms are those of single sequences, (n_sequences, n_units), by group. Intervals of differences hold
for all units at once.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from gradloc.errors import MeasurementError
from gradloc.evaluation.bootstrap import derive_seed, interval
from localization.resampling import (
    entity_index,
    resampled_counts,
    simultaneous,
    spearman_rows,
    split_half,
    weighted_means,
)

# What a group's norms are divided by, and which norms of it.
VARIANTS = {
    "norm": "gradient norm of the span loss",
    "rgn": "span loss / all tokens of the reference text",
    "rgn_matched": "span loss / random spans of the reference text, as long as the answers",
    "rgn_whole": "loss of the whole sequence / all tokens of the reference text",
}
# Variants in which groups are compared. ``norm`` would say the same as ``rgn``, whose divisor is
# that of both groups and cancels.
COMPARED = ("rgn", "rgn_matched", "rgn_whole")
CONTROLS = ("invariant", "missed")
# The control that is no group: the reference text itself, so that the difference is log RGN.
TEXT = "text"
# Entities in a group at least: two a half.
MIN_ENTITIES = 4


@dataclass(frozen=True)
class GroupNorms:
    """Gradient norms of one group of facts.

    Args:
        span: Norm under the loss of the answer's tokens, (n_sequences, n_units).
        whole: Norm under the loss of all tokens, (n_sequences, n_units).
        matched: Norm of reference texts under the loss of random spans as long as the group's
            answers, (n_reference, n_units); row i is reference text i.
        entities: What each sequence is about, (n_sequences,); resampled and split as one.
    """

    span: np.ndarray
    whole: np.ndarray
    matched: np.ndarray
    entities: Sequence[Hashable]


@dataclass(frozen=True)
class DepthProfile:
    """One variant's values in one group.

    Args:
        values: Of each unit, (n_units,).
        max_over_mean: Largest value / mean value; 1 is flat.
        split_half: Spearman correlation of two halves of the sequences, stepped up to the whole
            number by the Spearman-Brown formula, -1 to 1.
        low, high: Its 95 % bootstrap interval.
    """

    values: np.ndarray
    max_over_mean: float
    split_half: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Contrast:
    """Difference of two groups in the logarithm of one variant, unit by unit.

    Args:
        group, control: The groups; positive differences are larger norms in ``group``. Control
            ``text`` is the reference text, and the difference the logarithm of the variant.
        variant: Key of ``VARIANTS``.
        centred: Whether the mean difference over all units is subtracted: then it says where the
            group pulls, apart from how strongly it pulls everywhere.
        difference: log(group) - log(control), (n_units,); exp of it is a factor.
        low, high: 95 % intervals that hold for all units at once, (n_units,).
        p_adjusted: Share of resamples whose largest standardised error exceeds the unit's own
            standardised difference, (n_units,); below 0.05 where the interval excludes 0.
        mean: Mean difference over the units.
        mean_low, mean_high: Its 95 % interval.
    """

    group: str
    control: str
    variant: str
    centred: bool
    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_adjusted: np.ndarray
    mean: float
    mean_low: float | None
    mean_high: float | None

    @property
    def above(self) -> np.ndarray:
        """Units where the group lies above the control, (n_units,) of bool."""
        return self.low > 0

    @property
    def below(self) -> np.ndarray:
        """Units where the group lies below the control."""
        return self.high < 0


@dataclass(frozen=True)
class LocalizationFigures:
    """All figures of the analysis.

    Args:
        profiles: Group -> variant -> profile.
        between_variants: Group -> ``"a b"`` -> Spearman correlation of two variants' profiles.
        between_groups: Variant -> ``"a b"`` -> Spearman correlation of two groups' profiles.
        contrasts: Every group against every control.
    """

    profiles: dict[str, dict[str, DepthProfile]]
    between_variants: dict[str, dict[str, float]]
    between_groups: dict[str, dict[str, float]]
    contrasts: tuple[Contrast, ...]


def localization_figures(
    groups: dict[str, GroupNorms],
    reference: np.ndarray,
    *,
    n_splits: int = 200,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> LocalizationFigures:
    """Compute every figure of the analysis.

    Args:
        groups: Name -> norms; those named in ``CONTROLS`` are what the others are compared with.
        reference: Norms of the reference texts under the loss of all tokens,
            (n_reference, n_units).
        n_splits: Random splits for the split-half correlation.
        n_bootstrap: Resamples of entities and of reference texts.
        seed: Seed of splits and resamples.

    Raises:
        MeasurementError: A group or the reference has fewer than ``MIN_ENTITIES`` entities or
            texts, or a unit has no gradient at all in one of them.

    References:
        Fernandez, Bisk, Strubell 2024, arXiv:2411.04448 (new and updated entities have larger
        gradient norms in some layers).
    """
    reference = np.asarray(reference, float)
    _check(groups, reference)
    profiles: dict[str, dict[str, DepthProfile]] = {}
    for name, group in groups.items():
        profiles[name] = {}
        for variant in VARIANTS:
            top, bottom = sides(variant, group, reference)
            values = top.mean(axis=0) / (1.0 if bottom is None else bottom.mean(axis=0))
            found = split_half(
                top,
                group.entities,
                bottom,
                n_splits=n_splits,
                n_bootstrap=n_bootstrap // 4,
                seed=derive_seed(seed, f"{name} {variant}"),
            )
            profiles[name][variant] = DepthProfile(
                values, float(values.max() / values.mean()), *found
            )
    controls = [name for name in groups if name in CONTROLS]
    return LocalizationFigures(
        profiles=profiles,
        between_variants={name: _correlations(found) for name, found in profiles.items()},
        between_groups={
            variant: _correlations({name: found[variant] for name, found in profiles.items()})
            for variant in VARIANTS
        },
        contrasts=tuple(
            contrast
            for name in groups
            for control in (*(c for c in controls if name not in CONTROLS), TEXT)
            for variant in COMPARED
            for contrast in contrasts_of(
                name, control, variant, groups, reference, n_bootstrap=n_bootstrap, seed=seed
            )
        ),
    )


def sides(
    variant: str, group: GroupNorms, reference: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """The norms that a variant averages, and those whose average divides it, if any does."""
    top = group.whole if variant == "rgn_whole" else group.span
    bottom = {"norm": None, "rgn_matched": group.matched}.get(variant, reference)
    return np.asarray(top, float), bottom if bottom is None else np.asarray(bottom, float)


def contrasts_of(
    group: str,
    control: str,
    variant: str,
    groups: dict[str, GroupNorms],
    reference: np.ndarray,
    *,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> tuple[Contrast, Contrast]:
    """Two groups compared in one variant: as it is, and with the mean over units taken off.

    Entities of both groups are resampled apart, reference texts together. Against ``text`` the
    variant's own logarithm is compared with 0, where answers and text have equal norms; its
    centred form says which units lie above the (geometric) mean.
    """
    n_units = np.shape(reference)[1]
    logs, replicates = [np.zeros(n_units)] * 2, [np.zeros((n_bootstrap, n_units))] * 2
    rng = np.random.default_rng(derive_seed(seed, f"{group} {control} {variant}"))
    texts = resampled_counts(len(reference), n_bootstrap, rng)
    for place, name in enumerate(name for name in (group, control) if name != TEXT):
        top, bottom = sides(variant, groups[name], reference)
        index = entity_index(groups[name].entities)
        weights = resampled_counts(index.max() + 1, n_bootstrap, rng)[:, index]
        logs[place] = np.log(top.mean(axis=0)) - np.log(bottom.mean(axis=0))
        replicates[place] = np.log(weighted_means(weights, top) / weighted_means(texts, bottom))
    difference, drawn = logs[0] - logs[1], replicates[0] - replicates[1]
    mean = float(difference.mean()), *interval(drawn.mean(axis=1))
    return tuple(
        Contrast(
            group,
            control,
            variant,
            centred,
            *simultaneous(
                difference - centred * difference.mean(),
                drawn - centred * drawn.mean(axis=1, keepdims=True),
            ),
            *mean,
        )
        for centred in (False, True)
    )


def _correlations(profiles: dict[str, DepthProfile]) -> dict[str, float]:
    return {
        f"{a} {b}": float(spearman_rows(profiles[a].values[None], profiles[b].values[None])[0])
        for a, b in combinations(profiles, 2)
    }


def _check(groups: dict[str, GroupNorms], reference: np.ndarray) -> None:
    for name, group in groups.items():
        if len(set(group.entities)) < MIN_ENTITIES:
            raise MeasurementError(
                f"group {name!r} has {len(set(group.entities))} entities; at least {MIN_ENTITIES} "
                "are needed to say how far its profile can be trusted. Give more probes."
            )
    if len(reference) < MIN_ENTITIES:
        raise MeasurementError(
            f"{len(reference)} reference texts; at least {MIN_ENTITIES} are needed. Give more."
        )
    named = {f"{name} {side}": getattr(group, side) for name, group in groups.items()
             for side in ("span", "whole", "matched")}  # fmt: skip
    for name, norms in {**named, "reference": reference}.items():
        empty = np.flatnonzero(~(np.asarray(norms).mean(axis=0) > 0))
        if len(empty):
            raise MeasurementError(
                f"{name}: unit {empty[0]} has no gradient on any sequence, so no ratio to it "
                "exists. Leave such units out."
            )
