"""How surprised a model is by the tokens of an answer or text.

Comes in: logits with labels, or the negative log-likelihoods of tokens. Goes out: nats,
perplexities and bits per byte; lower is better throughout. It runs no model.

The means over examples, not over tokens, follow Onoe et al. 2022 (ECBD), arXiv:2205.02832: a
long answer counts as much as a short one.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gradloc.errors import GradlocError

# Label of a token that is not scored, as Transformers and torch have it.
IGNORED = -100


class GroupPerplexity(NamedTuple):
    """Perplexity of one group of examples.

    Args:
        perplexity: exp of the mean over its examples of the mean token NLL; lower is better.
        n: Number of its examples.
    """

    perplexity: float
    n: int


def token_nll(logits: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Negative log-likelihood of every token but the first, given those before it.

    Args:
        logits: Logits of a causal model, (..., seq, vocab).
        labels: Token ids, (..., seq); -100 marks a token that is not scored.

    Returns:
        Nats, (..., seq - 1): column i belongs to token i + 1. NaN where the label is -100.

    Raises:
        GradlocError: Shapes that do not belong together, or a label outside the vocabulary.

    Example:
        >>> token_nll([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], [0, 1, -100]).round(4)
        array([0.6931,    nan])
    """
    return label_nll(np.asarray(logits, float)[..., :-1, :], np.asarray(labels)[..., 1:])


def label_nll(logits: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Negative log-likelihood of each label under the logits in the same place.

    Args:
        logits: (..., vocab).
        labels: Token ids, (...); -100 marks one that is not scored.

    Returns:
        Nats, (...); NaN where the label is -100.

    Raises:
        GradlocError: Shapes that do not belong together, or a label outside the vocabulary.
    """
    logits, labels = np.asarray(logits, float), np.asarray(labels)
    if logits.shape[:-1] != labels.shape:
        raise GradlocError(
            f"logits of shape {logits.shape} and labels of shape {labels.shape} do not belong "
            "together; give logits (..., vocab) and as many labels (...)."
        )
    scored = labels != IGNORED
    if np.any(scored & ((labels < 0) | (labels >= logits.shape[-1]))):
        raise GradlocError(
            f"labels reach from {labels[scored].min()} to {labels[scored].max()}, but the logits "
            f"have a vocabulary of {logits.shape[-1]} tokens; mark tokens to skip with {IGNORED}."
        )
    top = logits.max(axis=-1, keepdims=True)
    total = np.log(np.sum(np.exp(logits - top), axis=-1)) + top[..., 0]
    at_label = np.take_along_axis(logits, np.where(scored, labels, 0)[..., None], axis=-1)[..., 0]
    return np.where(scored, total - at_label, np.nan)


def span_of(n_left: int, n_right: int, n_total: int) -> slice:
    """Which tokens of a sequence are the masked span between two contexts.

    Args:
        n_left: Tokens before the span.
        n_right: Tokens after it.
        n_total: Tokens of the whole sequence.

    Returns:
        Slice of the tokens, ``n_left`` to ``n_total - n_right``. In the result of ``token_nll``,
        which begins with the second token, the span stands one place further left.

    Raises:
        GradlocError: Nothing stands before the span, so its first token cannot be predicted, or
            no token is left for it.

    Example:
        >>> span_of(n_left=2, n_right=2, n_total=6)
        slice(2, 4, None)
    """
    if n_left < 1:
        raise GradlocError(
            "the span begins with the first token, which no causal model predicts; put the "
            "model's start token before it."
        )
    stop = n_total - n_right
    if n_right < 0 or stop <= n_left:
        raise GradlocError(
            f"{n_left} tokens before and {n_right} after leave no span in {n_total} tokens; "
            "tokens that join the span to its context belong to the span."
        )
    return slice(n_left, stop)


def example_means(token_nlls: Sequence[ArrayLike]) -> np.ndarray:
    """Mean negative log-likelihood of each example's tokens, nats per token, (n_examples,).

    Args:
        token_nlls: Nats of each example's tokens; examples differ in length.

    Raises:
        GradlocError: There is no example, or one without a token.
    """
    examples = [np.asarray(example, float).ravel() for example in token_nlls]
    empty = [place for place, example in enumerate(examples) if not example.size]
    if empty or not examples:
        what = f"example {empty[0]} has no token" if empty else "there is no example"
        raise GradlocError(f"{what}, so it has no mean; leave out what was not scored.")
    return np.array([example.mean() for example in examples])


def corpus_perplexity(token_nlls: Sequence[ArrayLike]) -> float:
    """Perplexity of examples: exp(mean over examples of the mean token NLL).

    Neither weighted by tokens nor a mean of perplexities.

    Args:
        token_nlls: Nats of each example's tokens; examples differ in length.

    Returns:
        Perplexity, 1 at best; lower is better.

    Raises:
        GradlocError: There is no example, or one without a token.

    References:
        Onoe et al. 2022 (ECBD), arXiv:2205.02832.

    Example:
        >>> round(corpus_perplexity([[1.0, 3.0], [0.5]]), 4) == round(float(np.exp(1.25)), 4)
        True
    """
    return float(np.exp(example_means(token_nlls).mean()))


def macro_perplexity(mean_nlls: ArrayLike, groups: Sequence[Hashable]) -> float:
    """Perplexity in which each group (an entity, a page) counts the same.

    exp(mean over groups of the mean over their examples of the mean token NLL).

    Args:
        mean_nlls: Mean token NLL of each example, nats, (n_examples,).
        groups: Group of each example, (n_examples,).

    Returns:
        Perplexity, 1 at best; lower is better.

    Raises:
        GradlocError: There is no example, or not one group an example.
    """
    means = [np.mean(values) for values in _by_group(mean_nlls, groups).values()]
    return float(np.exp(np.mean(means)))


def by_type(mean_nlls: ArrayLike, types: Sequence[Hashable]) -> dict[Hashable, GroupPerplexity]:
    """Perplexity of the examples of each type (noun phrase, random span) apart.

    Args:
        mean_nlls: Mean token NLL of each example, nats, (n_examples,).
        types: Type of each example, (n_examples,).

    Returns:
        Type -> perplexity and number of examples, in the order in which types first occur.

    Raises:
        GradlocError: There is no example, or not one type an example.
    """
    return {
        name: GroupPerplexity(float(np.exp(np.mean(values))), len(values))
        for name, values in _by_group(mean_nlls, types).items()
    }


def triple_perplexity(
    token_nlls: Sequence[ArrayLike], *, released: bool = False, batch_size: int = 1
) -> float:
    """Perplexity of TemporalWiki's triples, or of their objects alone.

    Args:
        token_nlls: Nats of the scored tokens of each triple: of its object, or of all of
            "subject relation object", which is what the released code scores.
        released: As the released code does, average the tokens of each batch, then the batches.
            The value then changes with batch size and order. Otherwise ``corpus_perplexity``.
        batch_size: Triples in a batch, in the given order; only with ``released``.

    Returns:
        Perplexity, 1 at best; lower is better.

    Raises:
        GradlocError: There is no triple, one without a token, or a batch size below 1.

    References:
        Jang et al. 2022 (TemporalWiki), arXiv:2204.14211.
    """
    if not released:
        return corpus_perplexity(token_nlls)
    if batch_size < 1:
        raise GradlocError(f"batch_size is {batch_size}; give the number of triples in a batch.")
    example_means(token_nlls)  # refuses what has no mean
    batches = range(0, len(token_nlls), batch_size)
    means = [np.mean(np.concatenate(token_nlls[at : at + batch_size])) for at in batches]
    return float(np.exp(np.mean(means)))


def bits_per_byte(nats: ArrayLike, n_bytes: ArrayLike) -> float:
    """Bits that a model needs for a byte of text, whatever its tokenizer; lower is better.

    sum of nats / (ln 2 * sum of bytes): over all texts together, since a byte is a byte.

    Args:
        nats: Summed negative log-likelihood of each text, (n_texts,), or of all.
        n_bytes: UTF-8 bytes that the scored tokens stand for, (n_texts,), or of all.

    Raises:
        GradlocError: There is no byte.

    Example:
        >>> round(bits_per_byte([4.0, 2.0], [8, 4]), 4)
        0.7213
    """
    total = float(np.sum(n_bytes))
    if total <= 0:
        raise GradlocError(f"the texts have {total:g} bytes; bits per byte need at least one.")
    return float(np.sum(nats) / (np.log(2) * total))


def _by_group(values: ArrayLike, groups: Sequence[Hashable]) -> dict[Hashable, list[float]]:
    values = np.asarray(values, float)
    if values.ndim != 1 or not len(values) or len(values) != len(groups):
        raise GradlocError(
            f"{values.size} values and {len(groups)} groups; give one group for each example, "
            "and at least one example."
        )
    found: dict[Hashable, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        found.setdefault(group, []).append(value)
    return found
