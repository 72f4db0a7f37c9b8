"""Texts that a model writes itself, drawn from its own distribution."""

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gradloc.errors import MethodError
from gradloc.models.logits import forward_at
from gradloc.models.wrappers import evaluation_mode, plain_model, unwrap
from gradloc.training.methods.base_targets import head_weight
from gradloc.utils.numbers import check_number


def generate_texts(
    model: nn.Module,
    tokenizer,
    *,
    n: int,
    n_tokens: int,
    seed: int,
    batch_size: int = 16,
    temperature: float = 1.0,
    beginnings: Sequence[Sequence[int]] = (),
) -> list[str]:
    """Sample texts from a model, with or without a beginning.

    Each text begins after the BOS token (the EOS token where there is none, which is what ends
    the document before), so its first token already follows the model's distribution. A tokenizer
    with neither gets a first token drawn uniformly. Special tokens and ids that the tokenizer
    lacks are never drawn: a text is a document of which nothing is known but that it has not
    ended yet.

    One number in [0, 1) is drawn for each token of each text, and the token is read off the
    cumulative probabilities. So texts do not depend on ``batch_size`` or on the device, but for
    the last bits of the probabilities.

    Args:
        model: Causal language model of Transformers, PEFT-wrapped or not.
        tokenizer: Its tokenizer.
        n: Number of texts.
        n_tokens: Tokens that are drawn for each text.
        seed: Seed of the draws; the global random state is neither read nor changed.
        batch_size: Texts at a time; memory and speed only.
        temperature: Divides the logits; 1 is the model's own distribution.
        beginnings: Token ids that each text begins with, ``n`` rows of one length.

    Returns:
        ``n`` texts, decoded without special tokens, beginnings included. Encoding one again may
        give another number of tokens.

    Raises:
        MethodError: A count or the temperature is not above 0, or there are not ``n`` beginnings
            of one length.

    References:
        Sun et al. 2020, arXiv:1909.03329 (samples of the model stand in for earlier data).

    Example:
        >>> generate_texts(model, tokenizer, n=2, n_tokens=32, seed=0)   # doctest: +SKIP
    """
    options = {"n": n, "n_tokens": n_tokens, "batch_size": batch_size, "temperature": temperature}
    for name, value in options.items():
        check_number(f"generating texts: {name}", value, 0, above=True, error=MethodError)
    if beginnings and (len(beginnings) != n or len({len(row) for row in beginnings}) != 1):
        raise MethodError(f"generating texts: {n} beginnings of one length are needed.")
    model = unwrap(model)
    given = torch.tensor([list(row) for row in beginnings] or [[]] * n, dtype=torch.long)
    allowed = _ordinary_tokens(tokenizer, len(head_weight(model)))
    draws = torch.rand((n, n_tokens), generator=torch.Generator().manual_seed(seed))
    start = next(
        (i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None), None
    )
    texts = []
    with evaluation_mode(model), torch.no_grad():
        for first in range(0, n, batch_size):
            part = slice(first, first + batch_size)
            ids = _sample(model, draws[part], given[part], start, allowed, temperature)
            texts += tokenizer.batch_decode(
                ids.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
    return texts


def _sample(
    model: nn.Module,
    draws: Tensor,
    given: Tensor,
    start: int | None,
    allowed: Tensor,
    temperature: float,
) -> Tensor:
    """Token ids of one batch, (batch, given + n_tokens), from draws of (batch, n_tokens)."""
    device = next(model.parameters()).device
    chosen: list[Tensor] = []
    if start is not None:
        fed = torch.cat([torch.full((len(draws), 1), start), given], dim=1)
    elif given.shape[1]:
        fed = given
    else:
        chosen.append(_read_off(allowed.double().expand(len(draws), -1), draws[:, 0]))
        fed = chosen[0][:, None]
    cache, seen = None, fed
    while len(chosen) < draws.shape[1]:
        position = torch.tensor([fed.shape[1] - 1], device=device)
        options = {"past_key_values": cache, "use_cache": True} if _takes_cache(model) else {}
        logits, cache = forward_at(model, fed.to(device), position, **options)
        scores = logits[:, 0].cpu().double() / temperature
        # A head may have more rows than the tokenizer has tokens.
        probabilities = scores.masked_fill(~allowed, -torch.inf).softmax(dim=-1)
        chosen.append(_read_off(probabilities, draws[:, len(chosen)]))
        seen = torch.cat([seen, chosen[-1][:, None]], dim=1)
        fed = seen if cache is None else chosen[-1][:, None]
    return torch.cat([given, torch.stack(chosen, dim=1)], dim=1)


def _read_off(weights: Tensor, draws: Tensor) -> Tensor:
    """The token in whose share of the cumulative weights each draw falls, (batch,)."""
    cumulative = weights.cumsum(dim=-1)
    places = draws[:, None].double() * cumulative[:, -1:]
    # right=True: a token of weight 0 has an empty share, also at a draw of exactly 0.
    return torch.searchsorted(cumulative, places, right=True).squeeze(1)


def _ordinary_tokens(tokenizer, size: int) -> Tensor:
    """Which rows of the head stand for ordinary tokens, (vocab,) of bool."""
    allowed = torch.zeros(size, dtype=torch.bool)
    allowed[: len(tokenizer)] = True
    allowed[[i for i in tokenizer.all_special_ids if i < size]] = False
    return allowed


def _takes_cache(model: nn.Module) -> bool:
    plain = plain_model(model)
    return "past_key_values" in inspect.signature(plain.forward).parameters
