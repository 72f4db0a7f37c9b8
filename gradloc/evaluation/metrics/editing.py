"""The four numbers of knowledge editing: success, portability, locality and fluency.

References: Zhang et al. 2024 (KnowEdit), arXiv:2401.01286; Meng et al. 2022 (ROME),
arXiv:2202.05262, for fluency.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from gradloc.errors import GradlocError

# n of the n-grams -> weight of their entropy. arXiv:2401.01286, released code.
FLUENCY_WEIGHTS = {2: 2 / 3, 3: 4 / 3}


def token_accuracy(predicted: ArrayLike, gold: ArrayLike) -> float:
    """Share of an answer's tokens that are the likeliest, those before them given.

    Edit success where the prompt is the edit's own; portability where it asks for what follows
    from the edit. A partly right answer gets partial credit.

    Args:
        predicted: Likeliest token at each place of the answer, (n_tokens,).
        gold: The answer's tokens, (n_tokens,).

    Returns:
        Fraction, 0-1; higher is better.

    Raises:
        GradlocError: Not one prediction a token, or no token.

    Example:
        >>> token_accuracy([7, 9, 1], [7, 9, 4]) == 2 / 3
        True
    """
    return _share_of_equal(predicted, gold, "predicted and right")


def agreement(post_ids: ArrayLike, pre_ids: ArrayLike) -> float:
    """Share of places where a model's likeliest token is still that of the unedited model.

    Locality: whether the tokens are right does not matter, only whether they changed.

    Args:
        post_ids: Likeliest token at each place of the answer, after the edit, (n_tokens,).
        pre_ids: The same of the pristine model, (n_tokens,).

    Returns:
        Fraction, 0-1; higher is better; 1 for the unedited model itself.

    Raises:
        GradlocError: Not the same number of tokens, or none.

    Example:
        >>> agreement(post_ids=[7, 10], pre_ids=[7, 9])
        0.5
    """
    return _share_of_equal(post_ids, pre_ids, "later and earlier")


def ngram_entropy(tokens: Sequence[Hashable], n: int) -> float:
    """Entropy of the n-grams of a text, in bits.

    Args:
        tokens: The text's words or tokens, in order.
        n: Length of the n-grams.

    Returns:
        Bits; 0 where all n-grams are the same one, or where the text has fewer than n tokens.

    Example:
        >>> ngram_entropy("a b a b".split(), 2) == ngram_entropy("c d c d".split(), 2)
        True
        >>> ngram_entropy("a a a a".split(), 2), ngram_entropy("a b c".split(), 2)
        (0.0, 1.0)
    """
    grams = Counter(tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1))
    counts = np.array(list(grams.values()), float)
    shares = counts / counts.sum() if len(counts) else counts
    return float(-np.sum(shares * np.log2(shares))) + 0.0  # not -0.0


def fluency(
    texts: Sequence[str], tokenize: Callable[[str], Sequence[Hashable]] = str.split
) -> float:
    """How little a model repeats itself: weighted entropy of two- and three-word sequences.

    Mean over texts of (2/3 H_2 + 4/3 H_3) / 2, with H_n the entropy of the text's n-grams. It
    grows with the length of the text, so compare texts of the same length only. KnowEdit's
    tables show 100 times this value, of texts of 100 tokens.

    Args:
        texts: What the model wrote.
        tokenize: Text -> words. KnowEdit uses ``nltk.word_tokenize``, which parts punctuation
            from words; white space needs no data to be installed and gives the same for plain
            words.

    Returns:
        Bits, 0 or more; higher is better, up to the entropy of good prose: random words have
        more.

    Raises:
        GradlocError: There is no text.

    Example:
        >>> fluency(["a a a a a"]), round(fluency(["the cat sat on the mat"]), 4)
        (0.0, 2.1073)
    """
    if isinstance(texts, str) or not len(texts):
        raise GradlocError("fluency needs a list of at least one text.")
    values = []
    for text in texts:
        tokens = list(tokenize(text))
        values.append([weight * ngram_entropy(tokens, n) for n, weight in FLUENCY_WEIGHTS.items()])
    return float(np.mean(values))


def case_weights(cases: Sequence[Hashable], kinds: Sequence[Hashable]) -> np.ndarray:
    """Weights that average items as KnowEdit does.

    The weighted sum of values is: mean within each sub-type of a case, then over the case's
    sub-types, then over cases. A case with many questions of one kind counts as any other.

    Args:
        cases: Case (edit) of each item, (n_items,).
        kinds: Sub-type of each item, such as ``Reasoning``, (n_items,).

    Returns:
        (n_items,), positive, with sum 1.

    Raises:
        GradlocError: Not one case and one kind for each item, or no item.

    Example:
        >>> case_weights(["a", "a", "a", "b"], ["x", "x", "y", "x"]).tolist()
        [0.125, 0.125, 0.25, 0.5]
    """
    if len(cases) != len(kinds) or not len(cases):
        raise GradlocError(
            f"{len(cases)} cases and {len(kinds)} kinds; give one of each for every item."
        )
    pairs = list(zip(cases, kinds, strict=True))
    n_items = Counter(pairs)
    n_kinds = Counter(case for case, _ in n_items)
    weights = [1 / (len(n_kinds) * n_kinds[case] * n_items[case, kind]) for case, kind in pairs]
    return np.array(weights)


def _share_of_equal(left: ArrayLike, right: ArrayLike, names: str) -> float:
    left, right = np.asarray(left), np.asarray(right)
    if left.shape != right.shape or left.ndim != 1 or not left.size:
        raise GradlocError(
            f"{names} tokens of shapes {left.shape} and {right.shape}; give two rows of the same "
            "length, at least one token long."
        )
    return float(np.mean(left == right))
