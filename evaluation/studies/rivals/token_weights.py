"""Weight the tokens that surprise the base model."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from gradloc.data.batches import IGNORED
from gradloc.errors import MethodError
from gradloc.models.wrappers import evaluation_mode
from gradloc.training.methods.base import Loss, Method, Positive, Rows, TrainContext
from gradloc.training.methods.base_targets import parts_within_memory, position_logits

BATCH_SIZE = 8


@dataclass(frozen=True)
class TokenWeights(Method):
    """Train harder on the tokens that the base model finds least likely.

    In text of news, what the base model cannot predict is where the news is. The loss of a batch
    is sum_t w_t nll_t / sum_t w_t, in nats, with w = ``weight`` for the ``fraction`` of all
    labelled tokens whose negative log-likelihood under the base model is largest, 1 for the
    others. It is computed once, before training.

    A row gets a column ``weights``: one float a token, that of the token itself, not of the
    position that predicts it.

    Args:
        fraction: Share of all labelled tokens, above 0 and below 1.
        weight: Their weight; 1 is the ordinary loss.

    References:
        Compare Lin et al. 2024, arXiv:2404.07965 (Rho-1): there tokens are chosen by the excess
        of the running model's loss over that of a model trained on clean text, at every step, and
        all others are left out.
    """

    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    weight: Positive = 3.0

    def rows(self, rows: Rows, context: TrainContext) -> Rows:
        """The rows with ``weights``, from the base model's loss on them.

        Raises:
            MethodError: No token has a label.
        """
        losses = token_losses(context.model, rows)
        known = torch.cat([torch.empty(0), *losses])
        known = known[~known.isnan()]
        if not len(known):
            raise MethodError("token_weights: no token of the training rows has a label.")
        n_weighted = max(1, round(self.fraction * len(known)))
        threshold = known.topk(n_weighted).values[-1]
        weighted = []
        for row, loss in zip(rows, losses, strict=True):
            # Where no prediction is, the comparison with nan is false; labels leave it out.
            weights = torch.where(loss >= threshold, self.weight, 1.0)
            weighted.append({**row, "weights": weights.tolist()})
        return weighted

    def loss(self, context: TrainContext) -> Loss:
        """The weighted mean of the tokens' losses."""
        return weighted_loss


def token_losses(model: nn.Module, rows: Rows) -> list[Tensor]:
    """Each token's negative log-likelihood under a model, without dropout.

    Args:
        model: Causal language model; left as found.
        rows: ``input_ids`` and ``labels`` (-100 ignored).

    Returns:
        For each row, nats, float32 on the CPU, (seq,); nan at the first token and where no label
        is.
    """
    ids = [list(row["input_ids"]) for row in rows]
    losses = []
    with evaluation_mode(model), torch.no_grad():
        for part in parts_within_memory(model, ids, range(len(ids)), BATCH_SIZE) if ids else ():
            logits = position_logits(model, [ids[index] for index in part])
            for place, index in enumerate(part):
                found = torch.full((len(ids[index]),), torch.nan)
                labels = torch.as_tensor(rows[index]["labels"])[1:]
                predicted = logits[place, : len(labels)].float()
                nll = nn.functional.cross_entropy(
                    predicted, labels.to(predicted.device), ignore_index=IGNORED, reduction="none"
                ).cpu()
                found[1:] = torch.where(labels == IGNORED, torch.nan, nll)
                losses.append(found)
    return losses


def weighted_loss(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Mean negative log-likelihood of a batch, each token with its weight.

    Args:
        model: Causal language model, wrapped or not.
        inputs: ``input_ids``, ``labels`` (-100 ignored), ``weights`` (float; padding has 0) and
            ``attention_mask`` if there is padding, each (batch, seq).

    Returns:
        sum_t w_t nll_t / sum_t w_t over labelled tokens, nats, a float32 scalar.

    Raises:
        MethodError: The batch has no weights, or none of a labelled token is above 0.
    """
    if "weights" not in inputs:
        raise MethodError(
            "token_weights: the batch has no column 'weights'. Let the collator pass it on, and "
            "set remove_unused_columns: false."
        )
    given = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
    logits = model(**given, use_cache=False).logits[:, :-1]
    labels = inputs["labels"][:, 1:]
    weights = torch.where(labels == IGNORED, 0.0, inputs["weights"][:, 1:].float())
    total = weights.sum()
    if not total > 0:
        raise MethodError("token_weights: no labelled token of the batch has a weight above 0.")
    nll = nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]).float(),
        labels.reshape(-1),
        ignore_index=IGNORED,
        reduction="none",
    )
    return (nll * weights.reshape(-1)).sum() / total
