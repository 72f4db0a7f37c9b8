"""Averages of the weights over training, in place of the last ones."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gradloc.errors import MethodError
from gradloc.training.methods.base import Method, TrainContext
from gradloc.training.methods.extra_loss import refuse_shards, trainable_parameters
from gradloc.training.trainer_hooks import ResumableCallback, resumed_checkpoint, saved_checkpoint

AVERAGE_FILE = "weight_average.safetensors"


class WeightAveragingCallback(ResumableCallback):
    """Average the trained weights over steps, and put the average in place at the end.

    From step s = ``start`` x all steps on (at least the first):

        tail:  mean of theta_s, ..., theta_T
        ema:   a_s = theta_s;  a_t = decay a_{t-1} + (1 - decay) theta_t

    Sums are float32 whatever the weights are. The average rides with each checkpoint, so a
    resumed training ends with the same one. Frozen parameters are not touched.

    Args:
        kind: ``tail`` or ``ema``.
        start: From which share of all steps on, 0 to below 1.
        decay: Of ``ema``, 0 to below 1; it looks back over about 1 / (1 - decay) steps.

    Attributes:
        n_averaged: How many steps the average holds.

    Raises:
        MethodError: An option is out of range, a checkpoint from after ``start`` has no average,
            or parameters are sharded.

    References:
        Izmailov et al. 2018, arXiv:1803.05407 (mean along the tail of training); Polyak and
        Juditsky 1992, SIAM J. Control Optim. 30(4).
    """

    def __init__(self, kind: str = "tail", *, start: float = 0.5, decay: float = 0.99):
        self.kind, self.start, self.decay = kind, start, decay
        self.n_averaged = 0
        self._average: dict[str, Tensor] = {}
        self._parameters: dict[str, nn.Parameter] = {}

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """Note what trains, and go on with a checkpoint's average."""
        self._parameters = trainable_parameters(model)
        refuse_shards("weight_averaging", self._parameters, args)
        self._average = {}
        self.n_averaged = max(0, state.global_step - self._first(state) + 1)
        if self.n_averaged:
            path = resumed_checkpoint(args, state) / AVERAGE_FILE
            try:
                saved = load_file(path)
            except (OSError, SafetensorError) as error:
                raise MethodError(
                    f"{path} cannot be read, and the average of {self.n_averaged} steps is in it. "
                    "Resume from an earlier checkpoint, or start anew."
                ) from error
            self._average = {name: saved[name].to(p.device) for name, p in self._parameters.items()}

    def on_step_end(self, args, state, control, **kwargs):
        """Take the step's weights into the average."""
        if state.global_step < self._first(state):
            return
        self.n_averaged += 1
        share = 1 / self.n_averaged if self.kind == "tail" else 1 - self.decay
        for name, parameter in self._parameters.items():
            weights = parameter.detach().float()
            if self.n_averaged == 1:
                self._average[name] = weights.clone()
            else:
                self._average[name].lerp_(weights, share)

    def on_save(self, args, state, control, **kwargs):
        """Put the average beside the weights of each checkpoint."""
        folder = saved_checkpoint(args, state)
        if self._average and state.is_world_process_zero and folder.is_dir():
            save_file(self._average, folder / AVERAGE_FILE)

    def on_train_end(self, args, state, control, **kwargs):
        """Put the average in place of the last weights."""
        with torch.no_grad():
            for name, average in self._average.items():
                self._parameters[name].copy_(average)
        self._average, self._parameters = {}, {}

    def _first(self, state) -> int:
        return max(1, math.ceil(self.start * state.max_steps))


@dataclass(frozen=True)
class WeightAveraging(Method):
    """Averaged weights in place of the last ones.

    Args:
        kind: ``tail``: plain mean from ``start`` on; ``ema``: exponential moving average.
        start: From which share of all steps on.
        decay: Of ``ema``.
    """

    kind: Literal["tail", "ema"] = "ema"
    start: Annotated[float, Field(ge=0, lt=1)] = 0.5
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99

    def callbacks(self, context: TrainContext) -> list[WeightAveragingCallback]:
        """The callback that averages and, at the end, puts the average in place."""
        return [WeightAveragingCallback(**vars(self))]
