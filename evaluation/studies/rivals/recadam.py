"""RecAdam: recall the starting weights first, learn later."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import TrainerCallback

from gradloc.errors import MethodError
from gradloc.training.methods.base import Method, Positive, TrainContext
from gradloc.training.methods.extra_loss import (
    match_start,
    refuse_shards,
    starting_weights,
    trainable_parameters,
)


class RecAdamCallback(TrainerCallback):
    """RecAdam on the Trainer's AdamW.

    With theta0 the weights before training and lambda(t) rising from 0 to 1 over the T steps,
    step t is, in this order:

        theta <- theta - lr lambda(t) x Adam direction
        theta <- theta - lr (w - lambda(t)) gamma (theta - theta0)
        theta <- theta - lr weight_decay theta

    Gradients do not contain the pull, so Adam does not rescale it. The first line is AdamW's own
    step at the rate lr lambda(t) and without decay; the others follow. Learning-rate scales of a
    plan hold for all three.

    The second line multiplies theta - theta0 by 1 - lr gamma (w - lambda): at 2 or more, the
    distance grows with every step, and training is refused.

    Args:
        start: The weights before training, from ``starting_weights``.
        gamma: Strength of the pull.
        k: Steepness of the rise, for ``sigmoid``: lambda(t) = 1 / (1 + exp(-k (t / T - t0))).
            The paper's k a step is this k / T.
        t0: Middle of the rise (``sigmoid``) or its end (``linear``), as a share of all steps.
        w: Upper end of lambda.
        anneal: ``sigmoid`` or ``linear``: lambda(t) = min(1, t / (t0 T)).

    Attributes:
        share: lambda at the running step, 0 to 1.

    Raises:
        MethodError: An option is out of range, the optimizer is not AdamW, the step would be
            unstable, or a parameter that trains has no start.

    References:
        Chen et al. 2020, arXiv:2004.12651, section 3 and algorithm 1; order of the lines as in
        the released code, which pulls from where Adam's step led (the algorithm: from where it
        began; the two differ by lr gamma times a step).
    """

    def __init__(
        self,
        start: dict[str, Tensor],
        *,
        gamma: float = 1000.0,
        k: float = 20.0,
        t0: float = 0.25,
        w: float = 1.0,
        anneal: str = "sigmoid",
    ):
        self.start, self.gamma, self.k, self.t0, self.w = start, gamma, k, t0, w
        self.anneal = anneal
        self.share = 0.0
        self._start: dict[nn.Parameter, Tensor] = {}
        self._hooks: list = []
        self._stepping: list[tuple[dict, float, float]] = []

    def on_train_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        """Hook into the optimizer; plans are applied by now."""
        inner = getattr(optimizer, "optimizer", optimizer)
        if not isinstance(inner, torch.optim.AdamW):
            raise MethodError(
                f"recadam turns AdamW into RecAdam; the optimizer is {type(inner).__name__}. "
                "Train with optim: adamw_torch or adamw_torch_fused."
            )
        parameters = trainable_parameters(model)
        refuse_shards("recadam", parameters, args)
        start = match_start(parameters, self.start, "recadam")
        self._start = {parameter: start[name] for name, parameter in parameters.items()}
        self._check_stable(args.learning_rate, self._share_at(1, state.max_steps))
        # After GradLocCallback's hooks, which it registered with the optimizer: so the groups
        # seen here have the plan's learning-rate scales in them.
        self._hooks = [
            inner.register_step_pre_hook(self._before),
            inner.register_step_post_hook(self._after),
        ]

    def on_step_begin(self, args, state, control, **kwargs):
        """Set lambda for the step that begins; the first is step 1."""
        self.share = self._share_at(state.global_step + 1, state.max_steps)

    def on_train_end(self, args, state, control, **kwargs):
        """Leave the optimizer an AdamW."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._start = [], {}

    def _share_at(self, step: int, n_steps: int) -> float:
        return annealed(step, self.k / n_steps, self.t0 * n_steps, self.anneal, self.w)

    def _check_stable(self, learning_rate: float, share: float) -> None:
        pull = learning_rate * self.gamma * (self.w - share)
        if pull >= 2:
            raise MethodError(
                f"recadam: learning_rate {learning_rate:g} x gamma {self.gamma:g} x (w - lambda) "
                f"is {pull:.3g}; from 2 on, each step takes weights farther from their start. "
                f"Set gamma below {2 / learning_rate:g}; below {1 / learning_rate:g} they do not "
                "overshoot it."
            )

    def _before(self, optimizer, args, kwargs):
        """Lower the rate and leave out the decay, for this step."""
        self._stepping = [(g, g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
        for group, rate, _ in self._stepping:
            self._check_stable(rate, self.share)  # a plan's scale may be above 1
            group["lr"], group["weight_decay"] = rate * self.share, 0.0

    def _after(self, optimizer, args, kwargs):
        """Give the groups their rates back; pull towards the start; decay."""
        with torch.no_grad():
            for group, rate, decay in self._stepping:
                group["lr"], group["weight_decay"] = rate, decay
                pull = rate * self.gamma * (self.w - self.share)
                for parameter in group["params"]:
                    if parameter.grad is None or parameter not in self._start:
                        continue
                    parameter.lerp_(self._start[parameter], pull)
                    parameter.mul_(1 - rate * decay)
        self._stepping = []


def annealed(step: int, k: float, t0: float, anneal: str = "sigmoid", w: float = 1.0) -> float:
    """lambda(t), the weight of Adam's step at step t.

    Args:
        step: t, from 1 on.
        k: Steepness a step (``sigmoid``).
        t0: Step of the middle (``sigmoid``) or of the end of the rise (``linear``).
        anneal: ``sigmoid`` or ``linear``.
        w: Upper end.

    Returns:
        ``w`` / (1 + exp(-k (t - t0))), or ``w`` min(1, t / t0).

    Example:
        >>> annealed(250, 0.5, 250), annealed(125, 0.5, 250, "linear")
        (0.5, 0.5)
    """
    if anneal == "linear":
        return w * min(1.0, step / t0)
    # exp of a large number overflows; lambda is 0 there.
    exponent = -k * (step - t0)
    return w / (1 + math.exp(exponent)) if exponent < 700 else 0.0


@dataclass(frozen=True)
class RecAdam(Method):
    """RecAdam, with its times as shares of the training.

    Args:
        gamma: Strength of the pull; times the learning rate it must stay below 2.
        k: Steepness of the rise over the whole training.
        t0: Middle of the rise, as a share of all steps.
        w: Upper end of lambda.
        anneal: ``sigmoid`` or ``linear``.
    """

    gamma: Positive = 1000.0
    k: Positive = 20.0
    t0: Annotated[float, Field(gt=0, le=1)] = 0.25
    w: Positive = 1.0
    anneal: Literal["sigmoid", "linear"] = "sigmoid"

    def callbacks(self, context: TrainContext) -> list[RecAdamCallback]:
        """The optimizer's hooks; the start is the model as it is now."""
        return [RecAdamCallback(starting_weights(context.model, context.plan), **vars(self))]
