"""Gradients one sequence at a time, through ``.grad``: any model, and the slower way."""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from gradloc.localization.gradients.sequences import Workload, sequence_loss
from gradloc.models.units import Unit, parameters_of, unit_by_parameter
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


def mean_gradient(load: Workload, buffer_bytes: int) -> tuple[dict[str, Tensor], np.ndarray]:
    """Sign (int8) of the mean gradient of every parameter, and its L2 norm by unit, (n_units,).

    Args:
        load: The sequences whose gradients are averaged.
        buffer_bytes: Room for float32 sums; with less there are more passes.
    """
    model, units, sequences, advance = load
    signs: dict[str, Tensor] = {}
    squared = np.zeros(len(units))
    chunks = list(chunks_of(units, buffer_bytes))
    for chunk in chunks:
        wanted = {name: parameter for _, name, parameter in chunk}
        sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in wanted.items()}
        with on_gradient(wanted, lambda name, grad: sums[name].add_(grad)):  # noqa: B023
            for sequence in sequences:
                sequence_loss(model, sequence).backward()
                advance(1 / len(chunks))
        for index, name, _ in chunk:
            mean = sums.pop(name).div_(len(sequences))
            squared[index] += float(dot(mean, mean))
            signs[name] = torch.sign(mean).to(torch.int8)
    return signs, np.sqrt(squared)


def chunks_of(
    units: tuple[Unit, ...], buffer_bytes: int
) -> Iterator[list[tuple[int, str, nn.Parameter]]]:
    """Runs of (unit index, name, parameter) whose float32 sums fit in the buffer."""
    chunk, size = [], 0
    for index, unit in enumerate(units):
        for name, parameter in unit.parameters.items():
            n_bytes = 4 * parameter.numel()
            if chunk and size + n_bytes > buffer_bytes:
                yield chunk
                chunk, size = [], 0
            chunk.append((index, name, parameter))
            size += n_bytes
    if chunk:
        yield chunk


def per_sequence(load: Workload, signs: dict[str, Tensor] | None) -> tuple[np.ndarray, np.ndarray]:
    """Norms and inner products with the signs, each (n_sequences, n_units).

    Args:
        load: The sequences.
        signs: Direction of every parameter by name; ``None``: inner products are 0.
    """
    model, units, sequences, advance = load
    squared = np.zeros((len(sequences), len(units)))
    aligned = np.zeros((len(sequences), len(units)))
    unit_of = unit_by_parameter(units)
    row = 0

    def use(name: str, grad: Tensor) -> None:
        place, grad = (row, unit_of[name]), grad.float()
        squared[place] += float(dot(grad, grad))
        if signs is not None:
            aligned[place] += float(dot(grad, signs[name].to(torch.float32)))

    with on_gradient(parameters_of(units), use):
        for row, sequence in enumerate(sequences):  # noqa: B007 - `use` reads row
            sequence_loss(model, sequence).backward()
            advance(1)
    return np.sqrt(squared), aligned


def mean_and_per_sequence(
    load: Workload, buffer_bytes: int
) -> tuple[dict[str, Tensor], np.ndarray, np.ndarray, np.ndarray]:
    """Both of the above, the second with the signs of the first.

    Returns:
        Signs by parameter, norms of the mean by unit, norms and inner products by sequence and
        unit.
    """
    signs, means = mean_gradient(load, buffer_bytes)
    return signs, means, *per_sequence(load, signs)
