"""FUAR: what is forgotten for each thing that is learned.

References: Jang et al. 2022 (CKL), arXiv:2110.03215, equation 1.
"""

from numbers import Real

import numpy as np
from numpy.typing import ArrayLike

from gradloc.errors import GradlocError

Pair = tuple[ArrayLike, ArrayLike]


def fuar(invariant: Pair, updated: Pair, new: Pair) -> float | None:
    """Forgotten / (updated + acquired) ratio.

    sum_i max(0, before_i - after_i) of the invariant knowledge, divided by
    sum_i [max(0, after_i - before_i) of the updated + the same of the new knowledge].

    The sums run over the earlier models LM_0 ... LM_(n-1) that the last one, LM_n, is compared
    with; one training stage has one of them. For several stages:

    - ``invariant``: ``before_i`` is the score of LM_i on what had to be kept from stage i on,
      ``after_i`` that of LM_n on the same probes.
    - ``updated`` and ``new``: probes of the last stage throughout; ``before_i`` is the score of
      LM_i, ``after_i`` that of LM_n, the same for all i.

    Args:
        invariant: (before, after), each a number or (n_stages,); any score of which more is
            better, all three in the same unit. ``None`` or NaN: not determined, left out.
        updated: (before, after), in the same form.
        new: (before, after), in the same form.

    Returns:
        0: nothing was forgotten; 1: as much was forgotten as gained; lower is better. ``None``
        where nothing was gained, so that there is nothing to set the forgetting against.

    Raises:
        GradlocError: Not one score before and one after for each stage.

    Example:
        >>> round(fuar(invariant=(24.17, 12.89), updated=(1.62, 10.17), new=(1.88, 3.77)), 4)
        1.0805
        >>> fuar(invariant=([20.0, 22.0], [18.0, 21.0]), updated=([1, 4], 7), new=([0, 1], [2, 2]))
        0.25
        >>> fuar(invariant=(20.0, 10.0), updated=(5.0, 5.0), new=(3.0, 1.0)) is None
        True
    """
    gaps = {
        name: _gaps(name, pair)
        for name, pair in (("invariant", invariant), ("updated", updated), ("new", new))
    }
    if len({len(stages) for stages in gaps.values()}) > 1:
        counts = ", ".join(f"{name} {len(stages)}" for name, stages in gaps.items())
        raise GradlocError(
            f"numbers of stages differ: {counts}; give every score for every stage, None where "
            "it is not determined."
        )
    gained = _positive_part(gaps["updated"]) + _positive_part(gaps["new"])
    return _positive_part(-gaps["invariant"]) / gained if gained > 0 else None


def _positive_part(gaps: np.ndarray) -> float:
    # NaN, a score that is not determined, is not above 0 and so has no part in the sum.
    return float(np.sum(gaps[gaps > 0]))


def _gaps(name: str, pair: Pair) -> np.ndarray:
    """Score after - score before of each stage, NaN where it is not determined."""
    if isinstance(pair, (str, Real)) or len(pair) != 2:
        raise GradlocError(f"{name} scores are {pair!r}; give a pair (before, after).")
    before, after = (np.atleast_1d(np.asarray(side, float)) for side in pair)
    try:
        before, after = np.broadcast_arrays(before, after)
    except ValueError:
        raise GradlocError(
            f"{name}: {before.size} scores before and {after.size} after; give one of each for "
            "every stage, or one that holds for all."
        ) from None
    return after - before
