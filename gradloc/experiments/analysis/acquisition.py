"""Effectivity, retainability and decay of a training's facts, by scenario and depth."""

import numpy as np

from gradloc.data.injection import SCENARIOS
from gradloc.data.probes.parsing import DEPTHS
from gradloc.errors import GradlocError
from gradloc.evaluation.bootstrap import N_BOOTSTRAP, derive_seed
from gradloc.evaluation.metrics.acquisition import (
    WINDOW,
    effectivity,
    local_acquisition_maximum,
    retainability,
)
from gradloc.evaluation.metrics.decay import OUTLIER_FACTOR, fit_decay
from gradloc.experiments.analysis.dynamics import AcquisitionAnalysis, GroupDynamics, ProbeDynamics
from gradloc.experiments.analysis.groups import Resampler, aligned_curves, summarise_group
from gradloc.training.acquisition import AcquisitionRecord


def analyse_acquisition(
    record: AcquisitionRecord,
    *,
    window: int | None = None,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> AcquisitionAnalysis:
    """Analyse a record.

    All groups are followed over the same times, so that their decay constants compare: from the
    local acquisition maximum of the last exposure up to what is measured for every probe.
    Intervals are 95 % bootstrap intervals over entities. The bootstrap draws probes anew, not
    trainings: it says nothing of what another seed of the training would give.

    Args:
        record: Losses, and when the facts were trained on.
        window: Steps after an exposure in which its effect is looked for; ``None``: the paper's
            50, or the distance between two exposures where that is shorter.
        n_bootstrap: Resamples.
        seed: Seed of the resamples.

    Raises:
        GradlocError: Nothing was injected, or too little was measured.
    """
    injected = [index for index, scenario in enumerate(record.scenarios) if scenario]
    if not injected or not record.steps:
        what = "says of no entity when it was trained on" if record.steps else "is empty"
        raise GradlocError(
            f"the acquisition record {what}, so nothing can be said of what was acquired. Record "
            "with AcquisitionCallback(probes, exposures=...), or a recipe's 'injection'."
        )
    window = window or _window(record)
    losses, steps = -record.log_probabilities(), np.array(record.steps)
    drift = _drift(record, losses)
    times = _times(record, window)
    exposures = {index: record.injection_steps[record.entities[index]] for index in injected}
    found = {
        index: _probe(record, index, losses[:, index], exposures[index], window, times)
        for index in injected
    }
    groups: list[GroupDynamics] = []
    for scenario, depth in _groups(record):
        members = [
            index
            for index in injected
            if (record.scenarios[index], record.depths[index]) == (scenario, depth)
        ]
        own = [exposures[index] for index in members]
        groups.append(
            summarise_group(
                [found[index][0] for index in members],
                np.array([found[index][1] for index in members]),
                times,
                aligned_curves(losses[:, members], drift.get(depth), steps, own, _spacing(record)),
                Resampler(
                    [record.entities[index] for index in members],
                    n_bootstrap,
                    derive_seed(seed, f"{scenario} {depth}"),
                ),
            )
        )
    return AcquisitionAnalysis(
        window=window,
        outlier_factor=OUTLIER_FACTOR,
        every=_spacing(record),
        n_steps=record.steps[-1],
        times=tuple(int(t) for t in times),
        groups=tuple(groups),
        probes=tuple(dynamics for dynamics, _ in found.values()),
    )


def _times(record: AcquisitionRecord, window: int) -> np.ndarray:
    """Steps since the maximum up to the last that every probe has, wherever its maximum is."""
    last = max(steps[-1] for steps in record.injection_steps.values())
    times = np.arange(0, record.steps[-1] - last - window + 1, _spacing(record))
    if not len(times):
        raise GradlocError(
            f"the record ends at step {record.steps[-1]}, less than the window of {window} steps "
            f"after the last exposure (step {last}), so nothing can be said of what was kept. "
            "Train longer, or take a shorter --window."
        )
    return times


def _spacing(record: AcquisitionRecord) -> int:
    """Steps between two measurements; the last one may be nearer to the one before."""
    return int(np.median(np.diff(record.steps))) if len(record.steps) > 1 else 1


def _groups(record: AcquisitionRecord) -> list[tuple[str, str]]:
    """Scenarios and depths that occur together, the known words first and in their order."""

    def place(group: tuple[str, str]) -> tuple:
        known = (SCENARIOS, DEPTHS)
        return tuple(
            words.index(word) if word in words else len(words)
            for word, words in zip(group, known, strict=True)
        )

    present = dict.fromkeys(zip(record.scenarios, record.depths, strict=True))
    return sorted((group for group in present if group[0]), key=place)


def _drift(record: AcquisitionRecord, losses: np.ndarray) -> dict[str, np.ndarray]:
    """Depth -> change of the mean loss of entities that were not injected, (n_steps,)."""
    found = {}
    for depth in dict.fromkeys(record.depths):
        own = [
            index
            for index, scenario in enumerate(record.scenarios)
            if not scenario and record.depths[index] == depth
        ]
        if own:
            mean = losses[:, own].mean(axis=1)
            found[depth] = mean - mean[0]
    return found


def _window(record: AcquisitionRecord) -> int:
    gaps = [int(np.diff(steps).min()) for steps in record.injection_steps.values() if steps[1:]]
    return min([WINDOW, *gaps])


def _probe(
    record: AcquisitionRecord,
    index: int,
    losses: np.ndarray,
    exposures: tuple[int, ...],
    window: int,
    times: np.ndarray,
) -> tuple[ProbeDynamics, np.ndarray]:
    """A probe's own numbers and its retainability at the times."""
    steps = np.array(record.steps)
    best = local_acquisition_maximum(losses, exposures[-1], window, steps=steps)
    before = int(np.searchsorted(steps, exposures[0], side="right")) - 1
    kept = retainability(losses, exposures, times, window, steps=steps)
    dynamics = ProbeDynamics(
        id=record.probe_ids[index],
        entity=record.entities[index],
        scenario=record.scenarios[index],
        depth=record.depths[index],
        loss_before=float(losses[before]),
        loss_best=float(losses[best]),
        effectivity=tuple(effectivity(losses, t, window, steps=steps) for t in exposures),
        retainability=float(kept[-1]),
        decay=fit_decay(times, kept),
    )
    return dynamics, kept
