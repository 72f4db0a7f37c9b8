"""How a fact is acquired from its exposures and lost after the last one.

``decay`` has the means over probes and the fitted decay.

Loss means the mean negative log-likelihood of the answer's tokens, in nats; lower is better known.
``losses[i]`` belongs to the parameters before update ``steps[i]``, so an exposure at step t shows
from t + 1 on. Without ``steps`` every step is evaluated: ``losses[i]`` is step i.

References: Chang et al. 2024, "How do large language models acquire factual knowledge during
pretraining?", arXiv:2406.11813, section 3.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from gradloc.errors import GradlocError

# Steps after an exposure in which its effect has fully arrived: with Adam's beta_1 of 0.9 a
# gradient's weight in the momentum falls to 0.9 ** 50 = 0.005. arXiv:2406.11813 §3.3
WINDOW = 50


def local_acquisition_maximum(
    losses: ArrayLike, injection_step: int, window: int = WINDOW, *, steps: ArrayLike | None = None
) -> int:
    """Where a probe is known best within the window after an exposure.

    The first minimum of the loss over the evaluated steps t + 1 ... t + window.

    Args:
        losses: Loss at each evaluated step, (n_steps,).
        injection_step: Step t of the exposure.
        window: Steps in which the exposure's effect arrives; 1 for an optimizer without momentum.
        steps: The evaluated steps, ascending, (n_steps,).

    Returns:
        The index into ``losses``.

    Raises:
        GradlocError: No step within the window was evaluated.

    Example:
        >>> local_acquisition_maximum([3.0, 2.0, 1.0, 1.0, 2.0], injection_step=0)
        2
    """
    losses, steps = _series(losses, steps)
    first = int(np.searchsorted(steps, injection_step, side="right"))
    stop = int(np.searchsorted(steps, injection_step + window, side="right"))
    if first == stop:
        raise GradlocError(
            f"no step from {injection_step + 1} to {injection_step + window} was evaluated, so the "
            f"effect of the injection at step {injection_step} cannot be seen. Evaluate more "
            "often, or take a longer window."
        )
    after = losses[first:stop]
    # A loss that is not a number is never the best one.
    return first + int(np.argmin(np.where(np.isnan(after), np.inf, after)))


def effectivity(
    losses: ArrayLike, injection_step: int, window: int = WINDOW, *, steps: ArrayLike | None = None
) -> float:
    """What one exposure adds: loss before it - loss at its local acquisition maximum, in nats.

    Args:
        losses: Loss at each evaluated step, (n_steps,).
        injection_step: Step t of the exposure. Where t itself was not evaluated, the last
            evaluated step before it counts, which the exposure has not touched either.
        window: As in ``local_acquisition_maximum``.
        steps: The evaluated steps, ascending, (n_steps,).

    Returns:
        Nats per token; higher is better.

    Raises:
        GradlocError: Nothing was evaluated up to the exposure, or within the window after it.

    Example:
        >>> effectivity([3.0, 2.0, 1.0, 1.5], injection_step=0)
        2.0
    """
    losses, steps = _series(losses, steps)
    best = local_acquisition_maximum(losses, injection_step, window, steps=steps)
    return float(_loss_before(losses, steps, injection_step) - losses[best])


def retainability(
    losses: ArrayLike,
    injection_steps: int | Iterable[int],
    t: ArrayLike,
    window: int = WINDOW,
    *,
    steps: ArrayLike | None = None,
    released: bool = False,
) -> np.ndarray:
    """Share of what all exposures added that is left t steps after the last maximum.

    (loss before the first exposure - loss t steps after the local acquisition maximum of the
    last) / (loss before the first exposure - loss at that maximum).

    Args:
        losses: Loss at each evaluated step, (n_steps,).
        injection_steps: Steps of the exposures; one number for a single exposure.
        t: Steps since the maximum, a number or (n_times,).
        window: As in ``local_acquisition_maximum``.
        steps: The evaluated steps, ascending, (n_steps,).
        released: As the released code does, give a value also where the loss at the maximum is
            above the one before the first exposure, which divides one loss by another.

    Returns:
        Fractions in the shape of ``t``; 1 at t = 0, 0 when the loss is back where it was before
        the first exposure, below 0 beyond that; higher is better. NaN where nothing was acquired
        or the step was not evaluated.

    Raises:
        GradlocError: As ``effectivity``, or no exposure is given.

    Example:
        >>> retainability([3.0, 1.0, 2.0, 3.0], injection_steps=0, t=[0, 1, 2])
        array([1. , 0.5, 0. ])
    """
    losses, steps = _series(losses, steps)
    exposures = _exposures(injection_steps)
    best = local_acquisition_maximum(losses, exposures[-1], window, steps=steps)
    before = _loss_before(losses, steps, exposures[0])
    acquired = before - losses[best]
    known = acquired != 0 if released else acquired > 0
    kept = before - _loss_at(losses, steps, steps[best] + np.asarray(t, float))
    return kept / acquired if known else np.full(np.shape(kept), np.nan)


def _series(losses: ArrayLike, steps: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    losses = np.asarray(losses, float)
    steps = np.arange(len(losses)) if steps is None else np.asarray(steps)
    if losses.ndim != 1 or losses.shape != steps.shape:
        raise GradlocError(
            f"losses of shape {losses.shape} and steps of shape {steps.shape} do not belong "
            "together; give one probe's losses, one for each evaluated step."
        )
    if np.any(np.diff(steps) <= 0):
        raise GradlocError("the evaluated steps must ascend, each step once; sort them.")
    return losses, steps


def _exposures(injection_steps: int | Iterable[int]) -> list[int]:
    exposures = sorted(int(step) for step in np.atleast_1d(np.asarray(injection_steps)))
    if not exposures:
        raise GradlocError("no injection step is given; retainability needs at least one.")
    return exposures


def _loss_before(losses: np.ndarray, steps: np.ndarray, injection_step: int) -> float:
    place = int(np.searchsorted(steps, injection_step, side="right")) - 1
    if place < 0:
        raise GradlocError(
            f"the first evaluated step is {steps[0] if len(steps) else 'missing'}, after the "
            f"injection at step {injection_step}; evaluate before it as well."
        )
    return losses[place]


def _loss_at(losses: np.ndarray, steps: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Losses at steps, NaN at those that were not evaluated."""
    place = np.clip(np.searchsorted(steps, wanted), 0, len(steps) - 1)
    return np.where(steps[place] == wanted, losses[place], np.nan)
