"""Shield reference text from each step: update weights only where its inputs have little weight.

Comes in: what reference text sends into each trained linear layer, recorded before training. Goes
out: a callback that multiplies every update of such a layer by a matrix on its input side. It
adds no loss, and reads no reference text while training.

Why: a linear layer y = W x that is changed by D answers the reference input x otherwise by D x.
Over reference text that is E ||D x||^2 = tr(D C D') with C = E[x x'], the second moment of its
inputs. C is far from round: few directions carry most of it. The step that gains as much for the
least of this cost is the ordinary one times (I + s C)^-1.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.pytorch_utils import Conv1D

from gradloc.batches import collate, pad_token_id
from gradloc.errors import MethodError
from gradloc.layers import canonical_name, evaluation_mode, unwrap
from gradloc.methods.base import Method, Setting
from gradloc.methods.extra_loss import planned_parameters
from gradloc.methods.kept_texts import Source, check_texts, kept_rows

# Reference texts that pass through the model at once.
_BATCH = 8


class InputShieldCallback(TrainerCallback):
    """Multiply each update of a shielded layer's weight by its shield, on the input side.

        W <- W_before + (W_after - W_before) S

    It works with any optimizer, since it acts on what ``step`` did, weight decay included, and
    with any plan. Biases and norms have no input to shield and are left to the plan. While a step
    runs, a copy of the shielded weights is held.

    Args:
        shields: Canonical name of a weight (``model.layers.3.mlp.up_proj.weight``) -> S, of shape
            (in, in), from ``input_shields``.

    Raises:
        MethodError: A shielded weight is not in the model, does not train, or has another shape.

    Example:
        >>> moments = input_moments(model, rows, names)   # doctest: +SKIP
        >>> Trainer(model, callbacks=[   # doctest: +SKIP
        ...     GradLocCallback(plan), InputShieldCallback(input_shields(moments))])

    References:
        Zeng et al. 2019 (OWM), arXiv:1810.01256, equation 1: the same matrix, built up task by
        task; Wang et al. 2021 (Adam-NSCL), arXiv:2103.07113: updates in the null space of C.
    """

    def __init__(self, shields: Mapping[str, Tensor]):
        self.shields = dict(shields)
        self._weights: dict[str, nn.Parameter] = {}
        self._transposed: set[str] = set()
        self._before: dict[str, Tensor] = {}
        self._hooks: list = []

    def on_train_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        """Find the weights and hook into the optimizer; plans are applied by now."""
        self._weights, self._transposed = {}, set()
        modules = linear_modules(unwrap(model))
        for name, shield in self.shields.items():
            module = modules.get(name)
            if module is None or not module.weight.requires_grad:
                raise MethodError(
                    f"input_shield: {name} is no weight of a linear layer that trains. Make the "
                    "shields for the plan that trains; adapters (LoRA) cannot be shielded."
                )
            transposed = isinstance(module, Conv1D)
            n_inputs = module.weight.shape[0 if transposed else 1]
            if shield.shape != (n_inputs, n_inputs):
                raise MethodError(
                    f"input_shield: the shield of {name} is {tuple(shield.shape)}, its layer has "
                    f"{n_inputs} inputs."
                )
            self.shields[name] = shield.to(module.weight.device)
            self._weights[name] = module.weight
            if transposed:
                self._transposed.add(name)
        inner = getattr(optimizer, "optimizer", optimizer)
        self._hooks = [
            inner.register_step_pre_hook(self._keep),
            inner.register_step_post_hook(self._shield),
        ]

    def on_train_end(self, args, state, control, **kwargs):
        """Leave the optimizer as it was."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    @torch.no_grad()
    def _keep(self, optimizer, args, kwargs) -> None:
        self._before = {
            name: weight.detach().clone()
            for name, weight in self._weights.items()
            if weight.grad is not None
        }

    @torch.no_grad()
    def _shield(self, optimizer, args, kwargs) -> None:
        for name, before in self._before.items():
            weight, shield = self._weights[name], self.shields[name]
            update = (weight - before).to(shield.dtype)
            # Conv1D holds its weight as (in, out); a shield is symmetric.
            shielded = shield @ update if name in self._transposed else update @ shield
            weight.copy_(before + shielded.to(before.dtype))
        self._before = {}


def linear_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Canonical name of its weight -> each linear layer that a shield can act on."""
    return {
        f"{canonical_name(name)}.weight": module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
    }


def input_moments(
    model: nn.Module,
    rows: Sequence[Sequence[int]],
    names: Iterable[str],
    pad_id: int = 0,
) -> dict[str, Tensor]:
    """Second moments of what reference text sends into linear layers.

    Args:
        model: The model; left as found, in evaluation mode while this runs.
        rows: Token rows.
        names: Canonical names of the layers' weights.
        pad_id: Token id that fills batches; padding does not count.

    Returns:
        Name -> C = mean over positions of x x', (in, in), float32.
    """
    modules = linear_modules(model)
    sums: dict[str, Tensor] = {}
    device = next(model.parameters()).device
    real: list[Tensor] = []

    def note(name: str):
        def hook(module, inputs):
            x = inputs[0].detach()[real[0]].float()
            sums[name] = sums.get(name, 0) + x.T @ x

        return hook

    hooks = [modules[name].register_forward_pre_hook(note(name)) for name in names]
    n_positions = 0
    try:
        with evaluation_mode(model), torch.no_grad():
            for start in range(0, len(rows), _BATCH):
                part = [list(row) for row in rows[start : start + _BATCH]]
                batch = collate([{"input_ids": row, "labels": row} for row in part], pad_id)
                real[:] = [batch["attention_mask"].bool().to(device)]
                n_positions += int(real[0].sum())
                # The stack alone: no head runs.
                model.base_model(
                    input_ids=batch["input_ids"].to(device),
                    attention_mask=batch["attention_mask"].to(device),
                )
    finally:
        for hook in hooks:
            hook.remove()
    return {name: total / n_positions for name, total in sums.items()}


def input_shields(moments: Mapping[str, Tensor], strength: float = 3.0) -> dict[str, Tensor]:
    """S = (I + strength x C / mean eigenvalue of C)^-1 of each layer.

    A direction that carries the mean share of the inputs is slowed down 1 + ``strength`` times,
    one that carries none is left free.

    Args:
        moments: Name -> C, (in, in), from ``input_moments``.
        strength: 0 leaves all updates as they are; the larger, the nearer to a projection onto
            the directions that reference text does not use.

    Example:
        >>> input_shields({"w": torch.diag(torch.tensor([2.0, 0.0]))}, strength=2.0)["w"]
        tensor([[0.2000, 0.0000],
                [0.0000, 1.0000]])
    """
    shields = {}
    for name, moment in moments.items():
        mean = moment.diagonal().mean().clamp_min(torch.finfo(moment.dtype).tiny)
        identity = torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
        shields[name] = torch.linalg.inv(identity + (strength / mean) * moment)
    return shields


@dataclass(frozen=True)
class InputShield(Method):
    """Shield reference text from each step.

    Args:
        strength: How strongly, see ``input_shields``. Stronger shields want a higher learning
            rate.
        source: ``reference``: the setting's reference texts; ``generated``: texts sampled once
            from the base model; ``continued``: what it makes of a few words of the new documents.
            The last two need no old data. Of several, each counts the same.
        n_texts: How many texts of each source at most. A few thousand tokens are needed for as
            many inputs.
    """

    strength: float = 3.0
    source: Source | tuple[Source, ...] = ("reference", "continued")
    n_texts: int = 256

    def check(self) -> None:
        """Refuse options that cannot work.

        Raises:
            MethodError: A strength that is not positive, an unknown source, no text.
        """
        if not self.strength > 0:
            raise MethodError(f"input_shield: strength must be above 0; found {self.strength!r}.")
        if not self._sources():
            raise MethodError("input_shield: source names no source of text.")
        for source in self._sources():
            check_texts("input_shield", source, self.n_texts)

    def callbacks(self, setting: Setting) -> list[TrainerCallback]:
        """The callback, with shields of the layers that the plan trains.

        Raises:
            MethodError: The plan trains no linear layer inside the blocks.
        """
        trained = planned_parameters(setting.model, setting.plan)
        head = setting.model.get_output_embeddings()
        names = [
            name
            for name, module in linear_modules(setting.model).items()
            if name in trained and module is not head
        ]
        if not names:
            raise MethodError(
                "input_shield: the plan trains no linear layer that can be shielded. Choose "
                "another policy, or leave the method out."
            )
        found = [
            input_moments(
                setting.model,
                kept_rows(setting, source, self.n_texts),
                names,
                pad_token_id(setting.tokenizer),
            )
            for source in self._sources()
        ]
        moments = {name: sum(part[name] for part in found) / len(found) for name in names}
        return [InputShieldCallback(input_shields(moments, self.strength))]

    def _sources(self) -> tuple[str, ...]:
        return (self.source,) if isinstance(self.source, str) else tuple(self.source)
