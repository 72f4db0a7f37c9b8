"""What a model that sees a document predicts along a sentence, and how far another is from it.

Comes in: a model, documents and sentences about them as token ids. Goes out: the most likely next
tokens at each position of the sentences, and the loss of a model that sees the sentence alone. It
writes no sentences and trains nothing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gradloc.models.logits import forward_at
from gradloc.models.wrappers import evaluation_mode
from gradloc.training.methods.base_targets import BaseTargets, largest
from gradloc.training.methods.coarse_kl import coarse_kl


def distillation_loss(
    logits: Tensor, target: tuple[Tensor, Tensor, Tensor], temperature: float
) -> Tensor:
    """Sum over positions of T^2 KL(teacher || student), in nats.

    Args:
        logits: The student's, (n_positions, vocab), not divided by T.
        target: The teacher's ``token_ids`` (n_positions, k), ``log_probs`` (n_positions, k) and
            ``log_rest`` (n_positions,), of logits divided by T.
        temperature: T. The factor T^2 keeps gradients of the same size for any T.

    References: Hinton et al. 2015, arXiv:1503.02531, section 2.
    """
    return temperature**2 * coarse_kl(logits[None] / temperature, [target])


def teacher_targets(
    model: nn.Module,
    documents: Sequence[Sequence[int]],
    sentences: Sequence[Sequence[Sequence[int]]],
    *,
    start: Sequence[int] = (),
    temperature: float = 1.0,
    top_k: int = 0,
) -> BaseTargets:
    """What a model predicts along sentences that stand after their documents.

    Args:
        model: The teacher; left as found.
        documents: Token ids of each.
        sentences: For each document, its sentences: token ids, two or more, all of one length.
        start: Token that begins each row that the student sees (BOS), or nothing. With it, the
            first token of a sentence is predicted as well.
        temperature: Divides the logits.
        top_k: Probabilities kept at each position; 0: all.

    Returns:
        Targets whose rows are start + sentence. A sentence that was written about two documents
        counts for the first.
    """
    device = next(model.parameters()).device
    found: dict[tuple[int, ...], tuple[Tensor, Tensor, Tensor]] = {}
    with evaluation_mode(model), torch.no_grad():
        for document, written in zip(documents, sentences, strict=True):
            rows = [(*start, *sentence) for sentence in written]
            # A document's inputs are of one length, so nothing is padded.
            ids = torch.tensor([[*document, *sentence] for sentence in written], device=device)
            end = ids.shape[1] - 1
            positions = torch.arange(end - len(rows[0]) + 1, end, device=device)
            logits = forward_at(model, ids, positions, use_cache=False)[0].float() / temperature
            for row, of_row in zip(rows, logits, strict=True):
                found.setdefault(row, largest(of_row, top_k))
    token_ids, log_probs, log_rest = (
        torch.cat(columns) for columns in zip(*found.values(), strict=True)
    )
    if torch.isneginf(log_rest).all():
        token_ids = token_ids[:1]
    return BaseTargets(tuple(found), token_ids.contiguous(), log_probs, log_rest)
