"""Which of several candidates a model prefers.

References: Onoe et al. 2023 (Entity Inferences), arXiv:2305.01651; Warstadt et al. 2020
(BLiMP), arXiv:1912.00582; Clark et al. 2018 (ARC), arXiv:1803.05457.
"""

import numpy as np
from numpy.typing import ArrayLike

from gradloc.errors import GradlocError


def choose(log_likelihoods: ArrayLike, lengths: ArrayLike | None = None) -> int:
    """Index of the likeliest candidate; of equals, the first.

    Args:
        log_likelihoods: Sum over a candidate's tokens, nats, (n_candidates,). One that is not a
            number is never the likeliest.
        lengths: What each is divided by, such as the candidate's characters; ``None``: the plain
            sum decides, which favours short candidates.

    Raises:
        GradlocError: There is no candidate, or not one positive length for each.

    Example:
        >>> choose([-4.0, -6.0]), choose([-4.0, -6.0], lengths=[4, 12])
        (0, 1)
    """
    values = np.asarray(log_likelihoods, float)
    if values.ndim != 1 or not values.size:
        raise GradlocError(
            f"log-likelihoods of shape {values.shape}; give one number for each candidate, "
            "and at least one candidate."
        )
    if lengths is not None:
        lengths = np.asarray(lengths, float)
        if lengths.shape != values.shape or np.any(lengths <= 0):
            raise GradlocError(
                f"{len(values)} candidates and lengths {lengths.tolist()}; give one positive "
                "length for each candidate."
            )
        values = values / lengths
    return int(np.argmax(np.where(np.isnan(values), -np.inf, values)))


def choice_correct(
    log_likelihoods: ArrayLike, right: ArrayLike, lengths: ArrayLike | None = None
) -> float:
    """1 where the likeliest candidate is a right one, 0 where it is not.

    Args:
        log_likelihoods: Sum over a candidate's tokens, nats, (n_candidates,).
        right: Index or indices of the right candidates. For a minimal pair of BLiMP: 0, with the
            grammatical sentence first.
        lengths: As in ``choose``.

    Returns:
        1 or 0; NaN where a log-likelihood is not a number, as nothing can be said then.

    Raises:
        GradlocError: As ``choose``, or no such candidate.

    Example:
        >>> choice_correct([-3.0, -1.0, -2.0], right=[1, 2])
        1.0
    """
    best, values = choose(log_likelihoods, lengths), np.asarray(log_likelihoods, float)
    given = np.atleast_1d(np.asarray(right, dtype=None if np.size(right) else int))
    # True is also the number 1: marks must not be taken for indices.
    if given.dtype == bool or np.any((given < 0) | (given >= len(values))):
        raise GradlocError(
            f"right candidates {given.tolist()} of {len(values)}; give their indices, which begin "
            "with 0."
        )
    return float("nan") if np.isnan(values).any() else float(best in given)
