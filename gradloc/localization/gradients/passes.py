"""The passes over sequences: norms, inner products and signs by unit."""

from collections.abc import Iterator
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor, nn

from gradloc.localization.gradients.batching import MicroBatch, micro_batches
from gradloc.localization.gradients.capture import Capture
from gradloc.localization.gradients.one_at_a_time import OneAtATime
from gradloc.localization.gradients.parts import Part, measure
from gradloc.localization.gradients.sequences import Workload
from gradloc.models.units import Unit, parameters_of, unit_by_parameter
from gradloc.models.wrappers import output_head
from gradloc.utils.sums import dot


class _Table:
    """Squared norms and inner products by sequence and parameter; read back at the end.

    Both are written into one tensor as they come. Kept apart they would be small tensors that lie
    between the large ones of the passes, and the heap could not shrink below them: measured, 1 MiB
    a sequence.
    """

    def __init__(self, units: tuple[Unit, ...], n_sequences: int):
        parameters = parameters_of(units)
        self._n_units, self._unit_of = len(units), unit_by_parameter(units)
        self._column = {name: column for column, name in enumerate(parameters)}
        device = next(iter(parameters.values())).device
        shape = (2, len(parameters), n_sequences)
        self._found = torch.zeros(shape, device=device)

    def add(self, name: str, batch: MicroBatch, part: Part, direction: Tensor | None) -> None:
        for kind, values in enumerate(measure(part, direction)):
            if values is not None:
                self._found[kind, self._column[name], batch.rows] = values

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Norms and inner products, each (n_sequences, n_units)."""
        found = self._found.cpu().numpy()
        squared, aligned = np.zeros((2, found.shape[2], self._n_units))
        for name, column in self._column.items():
            squared[:, self._unit_of[name]] += found[0, column]
            aligned[:, self._unit_of[name]] += found[1, column]
        # A sum of products that is zero but for rounding may come out below it.
        return np.sqrt(np.maximum(squared, 0.0)), aligned


def per_sequence(load: Workload, signs: dict[str, Tensor] | None) -> tuple[np.ndarray, np.ndarray]:
    """Norms and inner products with the signs, each (n_sequences, n_units).

    Args:
        load: The sequences.
        signs: Direction of every parameter by name; ``None``: inner products are 0.
    """
    table = _Table(load.units, len(load.sequences))
    with _hooked(load, parameters_of(load.units)) as capture:
        for batch in _batches(load):
            capture.run(
                batch,
                lambda name, part: table.add(name, batch, part, signs[name] if signs else None),  # noqa: B023
            )
            load.advance(len(batch.rows))
    return table.arrays()


def mean_gradient(load: Workload, buffer_bytes: int) -> tuple[dict[str, Tensor], np.ndarray]:
    """Sign (int8) of the mean gradient of every parameter, and its L2 norm by unit, (n_units,).

    Args:
        load: The sequences whose gradients are averaged.
        buffer_bytes: Room for float32 sums; with less there are more passes.
    """
    signs: dict[str, Tensor] = {}
    squared = np.zeros(len(load.units))
    batches = _batches(load)
    chunks = list(_chunks_of(load.units, buffer_bytes))
    for chunk in chunks:
        wanted = {name: parameter for _, name, parameter in chunk}
        sums = {name: _zeros(parameter) for name, parameter in wanted.items()}
        with _hooked(load, wanted) as capture:
            for batch in batches:
                capture.run(batch, lambda name, part: part.add_sum(sums[name]))  # noqa: B023
                load.advance(len(batch.rows) / len(chunks))
        for index, name, _ in chunk:
            signs[name], square = _sign_and_square(sums.pop(name), len(load.sequences))
            squared[index] += float(square)
    return signs, np.sqrt(squared)


def mean_and_per_sequence(
    load: Workload, buffer_bytes: int
) -> tuple[dict[str, Tensor], np.ndarray, np.ndarray, np.ndarray]:
    """What ``mean_gradient`` and ``per_sequence`` with its signs give, from one pass if it fits.

    In the last micro-batch a layer's mean gradient is known as soon as the layer has been met, and
    the parts of all earlier micro-batches are measured then. They are kept until then, where
    there is room for them.

    Returns:
        Signs by parameter, norms of the mean by unit, norms and inner products by sequence and
        unit.
    """
    units, batches = load.units, _batches(load)
    if load.one_at_a_time or _kept_bytes(load.model, units, batches[:-1]) > buffer_bytes:
        signs, means = mean_gradient(load, buffer_bytes)
        return signs, means, *per_sequence(load, signs)

    wanted, unit_of = parameters_of(units), unit_by_parameter(units)
    kept: dict[str, list[tuple[MicroBatch, Part]]] = {name: [] for name in wanted}
    table, squares = _Table(units, len(load.sequences)), []
    signs = {name: torch.zeros_like(p, dtype=torch.int8) for name, p in wanted.items()}

    def settle(name: str) -> None:
        parts = kept.pop(name)
        if not parts:
            return
        total = _zeros(wanted[name])
        for _, part in parts:
            part.add_sum(total)
        sign, square = _sign_and_square(total, len(load.sequences))
        signs[name].copy_(sign)
        squares.append((unit_of[name], square))
        direction = total.sign_()
        for batch, part in parts:
            table.add(name, batch, part, direction)

    with _hooked(load, wanted) as capture:
        for batch in batches:
            is_last = batch is batches[-1]

            def use(name: str, part: Part, batch=batch, is_last=is_last) -> None:
                kept[name].append((batch, part))
                if is_last:
                    settle(name)

            capture.run(batch, use)
            load.advance(2 * len(batch.rows))
    for name in list(kept):  # what the last micro-batch did not meet
        settle(name)
    means = np.zeros(len(units))
    for index, square in squares:
        means[index] += float(square)
    return signs, np.sqrt(means), *table.arrays()


def _hooked(
    load: Workload, wanted: dict[str, nn.Parameter]
) -> AbstractContextManager[Capture | OneAtATime]:
    return (OneAtATime if load.one_at_a_time else Capture)(load.model, wanted).hooked()


def _batches(load: Workload) -> list[MicroBatch]:
    return micro_batches(load.sequences, tokens=1 if load.one_at_a_time else None)


def _chunks_of(
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


def _zeros(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter, dtype=torch.float32, requires_grad=False)


def _sign_and_square(total: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Sign of a sum of gradients (int8), and the squared norm of their mean."""
    square = dot(total, total) / n**2
    return torch.sign(total).to(torch.int8), square


def _kept_bytes(model: nn.Module, units: tuple[Unit, ...], batches: list[MicroBatch]) -> int:
    """Room that inputs and output gradients of all layers take in some micro-batches."""
    head = output_head(model).weight
    size = 0
    for parameter in parameters_of(units).values():
        rows = sum(len(b.positions) if parameter is head else b.input_ids.numel() for b in batches)
        size += rows * sum(parameter.shape[-2:]) * parameter.element_size()
    return size
