"""Effectivity, retainability and decay of a training's facts, by scenario and depth."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.metrics.acquisition.decay import (
    OUTLIER_FACTOR,
    DecayFit,
    fit_decay,
    mean_retainability,
)
from evaluation.metrics.acquisition.exposures import WINDOW, effectivity, retainability
from gradloc.data.probes.parsing import DEPTHS
from gradloc.errors import GradlocError
from gradloc.evaluation.bootstrap import (
    N_BOOTSTRAP,
    BootstrapEstimate,
    derive_seed,
    estimate,
    figure,
    undefined,
)
from gradloc.evaluation.results import MetricValue
from gradloc.utils.io import to_jsonable

from .injection import SCENARIOS
from .recording import AcquisitionRecord


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
class Analysis:
    """All groups of a training's record.

    Args:
        window: Steps after an exposure in which its effect is looked for.
        outlier_factor: Interquartile ranges beyond which a retainability is an outlier.
        against_control: Whether what the controls gained was subtracted.
        every: Steps between two measurements.
        n_steps: Last measured step.
        times: Steps since the local acquisition maximum of the last exposure.
        groups: One a scenario and depth.
    """

    window: int
    outlier_factor: float
    against_control: bool
    every: int
    n_steps: int
    times: tuple[int, ...]
    groups: tuple[GroupDynamics, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: what ``acquisition_analysis.json`` holds."""
        data = to_jsonable(self)
        # A named tuple is a list to JSON; its fields' names are wanted.
        for group, row in zip(self.groups, data["groups"], strict=True):
            row["decay"] = to_jsonable(group.decay._asdict())
        return {"format": 1, "kind": "acquisition_analysis", **data}


def analyse(
    record: AcquisitionRecord,
    *,
    window: int | None = None,
    against_control: bool = False,
    n_bootstrap: int = N_BOOTSTRAP,
) -> Analysis:
    """Analyse a record.

    All groups are followed over the same times, so that their decay constants compare: from the
    local acquisition maximum of the last exposure up to what is measured for every probe.
    Intervals are 95 % bootstrap intervals over entities. The bootstrap draws entities anew, not
    trainings: it says nothing of what another seed of the training would give.

    Args:
        record: Losses, and when the facts were trained on.
        window: Steps after an exposure in which its effect is looked for; ``None``: the paper's
            50, or the distance between two exposures where that is shorter.
        against_control: Subtract from each loss what that of the controls changed by.
        n_bootstrap: Resamples.

    Raises:
        GradlocError: Too little was measured, or there is no control to subtract.
    """
    if not record.steps or not any(record.scenarios):
        raise GradlocError("the record says nothing of injected facts; record a training first.")
    gaps = [np.diff(own).min() for own in record.injection_steps.values() if own[1:]]
    window = window or int(min([WINDOW, *gaps]))
    every = int(np.median(np.diff(record.steps))) if len(record.steps) > 1 else 1
    last = max(own[-1] for own in record.injection_steps.values())
    times = np.arange(0, record.steps[-1] - last - window + 1, every)
    if not len(times):
        raise GradlocError(
            f"the record ends at step {record.steps[-1]}, less than the window of {window} steps "
            f"after the last exposure (step {last}), so nothing can be said of what was kept. "
            "Train longer, or take a shorter --window."
        )
    losses = np.array(record.nll, float)
    drift = {depth: _drift(record, losses, depth) for depth in dict.fromkeys(record.depths)}
    if against_control:
        if any(own is None for own in drift.values()):
            raise GradlocError("no control was recorded; inject with --n-controls 1 or more.")
        losses = losses - np.stack([drift[depth] for depth in record.depths], axis=1)
        drift = dict.fromkeys(drift)
    groups = [
        _Group(record, scenario, depth, losses, window, every).summary(
            times, drift[depth], n_bootstrap
        )
        for scenario in SCENARIOS
        for depth in DEPTHS
        if (scenario, depth) in zip(record.scenarios, record.depths, strict=True)
    ]
    return Analysis(
        window=window,
        outlier_factor=OUTLIER_FACTOR,
        against_control=against_control,
        every=every,
        n_steps=record.steps[-1],
        times=tuple(int(t) for t in times),
        groups=tuple(groups),
    )


def _drift(record: AcquisitionRecord, losses: np.ndarray, depth: str) -> np.ndarray | None:
    """Change of the mean loss of the controls, (n_steps,); ``None`` where there are none."""
    of_probes = zip(record.scenarios, record.depths, strict=True)
    own = [index for index, found in enumerate(of_probes) if found == ("", depth)]
    if not own:
        return None
    mean = losses[:, own].mean(axis=1)
    return mean - mean[0]


class _Group:
    """The probes of one scenario and depth.

    Entities are resampled, not probes, because probes of one entity are not independent.
    """

    def __init__(
        self,
        record: AcquisitionRecord,
        scenario: str,
        depth: str,
        losses: np.ndarray,
        window: int,
        every: int,
    ):
        of_probes = zip(record.scenarios, record.depths, strict=True)
        own = [index for index, found in enumerate(of_probes) if found == (scenario, depth)]
        self.scenario, self.depth = scenario, depth
        self.entities = [record.entities[index] for index in own]
        self.exposures = [record.injection_steps[entity] for entity in self.entities]
        self.losses = losses[:, own]
        self.steps, self.window, self.every = np.array(record.steps), window, every

    def summary(
        self, times: np.ndarray, drift: np.ndarray | None, n_bootstrap: int
    ) -> GroupDynamics:
        """Means over the probes, with intervals, and the fitted decay."""
        seed = derive_seed(0, f"{self.scenario} {self.depth}")
        probes = list(zip(self.losses.T, self.exposures, strict=True))
        gains = np.array(
            [
                [effectivity(loss, t, self.window, steps=self.steps) for t in exposures]
                for loss, exposures in probes
            ]
        )
        curves = np.array(
            [
                retainability(loss, exposures, times, self.window, steps=self.steps)
                for loss, exposures in probes
            ]
        )

        def mean_gain(values: np.ndarray) -> MetricValue:
            (found,) = estimate([values], self.entities, n_bootstrap=n_bootstrap, seed=seed)
            return figure(found, "nats/token", True)

        return GroupDynamics(
            scenario=self.scenario,
            depth=self.depth,
            n_probes=len(probes),
            n_entities=len(set(self.entities)),
            effectivity=tuple(mean_gain(values) for values in gains.T),
            mean_effectivity=mean_gain(gains.mean(axis=1)),
            **self._decay(curves, times, n_bootstrap, seed),
            **self._curves(drift),
        )

    def _decay(
        self, curves: np.ndarray, times: np.ndarray, n_bootstrap: int, seed: int
    ) -> dict[str, Any]:
        """Mean retainability and the line through it, with intervals.

        Args:
            curves: Retainability of each probe, (n_probes, n_times); NaN where nothing was
                acquired.
            times: Steps since the local acquisition maximum, (n_times,).
            n_bootstrap: Resamples.
            seed: Seed of the resamples.
        """
        n_entities = len(set(self.entities))

        def shown(value: float, draws: np.ndarray, n: int, unit: str, up: bool) -> MetricValue:
            draws = draws[~np.isnan(draws)]
            return figure(BootstrapEstimate(float(value), draws, int(n), n_entities), unit, up)

        acquired = np.isfinite(curves).any(axis=1)
        n = int(acquired.sum())
        mean = mean_retainability(curves)
        fit = fit_decay(times, mean.values)
        drawn = _drawn_means(curves, self._draws(acquired, n_bootstrap, seed))
        fits = [fit_decay(times, values) for values in drawn]
        draws = {name: np.array([getattr(f, name) for f in fits]) for name in DecayFit._fields}
        threshold = undefined(n, "steps", True, "retainability does not fall")
        if fit.slope < 0:
            falling = np.where(draws["slope"] < 0, draws["threshold_steps"], np.inf)
            threshold = shown(fit.threshold_steps, falling, n, "steps", True)
        slopes = draws["decay_constant"]
        return {
            "n_not_acquired": len(curves) - n,
            "retainability": tuple(
                shown(value, values, size, "fraction", True)
                for value, values, size in zip(mean.values, drawn.T, mean.n, strict=True)
            ),
            "n_outliers": tuple(int(count) for count in mean.n_removed),
            "decay": fit,
            "decay_constant": shown(fit.decay_constant, slopes, n, "fraction/decade", False),
            "r2": shown(fit.r2, draws["r2"], n, "fraction", True),
            "threshold_steps": threshold,
        }

    def _curves(self, drift: np.ndarray | None) -> dict[str, Any]:
        """Mean gains since each probe's first exposure; between measurements, a straight line."""
        firsts = np.array([own[0] for own in self.exposures])
        low = -int((firsts - self.steps[0]).min() // self.every * self.every)
        axis = np.arange(low, int((self.steps[-1] - firsts).min()) + 1, self.every)

        def mean_gain(losses: Sequence[np.ndarray]) -> tuple[float, ...]:
            gains = []
            for loss, first in zip(losses, firsts, strict=True):
                before = loss[int(np.searchsorted(self.steps, first, side="right")) - 1]
                gains.append(before - np.interp(axis + first, self.steps, loss))
            return tuple(float(value) for value in np.mean(gains, axis=0))

        # Of entities that were injected in different patterns only the first step is common.
        patterns = {tuple(step - own[0] for step in own) for own in self.exposures}
        return {
            "curve_steps": tuple(float(step) for step in axis),
            "curve": mean_gain(self.losses.T),
            "control_curve": () if drift is None else mean_gain([drift] * len(firsts)),
            "injections": min(patterns) if len(patterns) == 1 else (0,),
        }

    def _draws(self, usable: np.ndarray, n_bootstrap: int, seed: int) -> list[np.ndarray]:
        """Indices of the drawn entities' usable probes, one array a resample."""
        members: dict[str, list[int]] = {}
        for place, entity in enumerate(self.entities):
            if usable[place]:
                members.setdefault(entity, []).append(place)
        own = [np.array(places) for places in members.values()]
        rng = np.random.default_rng(seed)
        chosen = rng.integers(0, max(1, len(own)), (n_bootstrap, len(own)))
        return [np.concatenate([own[number] for number in draw]) for draw in chosen if len(draw)]


def _drawn_means(curves: np.ndarray, draws: list[np.ndarray]) -> np.ndarray:
    """Mean retainability of each resample without outliers, (n_draws, n_times)."""
    n_times = curves.shape[1]
    if len({len(rows) for rows in draws}) == 1 and np.isfinite(curves[draws[0]]).all():
        # All resamples in one go, as columns of one table: many times faster.
        columns = curves[np.stack(draws, axis=1)].reshape(len(draws[0]), -1)
        return mean_retainability(columns).values.reshape(len(draws), n_times)
    found = [mean_retainability(curves[rows]).values for rows in draws]
    return np.array(found).reshape(len(draws), n_times)
