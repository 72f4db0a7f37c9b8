"""The probes of one scenario and depth together: means, intervals and the fitted decay.

Entities are resampled, not probes, because probes of one entity are not independent.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from gradloc.evaluation.bootstrap import BootstrapEstimate, estimate, figure
from gradloc.evaluation.metrics.decay import DecayFit, fit_decay, mean_retainability
from gradloc.evaluation.results import MetricValue
from gradloc.experiments.analysis.dynamics import GroupDynamics, ProbeDynamics


class Curves(NamedTuple):
    """Mean gains over steps since each probe's first exposure."""

    steps: tuple[float, ...]
    gain: tuple[float, ...]
    control: tuple[float, ...]
    injections: tuple[int, ...]


def aligned_curves(
    losses: np.ndarray,
    drift: np.ndarray | None,
    steps: np.ndarray,
    exposures: list[tuple[int, ...]],
    every: int,
) -> Curves:
    """Align probes at their first exposures and average what they gained since before them.

    Facts that are injected at different steps are measured at different distances from their
    exposures; between two measurements the line is straight.
    """
    firsts = np.array([own[0] for own in exposures])
    low = -int((firsts - steps[0]).min() // every * every)
    axis = np.arange(low, int((steps[-1] - firsts).min()) + 1, every)

    def mean_gain(columns: Iterable[np.ndarray]) -> tuple[float, ...]:
        gains = []
        for column, first in zip(columns, firsts, strict=True):
            before = column[int(np.searchsorted(steps, first, side="right")) - 1]
            gains.append(before - np.interp(axis + first, steps, column))
        return tuple(float(value) for value in np.mean(gains, axis=0))

    patterns = {tuple(int(step - own[0]) for step in own) for own in exposures}
    return Curves(
        steps=tuple(float(step) for step in axis),
        gain=mean_gain(losses.T),
        control=() if drift is None else mean_gain([drift] * len(firsts)),
        # Of entities that were injected in different patterns only the first step is common.
        injections=min(patterns) if len(patterns) == 1 else (0,),
    )


class Resampler:
    """Draws entities with replacement, all their probes with them.

    Args:
        entities: Entity of each probe.
        n_bootstrap: Number of draws.
        seed: Seed of the draws.
    """

    def __init__(self, entities: list[str], n_bootstrap: int, seed: int):
        self.entities, self.n_bootstrap, self.seed = entities, n_bootstrap, seed
        names = {name: place for place, name in enumerate(dict.fromkeys(entities))}
        owner = np.array([names[entity] for entity in entities])
        self._members = [np.flatnonzero(owner == place) for place in range(len(names))]

    @property
    def n_entities(self) -> int:
        """How many entities are drawn each time."""
        return len(self._members)

    def draws(self, usable: np.ndarray) -> list[np.ndarray]:
        """Indices of the drawn entities' usable probes, one array a resample."""
        members = [own[usable[own]] for own in self._members]
        members = [own for own in members if len(own)]
        rng = np.random.default_rng(self.seed)
        chosen = rng.integers(0, max(1, len(members)), (self.n_bootstrap, len(members)))
        return [np.concatenate([members[m] for m in draw]) for draw in chosen if len(draw)]

    def mean(self, values: Sequence[float]) -> MetricValue:
        """Mean of the values in nats per token."""
        (found,) = estimate(
            [np.array(values)], self.entities, n_bootstrap=self.n_bootstrap, seed=self.seed
        )
        return figure(found, "nats/token", higher_is_better=True)


def summarise_group(
    probes: list[ProbeDynamics],
    curves: np.ndarray,
    times: np.ndarray,
    curves_over_steps: Curves,
    resample: Resampler,
) -> GroupDynamics:
    """Summarise the probes of one scenario and depth.

    Args:
        probes: Their own numbers.
        curves: Their retainability, (n_probes, n_times); NaN where nothing was acquired.
        times: Steps since the local acquisition maximum, (n_times,).
        curves_over_steps: Their mean gain over the training.
        resample: Draws their entities.
    """
    by_exposure = list(zip(*(probe.effectivity for probe in probes), strict=False))
    mean = mean_retainability(curves)
    fit = fit_decay(times, mean.values)
    acquired = np.any(np.isfinite(curves), axis=1)
    # A probe that acquired nothing has no retainability in any resample.
    drawn = _means(curves, resample.draws(acquired))
    fits = [fit_decay(times, values) for values in drawn]
    of_fit = {name: np.array([getattr(f, name) for f in fits]) for name in DecayFit._fields}

    def shown(value: float, draws: np.ndarray, n: int, unit: str, up: bool, note: str = ""):
        found = BootstrapEstimate(
            float(value), draws[~np.isnan(draws)], int(n), resample.n_entities
        )
        return figure(found, unit, up, note)

    n = int(acquired.sum())
    return GroupDynamics(
        scenario=probes[0].scenario,
        depth=probes[0].depth,
        n_probes=len(probes),
        n_entities=resample.n_entities,
        n_not_acquired=len(probes) - n,
        effectivity=tuple(resample.mean(values) for values in by_exposure),
        mean_effectivity=resample.mean([float(np.mean(probe.effectivity)) for probe in probes]),
        retainability=tuple(
            shown(value, draws, size, "fraction", True)
            for value, draws, size in zip(mean.values, drawn.T, mean.n, strict=True)
        ),
        n_outliers=tuple(int(count) for count in mean.n_removed),
        decay=fit,
        decay_constant=shown(
            fit.decay_constant, of_fit["decay_constant"], n, "fraction/decade", False
        ),
        r2=shown(fit.r2, of_fit["r2"], n, "fraction", True),
        threshold_steps=_threshold(fit, of_fit, n, shown),
        curve_steps=curves_over_steps.steps,
        curve=curves_over_steps.gain,
        control_curve=curves_over_steps.control,
        injections=curves_over_steps.injections,
    )


def _means(curves: np.ndarray, draws: list[np.ndarray]) -> np.ndarray:
    """Mean retainability of each resample without outliers, (n_draws, n_times)."""
    n_times = curves.shape[1]
    if len({len(rows) for rows in draws}) == 1 and np.isfinite(curves[draws[0]]).all():
        # All resamples in one go, as columns of one table: many times faster.
        columns = curves[np.stack(draws, axis=1)].reshape(len(draws[0]), -1)
        return mean_retainability(columns).values.reshape(len(draws), n_times)
    found = [mean_retainability(curves[rows]).values for rows in draws]
    return np.array(found).reshape(len(draws), n_times)


def _threshold(
    fit: DecayFit, of_fit: dict[str, np.ndarray], n: int, shown: Callable
) -> MetricValue:
    """The learnability threshold; where the line does not fall, there is none."""
    if not fit.slope < 0:
        note = "retainability does not fall"
        return MetricValue(None, None, None, n, "steps", True, note)
    falls = of_fit["slope"] < 0
    draws = np.where(falls, of_fit["threshold_steps"], np.inf)
    return shown(fit.threshold_steps, draws, n, "steps", True)
