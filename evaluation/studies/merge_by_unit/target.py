"""The target that the scales are solved for, so that the true uptake is large enough."""

from collections.abc import Callable

import numpy as np

# The search for the target ends when the kept share is above what was asked for by no more than
# this, or after so many bisections. assumption: a hundredth of the uptake is below its noise.
CLOSE = 0.01
BISECTIONS = 4


def lowest_target(
    solve: Callable[[float], np.ndarray],
    share: Callable[[np.ndarray], float],
    min_uptake: float,
    gains: np.ndarray,
) -> tuple[np.ndarray, float, float, list[str]]:
    """The lowest target whose solution is seen to keep enough.

    Args:
        solve: Target, as a share of the summed gains -> scales, (n_units,).
        share: Scales -> share of the uptake that is kept by the true loss.
        min_uptake: Share to keep at least.
        gains: The units' gains, (n_units,); without the negative ones, more than all is there.

    Returns:
        Scales, target, share kept, warnings. Where no target tried keeps enough: the tuned model
        as it is, with a warning.
    """
    low, high = 0.0, float(gains[gains > 0].sum() / gains.sum())
    target, best = min_uptake, None
    for _ in range(1 + BISECTIONS):
        scales = solve(target)
        kept = share(scales)
        if kept >= min_uptake:
            best, high = (scales, target, kept), target
            if kept <= min_uptake + CLOSE:
                break
        else:
            low = target
        target = (low + high) / 2
    if best is None:
        warning = (
            f"no solution keeps {min_uptake:.0%} of the uptake by the true loss, so all changes "
            "stay whole. Ask for a smaller min_uptake, or interpolate uniformly."
        )
        return np.ones(len(gains)), 1.0, 1.0, [warning]
    return *best, []
