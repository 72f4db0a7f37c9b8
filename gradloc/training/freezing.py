"""Apply a plan to a model, undo it, and prove that it held.

A zero gradient is not a freeze: weight decay and momentum would still move the weights. Frozen
means ``requires_grad=False`` and no gradient, so the optimizer never holds state for the tensor.
"""

import hashlib
from pathlib import Path

import torch
from torch import nn

from gradloc.errors import FrozenParametersChangedError, GradlocError, SelectionError
from gradloc.localization.plan import LayerPlan, as_plan
from gradloc.models.unit_info import lowest_block
from gradloc.models.units import find_units
from gradloc.models.wrappers import canonical_name, local_part, reshard, unwrap


class FrozenLayers:
    """A model with a plan applied; made by ``freeze_layers``.

    As a context manager it restores the model at the end.

    Attributes:
        plan: The plan.
        learning_rate_scales: Parameter -> scale, for trained parameters whose scale is not 1.
    """

    def __init__(self, model: nn.Module, plan: LayerPlan):
        self.plan = plan
        self._model = unwrap(model)
        units = find_units(self._model, plan.granularity)
        plan.check_units(tuple(unit.info for unit in units))
        # By name: FSDP puts other parameters in the place of these.
        self._found = {name: p.requires_grad for name, p in self._parameters().items()}
        self._scales: dict[str, float] = {}
        self.learning_rate_scales: dict[nn.Parameter, float] = {}
        for unit in units:
            scale = plan.scale[unit.name]
            for name, parameter in (*unit.parameters.items(), *unit.adapters.items()):
                # A parameter that was frozen before stays so: a plan only ever takes away.
                parameter.requires_grad_(parameter.requires_grad and scale > 0)
                if not parameter.requires_grad:
                    parameter.grad = None
                elif scale != 1:
                    self._scales[name] = scale
        self._look()

    def __enter__(self) -> "FrozenLayers":
        return self

    def __exit__(self, *error: object) -> None:
        self.restore()

    @property
    def n_trainable(self) -> int:
        """Number of parameters that train."""
        return sum(p.numel() for p in self._model.parameters() if p.requires_grad)

    @property
    def lowest_block(self) -> int | None:
        """The lowest block with anything that trains; 0 where embeddings do, ``None``: none."""
        return lowest_block(
            unit.info
            for unit in find_units(self._model, self.plan.granularity)
            if any(p.requires_grad for p in (*unit.parameters.values(), *unit.adapters.values()))
        )

    def note_shards(self) -> None:
        """Take note of the model's parameters anew if it has been sharded since it was frozen.

        FSDP2 replaces every parameter by this process's part of it. Call it before training;
        a model that is whole is left as it was seen first.
        """
        if any(hasattr(p, "to_local") for p in self._parameters().values()):
            self._look()

    def verify(self) -> int:
        """Compare every frozen tensor, bit for bit, with what it was when it was frozen.

        Returns:
            How many tensors were compared.

        Raises:
            FrozenParametersChangedError: At least one differs; they are named.
        """
        now = self._digest_frozen(only=self._digests)
        changed = [name for name, digest in self._digests.items() if now.get(name) != digest]
        if changed:
            shown = ", ".join(changed[:5]) + (", ..." if len(changed) > 5 else "")
            raise FrozenParametersChangedError(
                f"{len(changed)} frozen parameters changed during training: {shown}. Something "
                "else wrote to them, or the optimizer was built before they were frozen."
            )
        return len(now)

    def restore(self) -> None:
        """Give every parameter the ``requires_grad`` it had before; weights stay as they are."""
        for name, parameter in self._parameters().items():
            parameter.requires_grad_(self._found.get(name, parameter.requires_grad))
        self._digests = {}

    def _look(self) -> None:
        """Digests and scales of the parameters that the model has now."""
        self._digests = self._digest_frozen()
        parameters = self._parameters()
        # In place: the optimizer's hooks hold this dictionary.
        self.learning_rate_scales.clear()
        self.learning_rate_scales |= {
            parameters[name]: scale for name, scale in self._scales.items()
        }

    def _parameters(self) -> dict[str, nn.Parameter]:
        reshard(self._model)
        return {canonical_name(name): p for name, p in self._model.named_parameters()}

    def _digest_frozen(self, only: dict[str, str] | None = None) -> dict[str, str]:
        return {
            name: tensor_digest(parameter)
            for name, parameter in self._parameters().items()
            if (name in only if only is not None else not parameter.requires_grad)
        }


def freeze_layers(model: nn.Module, plan: LayerPlan | str | Path) -> FrozenLayers:
    """Let only the plan's trained units require gradients.

    Do it before the model is wrapped (DDP, FSDP) and before it trains. Scales other than 0 and 1
    act through ``scale_learning_rates`` on the optimizer, not here.

    Args:
        model: The model, PEFT-wrapped or not; adapters follow the unit they sit in.
        plan: A plan or the path of its file.

    Returns:
        A context manager with ``.verify()`` and ``.restore()``.

    Raises:
        PlanMismatchError: The plan is for a model with other units.

    Example:
        >>> with freeze_layers(model, "plan.json") as frozen:   # doctest: +SKIP
        ...     optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
        ...     ...
        ...     frozen.verify()
    """
    return FrozenLayers(model, as_plan(plan))


def check_trains_something(plan: LayerPlan) -> None:
    """Refuse a plan under which training would do nothing.

    Raises:
        SelectionError: Every scale is 0.
    """
    if not plan.trained:
        raise SelectionError(
            f"the plan ({plan.policy or 'written by hand'}) freezes everything, so there is "
            "nothing to train. Choose another policy or raise a unit's scale above 0."
        )


def tensor_digest(tensor: torch.Tensor) -> str:
    """Digest of a tensor's bits (of this process's shard, where it is sharded)."""
    data = local_part(tensor).detach().contiguous().cpu().flatten().view(torch.uint8).numpy()
    return hashlib.blake2b(data.data, digest_size=16).hexdigest()


def scale_learning_rates(
    optimizer: torch.optim.Optimizer, scales: dict[nn.Parameter, float]
) -> list[torch.utils.hooks.RemovableHandle]:
    """Multiply the learning rate of some parameters inside ``optimizer.step()`` only.

    The optimizer's own parameter groups stay as they are between steps, so schedulers, logs and
    checkpoints are those of an ordinary Trainer run. Under AdamW the decay of a parameter is
    scaled with its rate, since it is the product of both.

    Args:
        optimizer: A torch optimizer, or accelerate's wrapper of one.
        scales: Parameter -> factor; parameters that are absent keep the group's rate.

    Returns:
        Handles whose ``.remove()`` ends the scaling.

    Raises:
        GradlocError: In the first step, of an optimizer that counts in its parameter groups, as
            schedule-free ones do: what it counts would be of one rate alone.
    """
    inner = getattr(optimizer, "optimizer", optimizer)
    # The groups as they were and the settings of those that step, of each running step: one that
    # calls its parent's runs within another.
    running: list[tuple[list[dict], list[dict]]] = []

    def split(stepping, args, kwargs):
        if running:  # scaled already
            running.append((stepping.param_groups, list(map(_settings, stepping.param_groups))))
            return
        # Anew each time: under FSDP the parameters are others by then.
        by_id = {id(parameter): scale for parameter, scale in scales.items()}
        whole = stepping.param_groups
        stepping.param_groups = [
            {**group, "params": members, "lr": group["lr"] * scale}
            for group in whole
            for scale, members in _by_scale(group["params"], by_id).items()
        ]
        running.append((whole, list(map(_settings, stepping.param_groups))))

    def join(stepping, args, kwargs):
        groups = stepping.param_groups
        stepping.param_groups, before = running.pop()
        if list(map(_settings, groups)) != before:
            raise GradlocError(
                f"{type(inner).__name__} counts in its parameter groups, so layers cannot have "
                "rates of their own. Train with AdamW, or with a plan whose scales are 0 and 1."
            )

    return [inner.register_step_pre_hook(split), inner.register_step_post_hook(join)]


def _settings(group: dict) -> dict:
    """What an optimizer keeps in a group beside what others set for a step."""
    plain = (bool, int, float, str, tuple)
    others = ("lr", "weight_decay")
    return {k: v for k, v in group.items() if isinstance(v, plain) and k not in others}


def _by_scale(parameters: list, scales: dict[int, float]) -> dict[float, list]:
    groups: dict[float, list] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            groups.setdefault(scales.get(id(parameter), 1.0), []).append(parameter)
    return groups
