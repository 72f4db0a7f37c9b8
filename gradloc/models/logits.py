"""Logits at chosen positions only."""

import inspect
from typing import Any

from torch import Tensor, nn

from gradloc.models.wrappers import plain_model


def logits_at(
    model: nn.Module, input_ids: Tensor, positions: Tensor, attention_mask: Tensor | None = None
) -> Tensor:
    """Next-token logits at the same positions of every row.

    Args:
        model: Causal language model, PEFT-wrapped or not.
        input_ids: Token ids, (batch, seq).
        positions: Positions whose next token is asked for, (n_positions,).
        attention_mask: 1 for real tokens, (batch, seq); ``None``: all are real.

    Returns:
        Logits of shape (batch, n_positions, vocab), in the model's dtype.
    """
    kwargs = {} if attention_mask is None else {"attention_mask": attention_mask}
    return forward_at(model, input_ids, positions, use_cache=False, **kwargs)[0]


def forward_at(
    model: nn.Module, input_ids: Tensor, positions: Tensor, **options: Any
) -> tuple[Tensor, Any]:
    """Logits at chosen positions, and the keys and values where ``use_cache`` asks for them.

    Args:
        model: Causal language model.
        input_ids: Token ids, (batch, seq).
        positions: Positions among ``input_ids`` whose next token is asked for, (n_positions,).
        options: Further arguments of the model's ``forward``: ``use_cache``, ``attention_mask``,
            ``past_key_values``.

    Returns:
        Logits of shape (batch, n_positions, vocab) and the cache, ``None`` where there is none.
    """
    if _takes_positions(model):
        output = model(input_ids=input_ids, logits_to_keep=positions, **options)
        logits = output.logits
    else:
        output = model(input_ids=input_ids, **options)
        logits = output.logits[:, positions]
    return logits, getattr(output, "past_key_values", None)


def _takes_positions(model: nn.Module) -> bool:
    plain = plain_model(model)
    return "logits_to_keep" in inspect.signature(plain.forward).parameters
