"""One parameter's per-sequence gradients, in whatever form they are known."""

from typing import Protocol

from torch import Tensor

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

    def squared(self) -> Tensor:  # noqa: D102 - see Part
        return self.gradients.flatten(1).square().sum(1)

    def inner(self, direction: Tensor) -> Tensor:  # noqa: D102
        return self.gradients.flatten(1) @ direction.float().flatten()

    def add_sum(self, total: Tensor) -> None:  # noqa: D102
        total += self.gradients.sum(0)


def combine(parts: list[Part]) -> Part | None:
    """One part of several uses of a parameter; ``None`` where it is not known how."""
    if len(parts) == 1:
        return parts[0]
    products = [call for part in parts if isinstance(part, Products) for call in part.calls]
    lookups = [call for part in parts if isinstance(part, Lookups) for call in part.calls]
    wholes = [part.gradients for part in parts if isinstance(part, Whole)]
    if wholes:
        return Whole(sum(wholes[1:], wholes[0])) if len(wholes) == len(parts) else None
    if products and lookups:
        return Tied(Lookups(lookups), Products(products))
    return Products(products) if products else Lookups(lookups)


def measure(part: Part, direction: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Squared norms and, where there is a direction, inner products, each (batch,)."""
    if direction is None:
        return part.squared(), None
    if isinstance(part, Products):
        return part.both(direction)
    return part.squared(), part.inner(direction)
