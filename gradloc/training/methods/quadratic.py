"""Stay near the starting weights: penalties that add F (theta - theta0) to the gradients."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradloc.errors import MethodError
from gradloc.localization.gradients.sequences import Sequence as TokenSequence
from gradloc.localization.gradients.sequences import sequence_loss
from gradloc.models.wrappers import evaluation_mode
from gradloc.training.methods.anchor_texts import Source, anchor_rows
from gradloc.training.methods.base import Count, Method, Positive, TrainContext
from gradloc.training.methods.extra_loss import (
    ExtraLoss,
    Weights,
    add_to_gradients,
    match_start,
    planned_parameters,
    starting_weights,
)


class QuadraticPenaltyCallback(ExtraLoss):
    """Train on loss + ``weight`` / 2 x sum_i F_i (theta_i - theta0_i)^2.

    The sum is over the parameters that train. Without ``importance``, F = 1: L2-SP towards the
    starting point. With the diagonal Fisher information: EWC. Unlike AdamW's weight decay, the
    pull is part of the gradient, so Adam rescales it with the rest.

    Args:
        start: The weights before training, from ``starting_weights``.
        weight: Factor of the penalty.
        importance: F, by canonical name, one value a weight; ``None``: 1 for all.

    Raises:
        MethodError: The weight is not above 0; a parameter that trains has no start or
            importance; parameters are sharded.

    Example:
        >>> start = starting_weights(model, plan)   # doctest: +SKIP
        >>> Trainer(model, callbacks=[   # doctest: +SKIP
        ...     GradLocCallback(plan), QuadraticPenaltyCallback(start, weight=0.01)])

    References:
        Li, Grandvalet, Davoine 2018, arXiv:1802.01483 section 3 (L2-SP); Kirkpatrick et al. 2017,
        arXiv:1612.00796 eq. 3 (EWC).
    """

    log_key = "quadratic_penalty"

    def __init__(
        self,
        start: dict[str, Tensor],
        *,
        weight: float,
        importance: dict[str, Tensor] | None = None,
    ):
        super().__init__(weight)
        self.start, self.importance = start, importance
        self._start: dict[str, Tensor] = {}
        self._importance: dict[str, Tensor] | None = None

    def begin(self, parameters: Weights) -> None:
        """Bring start and importance of what trains to its device."""
        self._start = match_start(parameters, self.start, "the quadratic penalty")
        if self.importance is not None:
            self._importance = match_start(parameters, self.importance, "EWC (importance)")

    def add_gradients(
        self, model: nn.Module, parameters: Weights, turn: int, factor: float, args
    ) -> Tensor:
        """Add factor x F (theta - theta0); see ``ExtraLoss.add_gradients``."""
        total = torch.zeros((), device=next(iter(parameters.values())).device)
        with torch.no_grad():
            for name, parameter in parameters.items():
                away = parameter - self._start[name]
                pull = away if self._importance is None else away * self._importance[name]
                total += 0.5 * (away * pull).sum(dtype=torch.float32)
                add_to_gradients([parameter], [factor * pull])
        return total


def diagonal_fisher(
    model: nn.Module, rows: Sequence[Sequence[int]], parameters: dict[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Diagonal Fisher information of a model, per token, from token rows.

    With g_s the gradient of row s's mean loss over its n_s predicted tokens:

        F_i = mean over s of n_s g_s,i^2.

    If rows are the model's own samples, gradients of single tokens have mean zero and do not
    correlate, and this estimates the expected square of a token's gradient, the Fisher
    information; then 1/2 sum_i F_i d_i^2 is, to second order and without the terms off the
    diagonal, KL(base || model) in nats per token. On other text it is the empirical Fisher.

    Args:
        model: Causal language model before training; left as found.
        rows: Token ids of each text, two or more.
        parameters: What to differentiate by, under any names.

    Returns:
        Name -> F, float32, on the CPU, one value a weight.

    Raises:
        MethodError: There are no rows.

    References:
        Kirkpatrick et al. 2017, arXiv:1612.00796 section 2; Kunstner, Balles, Hennig 2019,
        arXiv:1905.12558 (what the empirical Fisher is not).
    """
    if not rows:
        raise MethodError("there are no token rows to estimate the Fisher information on.")
    device = next(model.parameters()).device
    fisher = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    wanted = [parameter.requires_grad for parameter in parameters.values()]
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        with evaluation_mode(model), torch.enable_grad():
            for row in rows:
                ids = torch.tensor([row], device=device)
                loss = sequence_loss(model, TokenSequence(ids, ids))
                slopes = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
                for kept, slope in zip(fisher.values(), slopes, strict=True):
                    if slope is not None:
                        kept.add_(slope.float() ** 2, alpha=(len(row) - 1) / len(rows))
    finally:
        for parameter, before in zip(parameters.values(), wanted, strict=True):
            parameter.requires_grad_(before)
    return {name: kept.cpu() for name, kept in fisher.items()}


@dataclass(frozen=True)
class L2ToStart(Method):
    """L2-SP: a quadratic pull of all trained weights towards where they began.

    Args:
        weight: Factor of half the squared distance.
    """

    weight: Positive = 0.01

    def callbacks(self, context: TrainContext) -> list[QuadraticPenaltyCallback]:
        """The penalty; the start is the model as it is now."""
        start = starting_weights(context.model, context.plan)
        return [QuadraticPenaltyCallback(start, weight=self.weight)]


@dataclass(frozen=True)
class EWC(Method):
    """Elastic weight consolidation: a pull as strong as predictions depend on a weight.

    Args:
        weight: Factor of the penalty. With 1, and without ``normalize``, it is about the KL
            divergence from the base model in nats per token, as far as a diagonal can say.
        source: ``reference``: the context's reference texts; ``facts``: passages on people and
            places that ship with gradloc. Either gives the empirical Fisher information.
        n_texts: How many texts at most.
        normalize: Divide F by its mean over all trained weights, so that a weight has the same
            meaning in models whose gradients differ in size.
    """

    weight: Positive = 1.0
    source: Source = "reference"
    n_texts: Count = 128
    normalize: bool = False

    def prepare(self, context: TrainContext) -> None:
        """Estimate the Fisher information of the base model."""
        parameters = planned_parameters(context.model, context.plan)
        rows = anchor_rows(context, self.source, self.n_texts)
        fisher = diagonal_fisher(context.model, rows, parameters)
        context.prepared["ewc"] = normalized(fisher) if self.normalize else fisher

    def callbacks(self, context: TrainContext) -> list[QuadraticPenaltyCallback]:
        """The penalty, on what ``prepare`` estimated; the start is the model as it is now."""
        start, fisher = starting_weights(context.model, context.plan), context.prepared["ewc"]
        return [QuadraticPenaltyCallback(start, weight=self.weight, importance=fisher)]


def normalized(importance: dict[str, Tensor]) -> dict[str, Tensor]:
    """Importance divided by its mean over all weights of all parameters.

    Raises:
        MethodError: It is zero throughout.
    """
    n_weights = sum(value.numel() for value in importance.values())
    mean = sum(value.sum(dtype=torch.float64).item() for value in importance.values()) / n_weights
    if not mean > 0:
        raise MethodError("the Fisher information is zero throughout; give other texts.")
    return {name: value / mean for name, value in importance.items()}
