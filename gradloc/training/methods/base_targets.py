"""What a base model predicts on some texts, kept small enough to train against.

For every position: the k most likely next tokens, their log-probabilities, and that of all other
tokens together. Token ids take 4 bytes and log-probabilities 4: positions x k x 8 bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradloc.data.batches import collate
from gradloc.errors import MethodError
from gradloc.models.logits import forward_at
from gradloc.models.wrappers import evaluation_mode, unwrap
from gradloc.training.methods.coarse_kl import chunks
from gradloc.utils.progress import SequenceBar

# Logits of one forward pass; their gradient takes as much again. A batch that needs more goes
# through the model in parts. assumption: 256 MiB are there wherever a model trains.
LOGIT_BYTES = 256 * 2**20
# Above this, whole distributions are refused. assumption: what a training machine can spare.
EXACT_BYTES = 4 * 2**30


@dataclass(frozen=True)
class BaseTargets:
    """Next-token distributions of a base model on some texts.

    Position t of a row predicts its token t + 1, so a row of n tokens has n - 1 positions.

    Args:
        rows: Token ids of each text, two or more.
        token_ids: The k most likely tokens of each position of all rows, one row after the
            other, (n_positions, k), int32. With k = vocab: ``0 .. vocab - 1`` in every row,
            kept once, (1, vocab).
        log_probs: Their log-probabilities, nats, (n_positions, k), float32.
        log_rest: Log-probability of all other tokens together, (n_positions,); -inf where there
            are none.
    """

    rows: tuple[tuple[int, ...], ...]
    token_ids: Tensor
    log_probs: Tensor
    log_rest: Tensor

    @classmethod
    def joined(
        cls, rows: Sequence[Sequence[int]], found: Sequence[tuple[Tensor, Tensor, Tensor]]
    ) -> "BaseTargets":
        """Targets from what ``largest`` gave for the positions of rows, in their order."""
        token_ids, log_probs, log_rest = (torch.cat(part) for part in zip(*found, strict=True))
        if torch.isneginf(log_rest).all():
            token_ids = token_ids[:1]
        return cls(tuple(tuple(row) for row in rows), token_ids.contiguous(), log_probs, log_rest)

    def of_rows(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Token ids, log-probabilities and that of the rest, of some rows."""
        ends = torch.tensor([len(row) - 1 for row in self.rows]).cumsum(0).tolist()
        found = []
        for index in indices:
            place = slice(ends[index] - len(self.rows[index]) + 1, ends[index])
            ids = self.token_ids if len(self.token_ids) == 1 else self.token_ids[place]
            probs = self.log_probs[place]
            found.append((ids.expand(probs.shape).long(), probs, self.log_rest[place]))
        return found

    def to_tensors(self) -> dict[str, Tensor]:
        """All of it as tensors, to be saved."""
        return {
            "ids": torch.tensor([i for row in self.rows for i in row], dtype=torch.int32),
            "lengths": torch.tensor([len(row) for row in self.rows], dtype=torch.int32),
            "token_ids": self.token_ids,
            "log_probs": self.log_probs,
            "log_rest": self.log_rest,
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "BaseTargets":
        """From what ``to_tensors`` gave."""
        rows = tensors["ids"].split(tensors["lengths"].tolist())
        kept = {name: tensors[name] for name in ("token_ids", "log_probs", "log_rest")}
        return cls(tuple(tuple(row.tolist()) for row in rows), **kept)


def base_targets(
    model: nn.Module,
    rows: Sequence[Sequence[int]],
    *,
    top_k: int = 64,
    batch_size: int = 8,
    progress: bool | None = None,
) -> BaseTargets:
    """Record what a model predicts on token rows, without dropout.

    Args:
        model: Causal language model before training, PEFT-wrapped or not; left as found.
        rows: Token ids of each text, two or more.
        top_k: How many tokens to keep of each position; 0: all of them.
        batch_size: Rows a forward pass at most.
        progress: Show a progress bar; ``None``: when on a terminal.

    Returns:
        The targets, on the CPU.

    Raises:
        MethodError: There are no rows, ``top_k`` is negative, or whole distributions would take
            more than 4 GiB.
    """
    if not rows:
        raise MethodError("there are no token rows to record predictions on.")
    if top_k < 0:
        raise MethodError(f"top_k must be 0 (all tokens) or more; found {top_k!r}.")
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    with evaluation_mode(model), torch.no_grad(), SequenceBar(len(rows), progress) as bar:
        count = bar.stage("base predictions")
        for part in parts_within_memory(model, rows, range(len(rows)), batch_size):
            part_rows = [rows[index] for index in part]
            logits = position_logits(model, part_rows)
            n_positions = sum(len(row) - 1 for row in rows)
            if not top_k and 4 * n_positions * logits.shape[-1] > EXACT_BYTES:
                raise MethodError(
                    f"top_k 0 keeps {n_positions} whole distributions of {logits.shape[-1]} "
                    f"tokens, more than {EXACT_BYTES // 2**30} GiB. Give a top_k (64, say) or "
                    "fewer texts."
                )
            for index, row in enumerate(part_rows):
                for chunk in chunks(logits[index, : len(row) - 1]):
                    found.append(largest(logits[index, chunk].float(), top_k))
            count(len(part))
    return BaseTargets.joined(rows, found)


def largest(logits: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k most likely tokens of each row, their log-probabilities, and the rest's; on the CPU.

    Args:
        logits: (n, vocab).
        top_k: How many; 0: all, in the order of the vocabulary.
    """
    vocab = logits.shape[-1]
    log_probs = logits.log_softmax(dim=-1)
    if top_k == 0 or top_k >= vocab:
        ids = torch.arange(vocab, dtype=torch.int32).expand(1, -1)
        rest = torch.full((len(logits),), -torch.inf)
        return ids, log_probs.cpu(), rest
    values, ids = log_probs.topk(top_k, dim=-1)
    # Not log(1 - sum), which is nothing but rounding where the rest is small.
    rest = log_probs.scatter(1, ids, -torch.inf).logsumexp(dim=-1)
    return ids.int().cpu(), values.cpu(), rest.cpu()


def position_logits(model: nn.Module, rows: Sequence[Sequence[int]]) -> Tensor:
    """Logits at all positions of rows but the last one's, (n_rows, longest - 1, vocab)."""
    device = next(model.parameters()).device
    # The mask hides what fills, whichever token it is.
    batch = collate([{"input_ids": list(row), "labels": list(row)} for row in rows], 0)
    ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
    positions = torch.arange(ids.shape[1] - 1, device=device)
    return forward_at(model, ids, positions, attention_mask=mask, use_cache=False)[0]


def parts_within_memory(
    model: nn.Module, rows: Sequence[Sequence[int]], indices: Sequence[int], batch_size: int
) -> list[list[int]]:
    """Divide indices into parts of at most ``batch_size`` rows whose logits fit ``LOGIT_BYTES``."""
    inner: Any = unwrap(model)
    # Some models have no head and take the embeddings for one.
    weight = (inner.get_output_embeddings() or inner.get_input_embeddings()).weight
    row_bytes = max(len(rows[i]) for i in indices) * weight.shape[0] * weight.itemsize
    size = max(1, min(batch_size, LOGIT_BYTES // row_bytes))
    return [list(indices[start : start + size]) for start in range(0, len(indices), size)]
