"""Compute chosen parts of a model in bfloat16, the rest as it is.

Why by part: rounding in what is frozen changes what the trained part sees, but every update is
still computed from gradients in the trained part's own precision.
"""

from collections.abc import Collection

import torch
from torch import nn

from gradloc.errors import GradlocError
from gradloc.models.architecture import block_stack, decoder_of
from gradloc.models.wrappers import plain_model

# In the order in which a forward pass meets them.
PARTS = ("prefix", "suffix", "head")


class MixedPrecision:
    """A model whose chosen parts compute in bfloat16 autocast; ``remove`` undoes it."""

    def __init__(self, model: nn.Module, parts: Collection[str], lowest_block: int):
        self._parts = frozenset(parts)
        decoder, lowest = decoder_of(model), block_stack(model)[1][lowest_block]
        self._device = next(model.parameters()).device.type
        self._context: torch.autocast | None = None
        self._running = False  # the decoder may be called without its model, and then has no head
        # A prefix cache has hooks at the same places, and looks whether autocast is on.
        self._hooks = [
            decoder.register_forward_pre_hook(lambda *_: self._enter("prefix"), prepend=True),
            lowest.register_forward_pre_hook(lambda *_: self._enter("suffix")),
            decoder.register_forward_hook(lambda *_: self._enter_head(), always_call=True),
            model.register_forward_pre_hook(lambda *_: self._run(True)),
            model.register_forward_hook(lambda *_: self._run(False), always_call=True),
        ]

    def remove(self) -> None:
        """Let every part compute as it did before."""
        for hook in self._hooks:
            hook.remove()

    def _enter(self, part: str) -> None:
        self._leave()
        if part in self._parts:
            self._context = torch.autocast(self._device, torch.bfloat16)
            self._context.__enter__()

    def _enter_head(self) -> None:
        self._leave()
        if self._running:
            self._enter("head")

    def _run(self, running: bool) -> None:
        self._leave()
        self._running = running

    def _leave(self) -> None:
        if self._context is not None:
            self._context.__exit__(None, None, None)
            self._context = None


def compute_in_bfloat16(
    model: nn.Module, parts: Collection[str], lowest_block: int | None
) -> MixedPrecision:
    """Let parts of a model compute in bfloat16 autocast, in training and evaluation.

    Args:
        model: Causal language model, PEFT-wrapped or not.
        parts: Of ``prefix`` (embeddings and the blocks below the lowest trained one), ``suffix``
            (the blocks from there on, forward and backward) and ``head`` (final projection and
            its gradient).
        lowest_block: The lowest block that trains; ``None`` and 0: there is no prefix.

    Returns:
        A handle with ``remove()``.

    Raises:
        GradlocError: A part is unknown, or there is no frozen prefix to compute in bfloat16.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise GradlocError(
            f"bfloat16: unknown part {unknown[0]!r}; choose from {', '.join(PARTS)}."
        )
    if "prefix" in parts and not lowest_block:
        raise GradlocError(
            "bfloat16: there is no frozen prefix, since the plan trains block 0, the embeddings or "
            "no block at all. Leave 'prefix' out, or choose a plan whose lowest block is higher."
        )
    return MixedPrecision(plain_model(model), parts, lowest_block or 0)
