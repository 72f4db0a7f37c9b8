"""Gradients one sequence at a time, through ``.grad``: any model, and the slower way."""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from gradloc.localization.gradients.batching import MicroBatch
from gradloc.localization.gradients.parts import Part
from gradloc.models.logits import logits_at
from gradloc.utils.sums import dot


@contextmanager
def on_gradient(
    wanted: Mapping[str, nn.Parameter], use: Callable[[str, Tensor], object]
) -> Iterator[None]:
    """Hand each parameter's gradient to ``use`` as soon as it is whole, then free it.

    A tied parameter's gradient arrives once, summed over all its uses.
    """

    def hand_on(name: str, parameter: nn.Parameter) -> None:
        if parameter.grad is not None:
            use(name, parameter.grad)
        parameter.grad = None

    handles = []
    try:
        for name, parameter in wanted.items():
            parameter.requires_grad_(True)
            hook = functools.partial(hand_on, name)
            handles.append(parameter.register_post_accumulate_grad_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter in wanted.values():
            parameter.requires_grad_(False)
            parameter.grad = None


class Single:
    """The gradient of one sequence, as it is."""

    def __init__(self, gradient: Tensor):
        self.gradient = gradient

    def squared(self) -> Tensor:  # noqa: D102 - see parts.Part
        return dot(self.gradient, self.gradient)[None]

    def inner(self, direction: Tensor) -> Tensor:  # noqa: D102
        return dot(self.gradient, direction.float())[None]

    def add_sum(self, total: Tensor) -> None:  # noqa: D102
        total += self.gradient


class OneAtATime:
    """Stands in for ``Capture`` where a layer is not known; a batch holds one sequence."""

    def __init__(self, model: nn.Module, wanted: dict[str, nn.Parameter]):
        self.model, self.wanted = model, wanted

    def run(self, batch: MicroBatch, use: Callable[[str, Part], object]) -> None:
        """One forward and backward pass; ``use`` is called once for every parameter met."""
        with on_gradient(self.wanted, lambda name, grad: use(name, Single(grad.float()))):
            logits = logits_at(self.model, batch.input_ids, batch.positions)
            nn.functional.cross_entropy(logits[0].float(), batch.targets).backward()

    @contextmanager
    def hooked(self) -> Iterator["OneAtATime"]:
        """Nothing stays hooked between passes."""
        yield self
