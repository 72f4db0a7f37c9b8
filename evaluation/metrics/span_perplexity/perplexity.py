"""How surprised a model is by the tokens of an answer or text.

Lower is better throughout. Means are over examples, not over tokens, as in Onoe et al. 2022 (ECBD),
arXiv:2205.02832: a long answer counts as much as a short one.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gradloc.errors import GradlocError


class GroupPerplexity(NamedTuple):
    """Perplexity of one group of examples.

    Args:
        perplexity: exp of the mean over its examples of the mean token NLL; lower is better.
        n: Number of its examples.
    """

    perplexity: float
    n: int


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
