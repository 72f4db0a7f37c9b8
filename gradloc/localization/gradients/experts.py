"""Mixtures of experts whose weights are stacked in one parameter."""

from typing import Any

import torch
from torch import Tensor, nn

from gradloc.localization.gradients.factors import Products, Rows


class Stacked:
    """A stack of matrices, each with the products of the tokens that came to it.

    Args:
        products: Index in the stack -> products; matrices that no token met are left out.
        n: Sequences.
    """

    def __init__(self, products: dict[int, Products], n: int):
        self.products = products
        self.n = n

    def squared(self) -> Tensor:  # noqa: D102 - see parts.Part
        return torch.stack([part.squared() for part in self.products.values()]).sum(0)

    def inner(self, direction: Tensor) -> Tensor:  # noqa: D102
        inner = [part.inner(direction[i]) for i, part in self.products.items()]
        return torch.stack(inner).sum(0)

    def both(self, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Squared norms and inner products, by the cheaper way in each matrix."""
        pairs = [part.both(direction[i]) for i, part in self.products.items()]
        squared, inner = zip(*pairs, strict=True)
        return torch.stack(squared).sum(0), torch.stack(inner).sum(0)

    def add_sum(self, total: Tensor) -> None:  # noqa: D102
        for i, part in self.products.items():
            part.add_sum(total[i])


def has_plain_experts(module: nn.Module) -> bool:
    """Whether a module is a gated mixture without biases, as Transformers lays it out."""
    own = {name for name, _ in module.named_parameters()}
    odd = ("is_transposed", "has_bias", "has_post_expert_norm")
    return (
        own == {"gate_up_proj", "down_proj"}
        and hasattr(module, "_apply_gate")
        and not any(getattr(module, name, False) for name in odd)
    )


def expert_parts(
    module: Any, args: tuple[Tensor, Tensor, Tensor], gradient: Tensor, slices: list[slice]
) -> dict[str, Stacked]:
    """Parts of ``gate_up_proj`` and ``down_proj``; the layer between them runs again.

    Args:
        module: The experts.
        args: Hidden states (n_tokens, d), chosen experts and their weights (n_tokens, k).
        gradient: Gradient of the output, (n_tokens, d).
        slices: Tokens of each sequence.
    """
    hidden, chosen, weights = args
    ends = torch.tensor([[s.start, s.stop] for s in slices], device=hidden.device)
    gate_up, down = {}, {}
    for expert in chosen.unique().tolist():
        if expert >= len(module.down_proj):  # where another process holds the expert
            continue
        token, place = torch.where(chosen == expert)  # in the order of the tokens
        rows = [slice(*pair) for pair in torch.searchsorted(token, ends).tolist()]
        given = hidden[token]
        w_gate_up, w_down = module.gate_up_proj[expert].detach(), module.down_proj[expert].detach()
        with torch.enable_grad():
            between = nn.functional.linear(given, w_gate_up).requires_grad_()
            activated = module._apply_gate(between)
            out = gradient[token] * weights[token, place, None]
            (inside,) = torch.autograd.grad(activated, between, out.to(w_down.dtype) @ w_down)
        gate_up[expert] = Products([(Rows(inside, rows), Rows(given, rows))])
        down[expert] = Products([(Rows(out, rows), Rows(activated.detach(), rows))])
    return {"gate_up_proj": Stacked(gate_up, len(slices)), "down_proj": Stacked(down, len(slices))}
