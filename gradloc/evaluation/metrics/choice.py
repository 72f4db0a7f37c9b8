"""Which of several candidates a model prefers.

Comes in: the candidates' log-likelihoods, or logits with labels. Goes out: probabilities, choices
and accuracies (fractions of 0-1, higher is better). It runs no model.

References: Onoe et al. 2023 (Entity Inferences), arXiv:2305.01651; Warstadt et al. 2020
(BLiMP), arXiv:1912.00582; Clark et al. 2018 (ARC), arXiv:1803.05457.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gradloc.errors import GradlocError
from gradloc.evaluation.metrics.perplexity import IGNORED, label_nll


class TopOne(NamedTuple):
    """Accuracy before and after an update, of the same examples.

    Args:
        before: Share of examples whose likeliest candidate was right, 0-1, higher is better.
        after: The same after the update.
        n: Number of examples.
    """

    before: float
    after: float
    n: int


class SequenceLogProb(NamedTuple):
    """Log-probabilities of the labelled tokens of a batch.

    Args:
        acc: Share of sequences (or items) of which every labelled token is the likeliest, 0-1;
            higher is better.
        log_prob: Mean log-probability over all labelled tokens, nats; higher is better.
        prob: Mean of their probabilities, 0-1; higher is better.
        n_tokens: Number of labelled tokens.
        nll: ``-log_prob``; lower is better.
        log_prob_all: Log-probability of each token, 0 where there is no label, (..., seq - 1) or
            (...,) without shift.
    """

    acc: float
    log_prob: float
    prob: float
    n_tokens: int
    nll: float
    log_prob_all: np.ndarray


def candidate_probabilities(log_likelihoods: ArrayLike) -> np.ndarray:
    """The probability of each candidate where it must be one of them.

    Softmax of the log-likelihoods.

    Args:
        log_likelihoods: Sum over a candidate's tokens, nats, (..., n_candidates).

    Returns:
        Same shape, 0-1; each row sums to 1.

    Example:
        >>> candidate_probabilities(np.log([0.02, 0.06])).round(2)
        array([0.25, 0.75])
    """
    values = np.asarray(log_likelihoods, float)
    weights = np.exp(values - values.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


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
        right: Index or indices of the right candidates, or a boolean for each candidate. For a
            minimal pair of BLiMP: 0, with the grammatical sentence first.
        lengths: As in ``choose``.

    Returns:
        1 or 0; NaN where a log-likelihood is not a number, as nothing can be said then.

    Raises:
        GradlocError: As ``choose``, or no such candidate.

    Example:
        >>> choice_correct([-3.0, -1.0, -2.0], right=[1, 2])
        1.0
    """
    best = choose(log_likelihoods, lengths)
    values = np.asarray(log_likelihoods, float)
    is_right = _right_candidates(right, len(values))
    return float("nan") if np.isnan(values).any() else float(is_right[best])


def top1_accuracy(
    before: Sequence[ArrayLike], after: Sequence[ArrayLike], labels: Sequence[ArrayLike]
) -> TopOne:
    """How often the likeliest candidate is right, before and after an update.

    On the examples that the update is about, this is Entity Inferences' accuracy; on examples of
    other entities, its specificity.

    Args:
        before: Probability or log-likelihood of each candidate, an array an example.
        after: The same after the update.
        labels: Index or indices of the right candidates of each example; where there are
            several, any of them is right. An empty list: none of the candidates is right.

    Raises:
        GradlocError: There is no example, or the three do not belong together.

    Example:
        >>> top1_accuracy([[0.4, 0.6], [0.5, 0.5]], [[0.7, 0.3], [0.2, 0.8]], [0, [0, 1]])
        TopOne(before=0.5, after=1.0, n=2)
    """
    n = len(labels)
    if not n or len(before) != n or len(after) != n:
        raise GradlocError(
            f"{len(before)} examples before, {len(after)} after and {n} labels; give the same "
            "examples, at least one."
        )
    counts = [
        np.mean([choice_correct(scores, right) for scores, right in zip(side, labels, strict=True)])
        for side in (before, after)
    ]
    return TopOne(float(counts[0]), float(counts[1]), n)


def sequence_log_prob(
    logits: ArrayLike, labels: ArrayLike, *, shift: bool = True, released: bool = False
) -> SequenceLogProb:
    """What Entity Inferences and MEND report of a batch of labelled sequences.

    The means are over all labelled tokens of the batch: a long sequence counts more.

    Args:
        logits: (n_sequences, seq, vocab), or (n_items, vocab) with one label an item.
        labels: Token ids, (n_sequences, seq) or (n_items,); -100 marks a token that is not
            scored.
        shift: Whether the logits at a token predict the next one, as those of causal models.
            Without effect on single items.
        released: As the released code does, count a sequence without any label as right.
            Otherwise it does not count.

    Raises:
        GradlocError: Shapes that do not belong together, or no labelled token.

    Example:
        >>> found = sequence_log_prob([[[0.0, 0.0], [9.0, 0.0]]], [[0, 1]])
        >>> found.n_tokens, found.acc, round(found.nll, 4)
        (1, 0.0, 0.6931)
    """
    logits, labels = np.asarray(logits, float), np.asarray(labels)
    sequences = logits.ndim == 3
    if sequences and shift:
        logits, labels = logits[:, :-1], labels[:, 1:]
    log_prob_all = -label_nll(logits, labels)
    scored = labels != IGNORED
    n_tokens = int(scored.sum())
    if not n_tokens:
        raise GradlocError(
            f"every label is {IGNORED}, so there is nothing to score; label a token."
        )
    correct, counted = ~scored | (logits.argmax(axis=-1) == labels), scored
    if sequences:
        correct, counted = correct.all(axis=-1), scored.any(axis=-1)
    log_prob = float(log_prob_all[scored].mean())
    return SequenceLogProb(
        acc=float(correct.mean() if released else correct[counted].mean()),
        log_prob=log_prob,
        prob=float(np.exp(log_prob_all[scored]).mean()),
        n_tokens=n_tokens,
        nll=-log_prob,
        log_prob_all=np.where(scored, log_prob_all, 0.0),
    )


def _right_candidates(right: ArrayLike, n_candidates: int) -> np.ndarray:
    """A boolean for each candidate."""
    given = np.atleast_1d(np.asarray(right, dtype=None if np.size(right) else int))
    if given.dtype == bool:
        if given.shape != (n_candidates,):
            raise GradlocError(
                f"{n_candidates} candidates and {len(given)} marks of right ones; give a mark for "
                "each candidate, or the indices of the right ones."
            )
        return given
    if np.any((given < 0) | (given >= n_candidates)):
        raise GradlocError(
            f"right candidates {given.tolist()} of {n_candidates}; indices begin with 0."
        )
    found = np.zeros(n_candidates, bool)
    found[given] = True
    return found
