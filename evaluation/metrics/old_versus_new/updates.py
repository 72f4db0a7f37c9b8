"""Whether a model has taken over an answer that changed.

References: Kim et al. 2024 (EvolvingQA), arXiv:2311.08106.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gradloc.errors import GradlocError
from gradloc.evaluation.metrics.matching import exact_match, token_f1


class OldAndNew(NamedTuple):
    """Match of what a model writes with the outdated and the updated answers.

    Args:
        old_exact_match: Exact match with an outdated answer, 0-1; lower is better.
        old_f1: Overlap of words with an outdated answer, 0-1; lower is better.
        new_exact_match: Exact match with an updated answer, 0-1; higher is better.
        new_f1: Overlap of words with an updated answer, 0-1; higher is better.
    """

    old_exact_match: float
    old_f1: float
    new_exact_match: float
    new_f1: float


def prefers_updated(updated_log_probs: ArrayLike, outdated_log_probs: ArrayLike) -> np.ndarray:
    """1 where the updated answer is likelier than the outdated one, else 0.

    A tie counts for the outdated answer: nothing has changed there.

    Args:
        updated_log_probs: Log-probability of each updated answer, the answer given
            (teacher-forced), (n_questions,). Give the mean over the answer's tokens where the two
            answers may differ in length: a sum favours the shorter one.
        outdated_log_probs: The same of the outdated answers, (n_questions,).

    Returns:
        (n_questions,), higher is better; NaN where one of the two is not a number.

    Raises:
        GradlocError: Not one of each for every question.

    Example:
        >>> prefers_updated([-1.0, -2.0], [-1.5, -2.0])
        array([1., 0.])
    """
    updated, outdated = np.asarray(updated_log_probs, float), np.asarray(outdated_log_probs, float)
    if updated.shape != outdated.shape:
        raise GradlocError(
            f"{updated.size} updated and {outdated.size} outdated answers; give one of each for "
            "every question."
        )
    known = ~(np.isnan(updated) | np.isnan(outdated))
    return np.where(known, (updated > outdated).astype(float), np.nan)


def match_old_and_new(
    prediction: str,
    outdated: str | Sequence[str],
    updated: str | Sequence[str],
    *,
    released: bool = False,
) -> OldAndNew:
    """Exact match and F1 of what a model writes, against both answers.

    Args:
        prediction: What the model wrote.
        outdated: Answer or answers that were right before.
        updated: Answer or answers that are right now.
        released: As in ``matching.normalize_answer``.

    Raises:
        GradlocError: There is no outdated or no updated answer.

    Example:
        >>> match_old_and_new("the new capital", "Jakarta", "Nusantara, the new capital").new_f1
        0.8
    """
    return OldAndNew(
        old_exact_match=exact_match(prediction, outdated, released=released),
        old_f1=token_f1(prediction, outdated, released=released),
        new_exact_match=exact_match(prediction, updated, released=released),
        new_f1=token_f1(prediction, updated, released=released),
    )
