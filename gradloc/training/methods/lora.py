"""Low-rank adapters inside the units that a plan trains, merged into the weights at the end."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn
from transformers.pytorch_utils import Conv1D

from gradloc.errors import MethodError
from gradloc.localization.plan import LayerPlan
from gradloc.models.units import find_units
from gradloc.models.wrappers import canonical_name
from gradloc.training.methods.base import Count, Method, Positive, TrainContext


@dataclass(frozen=True)
class Lora(Method):
    """LoRA: W = W0 + (alpha / r) B A, with A of shape (r, in), B of shape (out, r), B = 0 at first.

    Adapters sit on the linear layers of attention and MLP; embeddings and head have none. A plan
    says in which units: under the policy ``all`` this is ordinary LoRA (with its option ``only``,
    of attention or MLPs alone), under any other it is LoRA of the plan's units. A unit's
    learning-rate scale acts on its adapters.

    Args:
        r: Rank, >= 1.
        alpha: Numerator of the scale, > 0. The scale is alpha / r, or alpha / sqrt(r) with
            ``rslora``.
        dropout: Share of an adapter's inputs that are dropped in training, 0 to below 1.
        rslora: Rank-stabilised scale (arXiv:2312.03732).
        dora: Weights decomposed into magnitude and direction (arXiv:2402.09353).

    References: Hu et al. 2021, arXiv:2106.09685, section 4.1. The released code of "Continual
        Knowledge Learning" scales by r / alpha instead.
    """

    r: Count = 16
    alpha: Positive = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rslora: bool = False
    dora: bool = False

    def wrap(self, model: nn.Module, context: TrainContext) -> nn.Module:
        """The model with adapters; its own weights no longer require gradients.

        Raises:
            MethodError: The plan trains no unit of the blocks, or one without a linear layer.
        """
        from peft import LoraConfig, get_peft_model

        names = linear_layers(model, context.plan)
        config = LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,  # type: ignore[arg-type] - PEFT divides any number by r
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
        adapted: Any = model
        try:
            return adapted.merge_and_unload(safe_merge=True)
        except ValueError as error:
            raise MethodError(
                f"lora: the adapters cannot be merged: {error} Lower the learning rate."
            ) from error


def linear_layers(model: nn.Module, plan: LayerPlan) -> list[str]:
    """Names of the linear layers inside the blocks that a plan trains, in the model's order.

    Args:
        model: A plain model, without adapters.
        plan: Which units train.

    Raises:
        MethodError: There is none, or a trained unit has none (routed experts whose weights are
            one tensor, for example).
        PlanMismatchError: The plan is for a model with other units.
    """
    units = find_units(model, plan.granularity)
    plan.check_units(tuple(unit.info for unit in units))
    owners = {
        name: unit.name
        for unit in units
        if unit.info.in_stack and plan.scale[unit.name] > 0
        for name in unit.parameters
    }
    if not owners:
        raise MethodError(
            "lora: the plan trains no unit inside the blocks, so no adapter has a place. Choose "
            "another policy."
        )
    found = {
        name: owners[f"{canonical_name(name)}.weight"]
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and f"{canonical_name(name)}.weight" in owners
    }
    bare = sorted(set(owners.values()) - set(found.values()))
    if bare:
        raise MethodError(
            f"lora: {', '.join(bare[:4])} {'has' if len(bare) == 1 else 'have'} no linear layer "
            "to put an adapter on. Freeze such units in the plan."
        )
    return list(found)
