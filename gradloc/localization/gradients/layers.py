"""How each kind of layer turns its inputs and output gradients into parts of gradients."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from gradloc.localization.gradients.batching import MicroBatch
from gradloc.localization.gradients.factors import Lookups, Products, Rows
from gradloc.localization.gradients.parts import Part, Whole


class UnknownLayerError(Exception):
    """A layer, or a call of it, whose gradients by sequence are not known here."""


@dataclass
class Call:
    """One call of a module in the forward pass of a micro-batch.

    Args:
        module: The module; which attributes it has is for its handler to know.
        given: Its input, detached.
        output: Its output, detached, a tensor; ``None`` but for embeddings and norms.
        batch: The micro-batch.
        rows: Makes ``Rows`` of a tensor, the same for the same tensor.
        gradient: Gradient of its output, once the backward pass has met it.
    """

    module: Any
    given: Tensor
    output: Any
    batch: MicroBatch
    rows: Callable[[Tensor, list[slice]], Rows] = Rows
    gradient: Tensor = field(init=False)


def slices_of(values: Tensor, batch: MicroBatch) -> tuple[list[slice], int]:
    """Rows of each sequence, and how many leading dimensions of the tensor count rows."""
    if values.shape[:2] == batch.input_ids.shape:
        return batch.body, 2
    if values.shape[0] == batch.input_ids.numel():
        return batch.body, 1
    if values.shape[:2] == (1, len(batch.positions)):
        return batch.head, 2
    raise UnknownLayerError(f"rows of shape {tuple(values.shape)}")


def _rows(call: Call, values: Tensor) -> Rows:
    slices, n_leading = slices_of(values, call.batch)
    return call.rows(values.flatten(0, n_leading - 1) if n_leading > 1 else values, slices)


def linear(call: Call) -> dict[str, Part]:
    """``nn.Linear``: the weight's gradient is ``g^T a``."""
    given, gradient = _rows(call, call.given), _rows(call, call.gradient)
    return {"weight": Products([(gradient, given)])} | _bias(call.module, gradient)


def conv1d(call: Call) -> dict[str, Part]:
    """GPT-2's ``Conv1D``: a linear layer with its weight transposed."""
    given, gradient = _rows(call, call.given), _rows(call, call.gradient)
    return {"weight": Products([(given, gradient)])} | _bias(call.module, gradient)


def _bias(module: Any, gradient: Rows) -> dict[str, Part]:
    return {} if module.bias is None else {"bias": _summed_to(gradient, module.bias.shape)}


def embedding(call: Call) -> Mapping[str, Part]:
    """``nn.Embedding``, also with its output scaled by a number (Gemma)."""
    module, ids, output, gradient = call.module, call.given, call.output, call.gradient
    ids = ids.expand(output.shape[: ids.dim()])
    looked_up = module.weight.detach()[ids].float()
    scale = torch.dot(looked_up.flatten(), output.float().flatten()) / looked_up.square().sum()
    # Half a per cent is above the rounding of bfloat16 and below any other function.
    if not torch.allclose(output.float(), scale * looked_up, rtol=5e-3, atol=1e-6):
        raise UnknownLayerError("an embedding that is more than a look-up")
    if module.padding_idx is not None:
        gradient = gradient.masked_fill((ids == module.padding_idx)[..., None], 0)
    rows = _rows(call, gradient)
    if type(module) is not nn.Embedding:
        rows = Rows(rows.values * scale, rows.slices)
    return {"weight": Lookups([(ids.flatten(), rows)])}


def norm(call: Call) -> Mapping[str, Part]:
    """Any norm: ``weight * x_hat + bias``, or ``(1 + weight) * x_hat`` (Gemma).

    The output is affine in the weight, so ``x_hat`` is what it gains from weight 0 to weight 1.
    One token shows what is added to the weight; for the others ``x_hat`` is the output divided
    by it, where that can be done.
    """
    module, given, gradient = call.module, call.given, call.gradient.float()
    weight = module.weight.detach().float()
    if given.shape != gradient.shape or given.shape[-weight.dim() :] != weight.shape:
        raise UnknownLayerError("a norm of another shape")
    bias = getattr(module, "bias", None)
    bias = torch.zeros_like(weight) if bias is None else bias.detach().float()
    summed = _by_sequence(call, gradient, weight.shape)
    first = given.reshape(-1, *weight.shape)[:1]
    x_hat, at_zero = _normed(module, first, bias)
    scale = weight + torch.dot(x_hat.flatten(), at_zero.flatten()) / x_hat.square().sum()
    # assumption: division by less than this of the largest loses too many digits.
    if (scale.abs() > 1e-3 * scale.abs().max()).all():
        product = _by_sequence(call, gradient * call.output, weight.shape)
        gradients = (product.gradients - bias * summed.gradients) / scale
        parts = {"weight": Whole(gradients)}
    else:
        x_hat, _ = _normed(module, given, bias)
        parts = {"weight": _by_sequence(call, gradient * x_hat, weight.shape)}
    return parts | ({} if getattr(module, "bias", None) is None else {"bias": summed})


def _normed(module: nn.Module, given: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """``x_hat``, and the output less the bias at weight 0, in float32."""
    own = {name: p.detach().float() for name, p in module.named_parameters()}
    with torch.no_grad():
        one, zero = (
            torch.func.functional_call(
                module, own | {"weight": fill(own["weight"])}, (given.float(),)
            )
            for fill in (torch.ones_like, torch.zeros_like)
        )
    return one - zero, zero - bias


def _by_sequence(call: Call, values: Tensor, shape: torch.Size) -> Whole:
    """Sums over all but the sequences and the parameter's own dimensions; padding holds zeros."""
    if values.shape[0] == len(call.batch.rows) and values.dim() > len(shape) + 1:
        # (batch, seq, ...) and, where heads come before tokens, (batch, heads, seq, ...)
        return Whole(values.sum(tuple(range(1, values.dim() - len(shape)))))
    return _summed_to(_rows(call, values), shape)


def _summed_to(rows: Rows, shape: torch.Size) -> Whole:
    n_spare = rows.values.dim() - len(shape)
    sums = [rows.of(i).sum(tuple(range(n_spare))) for i in range(len(rows.slices))]
    return Whole(torch.stack(sums))


Handler = Callable[[Call], Mapping[str, Part]]

# The first whose class fits.
HANDLERS: tuple[tuple[type[nn.Module], Handler], ...] = (
    (nn.Linear, linear),
    (Conv1D, conv1d),
    (nn.Embedding, embedding),
)


def handler_of(module: nn.Module) -> Handler:
    """The function that knows a module's gradients; what has a weight alone is tried as a norm.

    Raises:
        UnknownLayerError: There is none.
    """
    for kind, handler in HANDLERS:
        if isinstance(module, kind):
            return handler
    own = {name for name, _ in module.named_parameters(recurse=False)}
    if "weight" in own and own <= {"weight", "bias"}:
        return norm
    raise UnknownLayerError(type(module).__name__)
