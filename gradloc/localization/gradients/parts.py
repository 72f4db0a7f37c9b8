"""One parameter's per-sequence gradients, in whatever form they are known."""

import functools
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from gradloc.localization.gradients.experts import Stacked
from gradloc.localization.gradients.factors import Lookups, Products, Tied


class Part(Protocol):
    """Gradients of one parameter from one or more calls, apart for every sequence."""

    def squared(self) -> Tensor:
        """Squared L2 norm of each sequence's gradient, (batch,)."""
        ...

    def inner(self, direction: Tensor) -> Tensor:
        """Inner product of each sequence's gradient with the direction, (batch,)."""
        ...

    def add_sum(self, total: Tensor) -> None:
        """Add the gradients of all sequences to a float32 tensor of the parameter's shape."""
        ...


class Whole:
    """Gradients of every sequence as they are: for small parameters (biases, norms).

    Args:
        gradients: float32, (batch, *shape of the parameter).
    """

    def __init__(self, gradients: Tensor):
        self.gradients = gradients

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.gradients)

    def squared(self) -> Tensor:  # noqa: D102 - see Part
        return self.gradients.flatten(1).square().sum(1)

    def inner(self, direction: Tensor) -> Tensor:  # noqa: D102
        return self.gradients.flatten(1) @ direction.float().flatten()

    def add_sum(self, total: Tensor) -> None:  # noqa: D102
        total += self.gradients.sum(0)


class OneByOne:
    """Gradients that are formed anew, one sequence at a time, whenever they are asked for.

    Args:
        calls: Iterables over the sequences' gradients, one for every call of the layer.
    """

    def __init__(self, calls: list):
        self.calls = calls

    def __iter__(self) -> Iterator[Tensor]:
        for gradients in zip(*self.calls, strict=True):
            yield functools.reduce(torch.add, (gradient.float() for gradient in gradients))

    def squared(self) -> Tensor:  # noqa: D102 - see Part
        return torch.stack([gradient.square().sum() for gradient in self])

    def inner(self, direction: Tensor) -> Tensor:  # noqa: D102
        direction = direction.float()
        return torch.stack([(gradient * direction).sum() for gradient in self])

    def both(self, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Squared norms and inner products, each gradient being formed once."""
        direction = direction.float()
        pairs = [(g.square().sum(), (g * direction).sum()) for g in self]
        squared, inner = zip(*pairs, strict=True)
        return torch.stack(squared), torch.stack(inner)

    def add_sum(self, total: Tensor) -> None:  # noqa: D102
        for gradient in self:
            total += gradient


def combine(parts: list[Part]) -> Part | None:
    """One part of several uses of a parameter; ``None`` where it is not known how."""
    if len(parts) == 1:
        return parts[0]
    products = [call for part in parts if isinstance(part, Products) for call in part.calls]
    lookups = [call for part in parts if isinstance(part, Lookups) for call in part.calls]
    others = [part for part in parts if not isinstance(part, Products | Lookups)]
    if others:
        can_be_formed = all(isinstance(part, Whole | OneByOne) for part in parts)
        return OneByOne(parts) if can_be_formed else None
    if products and lookups:
        return Tied(Lookups(lookups), Products(products))
    return Products(products) if products else Lookups(lookups)


def measure(part: Part, direction: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Squared norms and, where there is a direction, inner products, each (batch,)."""
    if direction is None:
        return part.squared(), None
    if isinstance(part, Products | OneByOne | Stacked):
        return part.both(direction)
    return part.squared(), part.inner(direction)
