"""Start the forward pass at the lowest trained block, from hidden states computed before.

When all rows of a batch are in the store, the blocks below hand their input through and the
lowest trained block receives the stored hidden states. Else the pass is an ordinary one, and what
enters that block is stored.
"""

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gradloc.errors import CacheError
from gradloc.models.architecture import block_stack, decoder_of
from gradloc.models.prefix_cache.keys import prefix_digest, prefix_tensors, row_keys
from gradloc.models.prefix_cache.store import HiddenStateStore
from gradloc.models.wrappers import evaluation_mode, input_embedding, plain_model, training_mode

logger = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16")

# Arguments of the decoder's forward that hidden states depend on and keys cover; with any other
# that is set, the pass is an ordinary one.
_COVERED = {"input_ids", "attention_mask", "position_ids"}
_WITHOUT_EFFECT = {"use_cache", "return_dict", "output_router_logits", "num_items_in_batch"}


@dataclass(frozen=True)
class CacheConfig:
    """Where hidden states are kept, and how many.

    Args:
        folder: A folder; each frozen prefix gets one of its own inside.
        dtype: ``float32`` gives back the very bits that a float32 model computed; ``bfloat16``
            halves the size and rounds (relative error up to 2^-9).
        max_gib: Size on disk at most, GiB.
    """

    folder: str
    dtype: str = "float32"
    max_gib: float = 20.0

    def __post_init__(self):
        if self.dtype not in DTYPES:
            raise CacheError(f"cache dtype {self.dtype!r}: choose one of {', '.join(DTYPES)}.")
        if not self.max_gib > 0:
            raise CacheError(f"max_gib must be above 0; found {self.max_gib!r}.")


class PrefixCache:
    """A model that skips its frozen prefix where it can; ``remove`` undoes it.

    Args:
        model: Causal language model, PEFT-wrapped or not, its plan applied.
        lowest_block: The lowest block with anything trained; those below are skipped.
        config: Folder, dtype, limit.
        rank: Number of this process.

    Attributes:
        n_hits: Forward passes that began at the lowest trained block.
        n_misses: Ordinary passes whose hidden states were offered to the store.
        keep_training_rows: Whether training batches are stored; switch it off for a corpus that
            is seen once.

    Raises:
        CacheError: There is nothing to skip, or skipping would not give the same figures (a
            trained embedding, dropout or noise, blocks that pass on more than hidden states).
    """

    def __init__(
        self, model: nn.Module, lowest_block: int | None, config: CacheConfig, rank: int = 0
    ):
        self._model: Any = plain_model(model)
        self._decoder = decoder_of(model)
        self._signature = inspect.signature(self._decoder.forward)
        self._blocks = list(block_stack(self._model)[1])
        self._lowest = _checked_lowest(self._model, self._blocks, lowest_block)
        self._config, self._rank = config, rank
        self.n_hits = self.n_misses = 0
        self.keep_training_rows = True
        self._stores: dict[str, HiddenStateStore] = {}
        self._given: Tensor | None = None  # hidden states to inject in the running pass
        self._wanted: list[str] = []  # keys of the rows to store in the running pass
        self._lengths: list[int] = []
        self._check_steady()
        self._hooks: list = []
        try:
            self._skip_prefix()
        except CacheError:
            self.remove()
            raise
        self._hooks += [
            self._decoder.register_forward_pre_hook(self._before, with_kwargs=True),
            self._decoder.register_forward_hook(self._after, always_call=True),
        ]

    @property
    def n_bytes(self) -> int:
        """Size of what is kept, bytes."""
        return sum(store.n_bytes for store in self._stores.values())

    def refresh(self) -> None:
        """Write what is buffered and take note of other processes' shards."""
        for store in self._stores.values():
            store.flush()
            store.refresh()

    def remove(self) -> None:
        """Write what is buffered and give the model its ordinary forward back."""
        self.refresh()
        for hook in self._hooks:
            hook.remove()
        for block in self._blocks[: self._lowest]:
            vars(block).pop("forward", None)

    def _skippable(self, block: nn.Module):
        forward = block.forward

        def forward_or_skip(hidden_states, *args, **kwargs):
            if self._given is None:
                return forward(hidden_states, *args, **kwargs)
            return (hidden_states,) if self._in_tuple else hidden_states

        return forward_or_skip

    def _before(self, decoder, args, kwargs):
        self._given, self._wanted = None, []
        given = self._signature.bind_partial(*args, **kwargs).arguments
        given |= given.pop("kwargs", {})
        ids = given.get("input_ids")
        if ids is None or not all(
            name in _COVERED or name in _WITHOUT_EFFECT or value is None or value is False
            for name, value in given.items()
        ):
            return
        mask = given.get("attention_mask")
        if given.get("use_cache") or (mask is not None and mask.shape != ids.shape):
            return
        keys = row_keys(ids, mask, given.get("position_ids"))
        rows = self._store().get(keys)
        if rows is not None:
            width = ids.shape[1]
            rows = [nn.functional.pad(row, (0, 0, 0, width - len(row))) for row in rows]
            self._given = torch.stack(rows).to(ids.device)
            self.n_hits += 1
        elif self.keep_training_rows or not decoder.training:
            self._wanted = keys
            # Trailing padding is not worth its room; attention never looks at it.
            self._lengths = _lengths(ids, mask)
            self.n_misses += 1

    def _enter(self, block, args, kwargs):
        """At the lowest trained block: take its input down, or put the stored one there."""
        hidden = _hidden(args, kwargs)
        if self._given is not None:
            hidden = self._given.to(hidden.dtype)
            if args:
                return (hidden, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": hidden}
        if self._wanted:
            store, dtype = self._store(), getattr(torch, self._config.dtype)
            for key, length, row in zip(self._wanted, self._lengths, hidden, strict=True):
                store.put(key, row[:length].to(dtype))
        return None

    def _after(self, decoder, args, output):
        self._given, self._wanted = None, []

    def _store(self) -> HiddenStateStore:
        device = next(self._model.parameters()).device.type
        autocast = str(torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device))
        if autocast not in self._stores:
            digest = prefix_digest(self._model, self._lowest, self._config.dtype)
            self._stores[autocast] = HiddenStateStore(
                Path(self._config.folder) / digest, self._rank, self._config.max_gib * 2**30
            )
        return self._stores[autocast]

    def _skip_prefix(self) -> None:
        """Let the blocks below hand their input on, and try that this changes no bit."""
        first, lowest, ids = self._blocks[0], self._blocks[self._lowest], self._trial_ids()
        returned = []
        with evaluation_mode(self._model), torch.no_grad():
            handle = first.register_forward_hook(lambda m, a, output: returned.append(output))
            with _taken_down(lowest) as entered:
                plain = self._decoder(input_ids=ids, use_cache=False)[0]
            handle.remove()
            self._in_tuple = isinstance(returned[0], tuple)
            self._hooks.append(lowest.register_forward_pre_hook(self._enter, with_kwargs=True))
            for block in self._blocks[: self._lowest]:
                block.forward = self._skippable(block)
            try:
                self._given = entered[0]
                skipped = self._decoder(input_ids=ids, use_cache=False)[0]
            except Exception as error:
                raise CacheError(f"{self._refusal()} ({error}).") from error
            finally:
                self._given = None
        if not torch.equal(plain, skipped):
            raise CacheError(f"{self._refusal()}.")

    def _check_steady(self) -> None:
        """Try on four tokens that training passes differ in nothing that enters the lowest block.

        Many models keep a dropout rate as a number of any name, and NEFTune adds its noise in a
        hook.
        """
        with (
            training_mode(self._model),
            torch.no_grad(),
            _taken_down(self._blocks[self._lowest]) as entered,
        ):
            for _ in range(2):
                self._decoder(input_ids=self._trial_ids(), use_cache=False)
        if not torch.equal(*entered):
            raise CacheError(
                f"{type(self._model).__name__}: what leaves the frozen prefix differs from pass to "
                "pass in training (dropout, or noise on the embeddings), so it cannot be kept. Set "
                "every dropout of the model's configuration to 0 and leave out "
                "neftune_noise_alpha, or drop the cache."
            )

    def _trial_ids(self) -> Tensor:
        device = next(self._model.parameters()).device
        return torch.arange(4, device=device)[None] % self._model.config.vocab_size

    def _refusal(self) -> str:
        return (
            f"{type(self._model).__name__}: the frozen prefix cannot be cached, since its blocks "
            "pass on more than their hidden states"
        )


def _checked_lowest(model: nn.Module, blocks: list[nn.Module], lowest_block: int | None) -> int:
    """The lowest trained block, if what lies below it is frozen and steady."""
    if not lowest_block:
        raise CacheError(
            "there is no frozen prefix to cache: the plan trains block 0, the embeddings, or no "
            "block at all. "
            "Choose a plan whose lowest block is higher (`gradloc plan`), or drop the cache."
        )
    above = {id(module) for block in blocks[lowest_block:] for module in block.modules()}
    below = [(n, m) for n, m in model.named_modules() if id(m) not in above]
    frozen = {id(tensor) for _, tensor in prefix_tensors(model, lowest_block)}
    prefix = [*blocks[:lowest_block], input_embedding(model)]
    trained = [p for module in prefix for p in module.parameters() if id(p) not in frozen]
    if trained:
        raise CacheError(
            f"{len(trained)} parameters below block {lowest_block} are trained, so the hidden "
            "states entering it change with every step. Drop the cache."
        )
    for name, module in below:
        rate = getattr(module, "attention_dropout", None)
        rate = module.p if isinstance(module, nn.Dropout) else rate
        if isinstance(rate, (int, float)) and rate > 0:
            raise CacheError(
                f"{name} has dropout {rate:g} and lies in the frozen prefix, so its hidden states "
                "differ from pass to pass. Set the model's dropout to 0, or drop the cache."
            )
    return lowest_block


def _hidden(args: tuple, kwargs: dict[str, Any]) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]


@contextmanager
def _taken_down(block: nn.Module) -> Iterator[list[Tensor]]:
    """Copies of what enters a block."""
    entered: list[Tensor] = []
    handle = block.register_forward_pre_hook(
        lambda module, args, kwargs: entered.append(_hidden(args, kwargs).clone()),
        with_kwargs=True,
    )
    try:
        yield entered
    finally:
        handle.remove()


def _lengths(ids: Tensor, mask: Tensor | None) -> list[int]:
    """Tokens of each row up to its last real one."""
    if mask is None:
        return [ids.shape[1]] * len(ids)
    places = torch.arange(1, ids.shape[1] + 1, device=ids.device)
    return (mask.bool() * places).amax(dim=1).tolist()
