"""Inputs and output gradients of layers, handed on as soon as a parameter's uses are complete."""

import itertools
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from gradloc.localization.gradients.batching import MicroBatch, logits_and_gradient
from gradloc.localization.gradients.factors import Rows
from gradloc.localization.gradients.layers import (
    Call,
    UnknownLayerError,
    embedding,
    handler_of,
    norm,
    tensors_of,
)
from gradloc.localization.gradients.parts import Part, combine

# Told a parameter's name and its part in one micro-batch.
Use = Callable[[str, Part], None]


class Capture:
    """Hooks on the modules that own the wanted parameters.

    Args:
        model: The model.
        wanted: Name -> parameter. A tied parameter has one name; all modules that own it count.
    """

    def __init__(self, model: nn.Module, wanted: dict[str, nn.Parameter]):
        self.model = model
        names = {id(parameter): name for name, parameter in wanted.items()}
        self._names: dict[nn.Module, dict[str, str]] = {}
        for module in model.modules():
            own = module.named_parameters(recurse=False, remove_duplicate=False)
            found = {key: names[id(p)] for key, p in own if id(p) in names}
            if found:
                self._names[module] = found
        self._batch: MicroBatch | None = None
        self._numbers = itertools.count()

    def run(self, batch: MicroBatch, use: Use) -> None:
        """One forward and backward pass; ``use`` is called once for every parameter met.

        Raises:
            UnknownLayerError: A layer whose rows cannot be told apart by sequence.
        """
        self._batch, self._use = batch, use
        self._waiting: dict[str, int] = {}
        self._parts: dict[str, list[Part]] = {}
        self._open: dict[int, Call] = {}
        self._inputs: weakref.WeakValueDictionary = weakref.WeakValueDictionary()
        try:
            logits, gradient = logits_and_gradient(self.model, batch)
            self._batch = None  # a handler that runs its layer again is not recorded
            logits.backward(gradient)
            for key in list(self._open):
                self._close(key)
        finally:
            self._batch, self._open, self._parts = None, {}, {}

    @contextmanager
    def hooked(self) -> Iterator["Capture"]:
        """Hooks are there inside this context only."""
        handles = []
        try:
            for module in self._names:
                handles.append(module.register_forward_hook(self._record, with_kwargs=True))
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def _record(self, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> object:
        batch = self._batch
        if batch is None:
            return None
        handler = handler_of(module)
        keeps_outputs = handler in (embedding, norm)
        changed = None
        if handler is embedding and output.shape[0] == 1 < len(batch.rows) and output.dim() == 3:
            # Positions that are looked up once for all rows: each row gets its own gradient.
            output = changed = output.expand(len(batch.rows), *output.shape[1:]).clone()
        if isinstance(output, tuple):
            # One output may be made of another: only what comes from outside is wanted.
            output = changed = tuple(
                value.view_as(value) if isinstance(value, Tensor) else value for value in output
            )
        outputs = tensors_of(output)
        call = Call(
            module=module,
            args=tuple(_detached(value) for value in args),
            kwargs={key: _detached(value) for key, value in kwargs.items()},
            outputs=[value.detach() for value in outputs] if keeps_outputs else [],
            gradients=[None] * len(outputs),
            batch=batch,
            rows=self._rows,
        )
        key = next(self._numbers)
        self._open[key] = call
        for name in self._names[module].values():
            self._waiting[name] = self._waiting.get(name, 0) + 1
        for place, value in enumerate(outputs):
            if not value.requires_grad:
                value.requires_grad_(True)
            value.register_hook(self._on_gradient(key, place, single=len(outputs) == 1))
        return changed

    def _on_gradient(self, key: int, place: int, single: bool) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            self._open[key].gradients[place] = gradient.detach()
            if single:
                self._close(key)

        return hook

    def _close(self, key: int) -> None:
        """Turn a call into parts, and hand on the parameters that wait for no other call."""
        call = self._open.pop(key)
        met = any(gradient is not None for gradient in call.gradients)
        names = self._names[call.module]
        try:
            parts = handler_of(call.module)(call) if met else {}
        except UnknownLayerError as error:
            raise UnknownLayerError(next(iter(names.values()))) from error
        for attribute, name in names.items():
            self._waiting[name] -= 1
            if met:
                if attribute not in parts:
                    raise UnknownLayerError(name)
                self._parts.setdefault(name, []).append(parts[attribute])
            if not self._waiting[name] and name in self._parts:
                part = combine(self._parts.pop(name))
                if part is None:
                    raise UnknownLayerError(name)
                self._use(name, part)

    def _rows(self, values: Tensor, slices: list[slice]) -> Rows:
        """The same ``Rows`` for layers that share an input, such as queries, keys and values."""
        key = (values.data_ptr(), values.shape, values.stride(), values.dtype, slices[0].stop)
        found = self._inputs.get(key)
        if found is None:
            found = self._inputs[key] = Rows(values, slices)
        return found


def _detached(value: object) -> object:
    return value.detach() if isinstance(value, Tensor) else value
