"""Time arms against each other in one process, in turns.

Comes in: arms and a model. Goes out: the steps of every run, rotation by rotation. It forms no
ratios (``gradloc.experiments.bench.ratios`` does).

In each rotation every arm trains for a few steps on a copy of the model, in an order drawn anew,
with full training first and last: what else the machine does then falls on all arms alike, and a
drift within a rotation shows. One copy of the model and one optimizer exist at a time.
"""

import copy
import gc
import random
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from gradloc.experiments.bench.arms import REFERENCE, Arm
from gradloc.experiments.bench.settings import BenchSettings
from gradloc.experiments.bench.steps import StepTime, fill_cache, run_arm


@dataclass(frozen=True)
class Rotation:
    """One turn of every arm.

    Args:
        order: Arms in the order in which they ran; ``full`` is first and last.
        runs: The timed steps of each arm's runs, (n_runs, n_steps); one run, two of ``full``.
    """

    order: tuple[str, ...]
    runs: dict[str, list[list[StepTime]]]


def time_arms(
    arms: dict[str, Arm],
    model: nn.Module,
    settings: BenchSettings,
    *,
    after_run: Callable[[str], None] = lambda what: None,
) -> list[Rotation]:
    """Let the arms take turns.

    Args:
        arms: The arms, ``full`` among them; caches are filled already (``fill_caches``).
        model: The model; it stays as it is.
        settings: Sizes and counts.
        after_run: Called with the arm's name after each of ``n_runs`` runs.

    Returns:
        One ``Rotation`` for each of ``settings.rotations``.
    """
    rotations = []
    for number in range(settings.rotations):
        others = [name for name in arms if name != REFERENCE]
        random.Random(settings.seed + number).shuffle(others)
        order = (REFERENCE, *others, REFERENCE)
        runs: dict[str, list[list[StepTime]]] = {}
        for name in order:
            steps = run_arm(arms[name], copy.deepcopy(model), settings, seed=settings.seed + number)
            # The first step has no step before it and is not among them.
            runs.setdefault(name, []).append(steps[settings.warmup_steps - 1 :])
            gc.collect()  # a Trainer and its callbacks hold each other, and the model
            after_run(name)
        rotations.append(Rotation(order, runs))
    return rotations


def fill_caches(
    arms: dict[str, Arm],
    model: nn.Module,
    settings: BenchSettings,
    *,
    after_run: Callable[[str], None] = lambda what: None,
) -> None:
    """Compute the hidden states of all cached arms, untimed."""
    for name, arm in arms.items():
        if arm.cached:
            fill_cache(arm, copy.deepcopy(model), settings)
            gc.collect()
            after_run(name)


def n_runs(arms: dict[str, Arm], settings: BenchSettings) -> int:
    """How many runs ``fill_caches`` and ``time_arms`` make together."""
    return sum(arm.cached for arm in arms.values()) + settings.rotations * (len(arms) + 1)
