"""KL divergence from distributions of which only the largest probabilities were kept."""

from collections.abc import Sequence

import torch
from torch import Tensor

# Float32 copies of logits that exist at a time.
CHUNK_BYTES = 64 * 2**20


def coarse_kl(logits: Tensor, targets: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Sum over positions of the KL divergence of a model from recorded distributions.

    At one position, with base probabilities p of the kept tokens T and p_R of the rest, and the
    model's q likewise:

        KL = sum_{i in T} p_i (log p_i - log q_i) + p_R (log p_R - log q_R).

    It is the divergence after all other tokens are merged into one event, so by the
    data-processing inequality never more than the true one; the two are equal where T is the
    whole vocabulary, or where the model has the base's proportions within the rest. The gradient
    by a logit is q_i - p_i in T and q_j (1 - p_R / q_R) outside: that of this bound, exactly.

    Args:
        logits: (n_rows, n_positions, vocab), any float dtype.
        targets: For each row ``token_ids`` (n, k), ``log_probs`` (n, k) and ``log_rest`` (n,)
            of its first n positions; later positions are padding.

    Returns:
        Nats, a float32 scalar.

    References:
        Cover and Thomas, Elements of Information Theory, section 2.7 (log sum inequality).
    """
    flat = [tensor.to(logits.device) for row in targets for tensor in row]
    return _CoarseKL.apply(logits, *flat)


class _CoarseKL(torch.autograd.Function):
    """Computes the gradient along with the value, so that float32 copies live for a chunk only."""

    @staticmethod
    def forward(ctx, logits, *targets):
        gradient = torch.zeros_like(logits) if ctx.needs_input_grad[0] else None
        total = torch.zeros((), dtype=torch.float32, device=logits.device)
        for row in range(len(logits)):
            ids, log_probs, log_rest = targets[3 * row : 3 * row + 3]
            for chunk in chunks(logits[row, : len(ids)]):
                kl, slopes = _kl_of(
                    logits[row, chunk].float(), ids[chunk], log_probs[chunk], log_rest[chunk]
                )
                total += kl
                if gradient is not None:
                    gradient[row, chunk] = slopes.to(logits.dtype)
        ctx.save_for_backward(gradient)
        ctx.n_targets = len(targets)
        return total

    @staticmethod
    def backward(ctx, upstream):
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(upstream.to(gradient.dtype)), *[None] * ctx.n_targets


def _kl_of(logits: Tensor, ids: Tensor, log_p: Tensor, log_p_rest: Tensor):
    """Summed divergence of one chunk, and its gradient by the logits, (n, vocab)."""
    log_q = logits.log_softmax(dim=-1)
    kept = log_q.gather(1, ids)
    kl = (log_p.exp() * (log_p - kept)).sum()
    log_q_rest = log_q.scatter(1, ids, -torch.inf).logsumexp(dim=-1)
    has_rest = ~torch.isneginf(log_p_rest)
    # Where there is no rest, both logarithms are -inf and their difference no number.
    gap = torch.where(has_rest, log_p_rest - log_q_rest, 0.0)
    kl = kl + (log_p_rest.exp() * gap).sum()
    slopes = log_q.exp()
    inside = kept.exp() - log_p.exp()
    # 1 - p_R / q_R, without cancellation where the model is still the base.
    slopes = slopes * -torch.expm1(gap)[:, None]
    return kl, slopes.scatter_(1, ids, inside)


def chunks(rows: Tensor) -> list[slice]:
    """Slices of the first dimension whose float32 copies stay below ``CHUNK_BYTES``."""
    step = max(1, CHUNK_BYTES // (4 * rows.shape[-1]))
    n = len(rows)
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]
