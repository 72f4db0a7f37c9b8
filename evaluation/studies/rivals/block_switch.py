"""Training a few blocks at a time."""

from collections.abc import Iterator
from typing import Literal

from torch import nn
from transformers import TrainerCallback

from gradloc.errors import MethodError
from gradloc.models.architecture import block_stack


class BlockSwitch(TrainerCallback):
    """Wake some groups of parameters and let the others rest, anew every ``period`` steps.

    A group is what requires gradients in one block when training starts. Subclasses say which
    groups are awake when. Under DDP, leave ``ddp_find_unused_parameters`` at its default: it is
    what lets a parameter go without a gradient for a while.

    Args:
        name: The method's name, for messages.
        period: Optimizer steps between two switches; ``None``: such that every group has one turn.
        seed: Seed of the choice; ``None``: that of the training.
        outside: What parameters outside the blocks do: ``awake`` (always), ``rest`` (always) or
            ``turn`` (they are one more group, the last).
        fresh: Drop the optimizer state of everything at a switch, not only of what rests.
    """

    def __init__(
        self,
        name: str,
        period: int | None,
        seed: int | None,
        *,
        outside: Literal["awake", "rest", "turn"],
        fresh: bool,
    ):
        self.name, self.period, self.seed = name, period, seed
        self.outside, self.fresh = outside, fresh
        self._groups: list[list[nn.Parameter]] = []
        self._outside: list[nn.Parameter] = []
        self._n_steps = self._seed = 0
        self._switched = False

    def choose(self, turn: int, n_groups: int, seed: int) -> list[int]:
        """Which groups are awake.

        Args:
            turn: How many periods have passed, from 0.
            n_groups: Number of groups.
            seed: Seed of the choice.
        """
        raise NotImplementedError

    def check_groups(self, n_groups: int) -> None:
        """Refuse a model in which taking turns would change nothing.

        Raises:
            MethodError: Fewer than two groups train.
        """
        if n_groups < 2:
            raise MethodError(
                f"{self.name}: {n_groups} block trains under this plan, so there are no turns to "
                "take. Take a plan that trains more blocks."
            )

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """Find the groups.

        Raises:
            MethodError: DeepSpeed is in use, or too few blocks train.
        """
        if getattr(args, "deepspeed", None):
            raise MethodError(
                f"{self.name}: DeepSpeed fixes what trains when it starts, so blocks cannot take "
                "turns. Train without DeepSpeed, or with another method."
            )
        blocks = [list(block.parameters()) for block in block_stack(model)[1]]
        inside = {id(p) for block in blocks for p in block}
        groups = [[p for p in block if p.requires_grad] for block in blocks]
        outside = [p for p in model.parameters() if p.requires_grad and id(p) not in inside]
        if self.outside == "turn":
            groups, outside = [*groups, outside], []
        self._groups, self._outside = [group for group in groups if group], outside
        self.check_groups(len(self._groups))
        self._n_steps = self.period or max(1, state.max_steps // len(self._groups))
        self._seed = args.seed if self.seed is None else self.seed
        self._switched = False

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        """Before the first step, let everything rest that is not awake.

        Here and not in ``on_train_begin``, so that other callbacks may see there all that ever
        trains.
        """
        if not self._switched:
            self._switch(state.global_step, optimizer)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        """Let no gradient of a resting parameter through, whoever may have put it there."""
        for parameter in self._everything():
            if not parameter.requires_grad:
                parameter.grad = None

    def on_step_end(self, args, state, control, optimizer=None, **kwargs):
        """Switch for the next step, so that whoever adds to its gradients sees who is awake."""
        if state.global_step % self._n_steps == 0:
            self._switch(state.global_step, optimizer)

    def on_train_end(self, args, state, control, **kwargs):
        """Wake everything, as it was before training."""
        for parameter in self._everything():
            parameter.requires_grad_(True)

    def _everything(self) -> Iterator[nn.Parameter]:
        for group in (*self._groups, self._outside):
            yield from group

    def _switch(self, step: int, optimizer) -> None:
        turn, since = divmod(step, self._n_steps)
        chosen = self.choose(turn, len(self._groups), self._seed)
        awake = {id(p) for index in chosen for p in self._groups[index]}
        if self.outside == "awake":
            awake |= {id(p) for p in self._outside}
        states = getattr(optimizer, "optimizer", optimizer).state
        for parameter in self._everything():
            parameter.requires_grad_(id(parameter) in awake)
            if id(parameter) not in awake:
                parameter.grad = None
            # A run that is resumed within a turn goes on with the state that it has loaded.
            if id(parameter) not in awake or (self.fresh and since == 0):
                states.pop(parameter, None)
        self._switched = True
