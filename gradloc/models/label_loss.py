"""The next-token loss computed only where a label counts, in chunks.

The head of a small model with a large vocabulary is a fifth of its forward pass, and its logits,
their float32 copy and their gradient are the largest tensors of a training step.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.loss.loss_utils import ForCausalLMLoss

from gradloc.errors import GradlocError
from gradloc.models.wrappers import evaluation_mode, output_head, plain_model

IGNORED = -100

# Logits that exist at a time. measured on a CPU, vocabulary 49,152: 8 MiB costs a tenth more time
# than 64 (half more with a trained head), beyond 64 nothing is gained.
CHUNK_BYTES = 64 * 2**20


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Summed negative log-likelihood of targets under ``softmax(hidden @ weight.T + bias)``.

    The gradients are computed in the same pass, chunk by chunk, so that each chunk's logits are
    made once and dropped. Products are taken in the dtype of the inputs (or autocast's), the
    softmax in float32, as the model's own loss does.

    Args:
        hidden: Hidden states that enter the head, (n_tokens, hidden).
        weight: Weight of the head, (vocab, hidden), trained or frozen.
        targets: Token ids, (n_tokens,).
        bias: Bias of the head, (vocab,), or ``None``.

    Returns:
        The sum over tokens in nats, a float32 scalar.
    """
    return _LinearCrossEntropy.apply(hidden, weight, targets, bias)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, targets, bias):
        need_hidden, need_weight, _, need_bias = ctx.needs_input_grad
        grads = [
            torch.zeros_like(tensor) if needed else None
            for tensor, needed in ((hidden, need_hidden), (weight, need_weight), (bias, need_bias))
        ]
        total = hidden.new_zeros((), dtype=torch.float32)
        device = hidden.device.type
        if torch.is_autocast_enabled(device):
            # Autocast would do it for every chunk.
            hidden, weight = (t.to(torch.get_autocast_dtype(device)) for t in (hidden, weight))
        n_rows = max(1, CHUNK_BYTES // (4 * len(weight)))
        for start in range(0, len(hidden), n_rows):
            rows = slice(start, start + n_rows)
            total += _chunk(hidden[rows], weight, targets[rows], bias, rows, *grads)
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    def backward(ctx, upstream):
        hidden, weight, bias = (
            grad if grad is None else grad.mul_(upstream.to(grad.dtype))
            for grad in ctx.saved_tensors
        )
        return hidden, weight, None, bias


def _chunk(hidden, weight, targets, bias, rows, grad_hidden, grad_weight, grad_bias) -> Tensor:
    """Loss of one chunk of tokens; its gradients go into the buffers that are there."""
    logits = nn.functional.linear(hidden, weight, bias)
    dtype = logits.dtype
    logits = logits.float()
    # The largest logit's probability is at least 1 / vocab, so its logarithm is safe.
    largest, place = logits.max(dim=-1, keepdim=True)
    aimed = logits.gather(1, targets[:, None])
    probabilities = torch.softmax(logits, dim=-1)
    del logits
    normaliser = largest - probabilities.gather(1, place).log()
    if grad_hidden is not None or grad_weight is not None or grad_bias is not None:
        # d loss / d logits = softmax - one-hot.
        probabilities.scatter_add_(1, targets[:, None], -torch.ones_like(aimed))
        slopes = probabilities.to(dtype)
        if grad_hidden is not None:
            grad_hidden[rows] = slopes @ weight
        if grad_weight is not None:
            grad_weight.addmm_(slopes.T.to(grad_weight.dtype), hidden.to(grad_weight.dtype))
        if grad_bias is not None:
            grad_bias += slopes.sum(dim=0)
    return (normaliser - aimed).sum()


class LabelLoss:
    """A model whose training loss is computed at labelled positions only; ``remove`` undoes it."""

    def __init__(self, model: Any, head: Any):
        self._model, self._head = model, head
        self._active = False
        self._previous = vars(model).get("_loss_function")
        model.loss_function = self._loss
        head.forward = self._head_forward
        self._hooks = [
            model.register_forward_pre_hook(self._before, with_kwargs=True),
            model.register_forward_hook(self._after, always_call=True),
        ]

    def remove(self) -> None:
        """Give the model its own loss and head back."""
        for hook in self._hooks:
            hook.remove()
        vars(self._head).pop("forward", None)
        if self._previous is None:
            vars(self._model).pop("_loss_function", None)
        else:
            self._model.loss_function = self._previous

    def _before(self, model, args, kwargs):
        # In evaluation, callers read the logits.
        self._active = model.training and kwargs.get("labels") is not None

    def _after(self, model, args, output):
        if self._active and hasattr(output, "logits"):
            output.logits = None  # what stands there are hidden states
        self._active = False

    def _head_forward(self, hidden: Tensor) -> Tensor:
        return hidden if self._active else type(self._head).forward(self._head, hidden)

    def _loss(
        self, logits, labels, vocab_size, num_items_in_batch=None, shift_labels=None, **kwargs
    ):
        if not self._active:
            return ForCausalLMLoss(
                logits, labels, vocab_size, num_items_in_batch, shift_labels=shift_labels, **kwargs
            )
        hidden = logits  # the head handed them through
        ignored = kwargs.get("ignore_index", IGNORED)
        if shift_labels is None:
            shift_labels = nn.functional.pad(labels, (0, 1), value=ignored)[..., 1:]
        targets = shift_labels.reshape(-1).to(hidden.device)
        places = (targets != ignored).nonzero().squeeze(1)
        chosen = hidden.reshape(-1, hidden.shape[-1]).index_select(0, places)
        total = linear_cross_entropy(
            chosen, self._head.weight, targets[places], getattr(self._head, "bias", None)
        )
        # As the model's own loss: the mean over labelled tokens, or over what the Trainer counts
        # in all batches of an accumulated step.
        return total / (len(places) if num_items_in_batch is None else num_items_in_batch)


def score_labels_only(model: nn.Module) -> LabelLoss:
    """Let a model compute head and loss at labelled positions only while it trains.

    A drop-in: the model's forward stays its own, with ``logits=None`` in training outputs. In
    evaluation mode, and without labels, nothing is different.

    Args:
        model: Causal language model of Transformers, PEFT-wrapped or not.

    Returns:
        A handle with ``remove()``.

    Raises:
        GradlocError: The head is no plain linear layer, the loss is not the ordinary next-token
            loss, or something happens to the logits behind the head (soft-capping, say).

    Example:
        >>> handle = score_labels_only(model)   # doctest: +SKIP
        >>> model(input_ids=ids, labels=labels).loss.backward()   # doctest: +SKIP
        >>> handle.remove()   # doctest: +SKIP
    """
    plain: Any = plain_model(model)
    head = output_head(plain)
    refusal = f"{type(plain).__name__}: the loss cannot be computed at labelled positions only: "
    if type(head) is not nn.Linear or "forward" in vars(head):
        raise GradlocError(f"{refusal}its head is no plain linear layer ({type(head).__name__}).")
    if plain.loss_function is not ForCausalLMLoss:
        raise GradlocError(f"{refusal}its loss is not the ordinary next-token loss.")
    if not _logits_are_the_heads(plain, head):
        raise GradlocError(f"{refusal}its logits are changed after the head (soft-capping, say).")
    return LabelLoss(plain, head)


def _logits_are_the_heads(model: nn.Module, head: nn.Linear) -> bool:
    """Whether the model returns what its head computes, tried on two tokens."""
    seen = []
    hook = head.register_forward_hook(lambda module, args, output: seen.append(output.clone()))
    try:
        with evaluation_mode(model), torch.no_grad():
            ids = torch.tensor([[0, 1]], device=head.weight.device)
            logits = model(input_ids=ids, use_cache=False).logits
    finally:
        hook.remove()
    return len(seen) == 1 and torch.equal(seen[0], logits)
