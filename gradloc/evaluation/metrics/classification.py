"""Classification by several models whose sets of classes differ.

Comes in: class probabilities of each model. Goes out: their mean over a common set of classes,
and balanced accuracy. It trains no classifier.

References: Kozal et al. 2022, arXiv:2206.11867.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from gradloc.errors import GradlocError


def expand_classes(
    probabilities: ArrayLike,
    n_classes: int,
    members: Sequence[Sequence[int]] | None = None,
    *,
    released: bool = False,
) -> np.ndarray:
    """Spread each class of a model evenly over the classes of a larger set that it stands for.

    Args:
        probabilities: (n_items, n_own), rows with sum 1.
        n_classes: Size of the larger set.
        members: For each of the model's classes, the classes it stands for, each once. With
            "real" and "fake" of two languages as (real 1, fake 1, real 2, fake 2), a model that
            knows "real" and "fake" only has [[0, 2], [1, 3]]. Not needed where nothing is to be
            spread.
        released: As the released code does, let class i stand for the i-th block of neighbours:
            [[0, 1], [2, 3]], which gives half of "real" to "fake" in the order above.

    Returns:
        (n_items, n_classes), rows with the same sums.

    Raises:
        GradlocError: It is not said which classes a class stands for, or not each exactly once.

    Example:
        >>> expand_classes([[0.6, 0.4]], 4, [[0, 2], [1, 3]])
        array([[0.3, 0.2, 0.3, 0.2]])
        >>> expand_classes([[0.6, 0.4]], 4, released=True)
        array([[0.3, 0.3, 0.2, 0.2]])
    """
    probabilities = np.atleast_2d(np.asarray(probabilities, float))
    n_own = probabilities.shape[1]
    if released and n_classes % n_own == 0:
        width = n_classes // n_own
        members = [range(own * width, (own + 1) * width) for own in range(n_own)]
    elif members is None and n_own == n_classes:
        members = [[own] for own in range(n_own)]
    given = [] if members is None else [place for group in members for place in group]
    if members is None or len(members) != n_own or sorted(given) != list(range(n_classes)):
        raise GradlocError(
            f"a model of {n_own} classes and a set of {n_classes}; say for each of its classes "
            f"which it stands for, each of the {n_classes} exactly once."
        )
    found = np.empty((len(probabilities), n_classes))
    for own, group in enumerate(members):
        found[:, list(group)] = probabilities[:, [own]] / len(group)
    return found


def average_probabilities(
    models: Sequence[ArrayLike],
    members: Sequence[Sequence[Sequence[int]] | None] | None = None,
    *,
    n_classes: int | None = None,
    released: bool = False,
) -> np.ndarray:
    """Mean of the class probabilities of several models.

    Args:
        models: Probabilities of each model, (n_items, its number of classes).
        members: For each model, as in ``expand_classes``; ``None`` for one that has all classes.
        n_classes: Size of the common set; ``None``: the largest of the models'.
        released: As in ``expand_classes``.

    Returns:
        (n_items, n_classes); the predicted class is the argmax of a row.

    Raises:
        GradlocError: As ``expand_classes``, or there is no model, or they saw other items.

    Example:
        >>> average_probabilities([[[1.0, 0.0]], [[0.5, 0.5]]])
        array([[0.75, 0.25]])
    """
    rows = [np.atleast_2d(np.asarray(model, float)) for model in models]
    if len({len(row) for row in rows}) != 1:
        raise GradlocError(
            f"models with {[len(row) for row in rows]} items; give every model's probabilities "
            "for the same items, of at least one model."
        )
    n_classes = n_classes or max(row.shape[1] for row in rows)
    members = [None] * len(rows) if members is None else members
    expanded = [
        expand_classes(row, n_classes, group, released=released)
        for row, group in zip(rows, members, strict=True)
    ]
    return np.mean(expanded, axis=0)


def balanced_accuracy(predicted: ArrayLike, gold: ArrayLike) -> float:
    """Mean over the classes that occur of the share of their items that are recognised.

    Args:
        predicted: Predicted classes, (n_items,).
        gold: Right classes, (n_items,).

    Returns:
        Fraction, 0-1; higher is better; 1 / number of classes by guessing.

    Raises:
        GradlocError: Not one prediction an item, or no item.

    Example:
        >>> balanced_accuracy([0, 0, 0, 0], [0, 0, 0, 1])
        0.5
    """
    predicted, gold = np.asarray(predicted), np.asarray(gold)
    if predicted.shape != gold.shape or not gold.size:
        raise GradlocError(
            f"{predicted.size} predictions of {gold.size} items; give one for each, at least one."
        )
    return float(np.mean([np.mean(predicted[gold == label] == label) for label in np.unique(gold)]))
