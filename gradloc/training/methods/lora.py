"""Low-rank adapters inside the units that a plan trains, merged into the weights at the end."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn
from transformers.pytorch_utils import Conv1D

from gradloc.errors import MethodError
from gradloc.localization.plan import LayerPlan
from gradloc.models.units import find_units
from gradloc.models.wrappers import canonical_name
from gradloc.training.methods.base import Count, Method, Positive, TrainContext

_LINEAR = (nn.Linear, Conv1D)


@dataclass(frozen=True)
class Lora(Method):
    """LoRA: W = W0 + (alpha / r) B A, with A of shape (r, in), B of shape (out, r), B = 0 at first.

    Adapters sit on the linear layers of attention and MLP; embeddings and head have none. A plan
    says in which units: under the policy ``all`` this is ordinary LoRA, under any other it is
    LoRA of the plan's units. A unit's learning-rate scale acts on its adapters.

    Args:
        r: Rank, >= 1.
        alpha: Numerator of the scale, > 0. The scale is alpha / r, or alpha / sqrt(r) with
            ``rslora``.
        dropout: Share of an adapter's inputs that are dropped in training, 0 to below 1.
        targets: ``all-linear`` (attention and MLP), ``attention`` or ``mlp``.
        where: ``plan``: in the units that the plan trains; ``all``: in every block, which needs a
            plan that freezes none (policy ``all``).
        rslora: Rank-stabilised scale (arXiv:2312.03732).
        dora: Weights decomposed into magnitude and direction (arXiv:2402.09353).

    References: Hu et al. 2021, arXiv:2106.09685, section 4.1. The released code of "Continual
        Knowledge Learning" scales by r / alpha instead.
    """

    r: Count = 16
    alpha: Positive = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Literal["all-linear", "attention", "mlp"] = "all-linear"
    where: Literal["plan", "all"] = "plan"
    rslora: bool = False
    dora: bool = False

    def wrap(self, model: nn.Module, context: TrainContext) -> nn.Module:
        """The model with adapters; its own weights no longer require gradients.

        Raises:
            MethodError: ``where`` is ``all`` and the plan freezes units of the blocks, or a unit
                that is to get adapters has no linear layer.
        """
        from peft import LoraConfig, get_peft_model

        if self.where == "all":
            _check_freezes_no_block(context.plan)
        names = linear_layers(model, context.plan, self.targets)
        config = LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=names,
            # GPT-2's Conv1D holds its weight as (in, out).
            fan_in_fan_out=all(isinstance(model.get_submodule(name), Conv1D) for name in names),
            use_rslora=self.rslora,
            use_dora=self.dora,
            task_type="CAUSAL_LM",
        )
        # A is drawn at random here, before the Trainer seeds anything.
        with torch.random.fork_rng():
            torch.manual_seed(context.arguments.seed)
            return get_peft_model(model, config)

    def finish(self, model: nn.Module, context: TrainContext) -> nn.Module:
        """The plain model, each adapter's product added to the weight that it sat on.

        Raises:
            MethodError: A merged weight is not finite.
        """
        try:
            return model.merge_and_unload(safe_merge=True)
        except ValueError as error:
            raise MethodError(
                f"lora: the adapters cannot be merged: {error} Lower the learning rate."
            ) from error


def linear_layers(model: nn.Module, plan: LayerPlan, targets: str = "all-linear") -> list[str]:
    """Names of the linear layers inside the blocks that a plan trains.

    Args:
        model: A plain model, without adapters.
        plan: Which units train.
        targets: ``all-linear``, ``attention`` or ``mlp``.

    Returns:
        Module names, in the model's order.

    Raises:
        MethodError: There is none, or a trained unit of the wanted kind has none (routed experts
            whose weights are one tensor, say).
        PlanMismatchError: The plan is for a model with other units.
    """
    owners = {
        name: unit.name
        for unit in _chosen_units(model, plan, targets)
        for name in unit.parameters
        if name.endswith(".weight")
    }
    found = {
        name: owners[f"{canonical_name(name)}.weight"]
        for name, module in model.named_modules()
        if isinstance(module, _LINEAR) and f"{canonical_name(name)}.weight" in owners
    }
    kind = "" if targets == "all-linear" else f"{targets} "
    if not owners:
        raise MethodError(
            f"lora: the plan trains no {kind}unit inside the blocks, so no adapter has a place. "
            "Choose other targets or another policy."
        )
    bare = sorted(set(owners.values()) - set(found.values()))
    if bare:
        raise MethodError(
            f"lora: {', '.join(bare[:4])} {'has' if len(bare) == 1 else 'have'} no linear layer "
            "to put an adapter on. Freeze such units in the plan, or choose other targets."
        )
    return list(found)


def _chosen_units(model: nn.Module, plan: LayerPlan, targets: str) -> Iterator:
    units = find_units(model, plan.granularity)
    plan.check_units(tuple(unit.info for unit in units))
    trained = [unit for unit in units if unit.info.in_stack and plan.scale[unit.name] > 0]
    if targets == "all-linear":
        yield from trained
        return
    inside = {name for unit in trained for name in unit.parameters}
    # A plan of whole blocks does not say which part of a block is attention.
    for unit in find_units(model, "sublayer"):
        if unit.info.kind == targets and inside & unit.parameters.keys():
            yield unit


def _check_freezes_no_block(plan: LayerPlan) -> None:
    frozen = [unit.name for unit in plan.units if unit.in_stack and plan.scale[unit.name] == 0]
    if frozen:
        raise MethodError(
            f"lora: where is 'all', but the plan ({plan.policy or 'written by hand'}) freezes "
            f"{len(frozen)} units of the blocks, whose adapters would not train. Take the policy "
            "'all' for this arm, or where: plan."
        )
