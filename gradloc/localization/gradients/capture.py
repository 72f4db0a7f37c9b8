"""Inputs and output gradients of layers, handed on as soon as a parameter's uses are complete."""

import functools
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
            self._batch = None  # a norm that is tried again is not recorded
            logits.backward(gradient)
            for key in list(self._open):  # what the loss does not depend on
                self._close(key, None)
        finally:
            self._batch, self._open, self._parts = None, {}, {}

    @contextmanager
    def hooked(self) -> Iterator["Capture"]:
        """Hooks are there inside this context only."""
        handles = []
        try:
            for module in self._names:
                handles.append(module.register_forward_hook(self._record))
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def _record(self, module: nn.Module, args: tuple, output: Any) -> Tensor | None:
        batch, changed = self._batch, None
        if batch is None:
            return None
        with self._named(module):
            handler = handler_of(module)
            if not (isinstance(output, Tensor) and args and isinstance(args[0], Tensor)):
                raise UnknownLayerError("inputs or outputs other than one tensor")
        if handler is embedding and output.shape[0] == 1 < len(batch.rows) and output.dim() == 3:
            # Positions that are looked up once for all rows: each row gets its own gradient.
            output = changed = output.expand(len(batch.rows), *output.shape[1:]).clone()
        kept = output.detach() if handler in (embedding, norm) else None
        key = next(self._numbers)
        self._open[key] = Call(module, args[0].detach(), kept, batch, self._rows)
        for name in self._names[module].values():
            self._waiting[name] = self._waiting.get(name, 0) + 1
        if not output.requires_grad:
            output.requires_grad_(True)
        output.register_hook(functools.partial(self._close, key))
        return changed

    def _close(self, key: int, gradient: Tensor | None) -> None:
        """Turn a call into parts, and hand on the parameters that wait for no other call."""
        call = self._open.pop(key)
        parts = {}
        if gradient is not None:
            call.gradient = gradient.detach()
            with self._named(call.module):
                parts = handler_of(call.module)(call)
        for attribute, name in self._names[call.module].items():
            self._waiting[name] -= 1
            if gradient is not None:
                if attribute not in parts:
                    raise UnknownLayerError(name)
                self._parts.setdefault(name, []).append(parts[attribute])
            if not self._waiting[name] and name in self._parts:
                part = combine(self._parts.pop(name))
                if part is None:
                    raise UnknownLayerError(name)
                self._use(name, part)

    @contextmanager
    def _named(self, module: nn.Module) -> Iterator[None]:
        """Let an error name a parameter of the module."""
        try:
            yield
        except UnknownLayerError as error:
            raise UnknownLayerError(next(iter(self._names[module].values()))) from error

    def _rows(self, values: Tensor, slices: list[slice]) -> Rows:
        """The same ``Rows`` for layers that share an input, such as queries, keys and values."""
        key = (values.data_ptr(), values.shape, values.stride(), values.dtype, slices[0].stop)
        found = self._inputs.get(key)
        if found is None:
            found = self._inputs[key] = Rows(values, slices)
        return found
