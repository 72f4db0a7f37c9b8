"""Other ways to save: LoRA, gradient masking, LISA and BAdam, as their packages offer them.

Comes in: a model. Goes out: what each adds to the plain Trainer, or why it cannot run here. None
of these methods is implemented here: an arm of our own making would measure our own making.
"""

from types import SimpleNamespace

import torch
from torch import nn
from transformers import Trainer, TrainerCallback

from gradloc.experiments.bench.settings import LORA_RANK
from gradloc.localization.plan import LayerPlan
from gradloc.models.units import find_units
from gradloc.models.wrappers import canonical_name

# Steps after which LISA draws other blocks, and BAdam goes on to the next: the defaults of the
# packages. Runs are shorter, so each run has its own draw and the spread is between rotations.
_LISA_INTERVAL = 20
_BADAM_INTERVAL = 50


def lora(model: nn.Module) -> nn.Module:
    """Wrap a model with LoRA on all linear layers but the head."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=LORA_RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def masking_trainer(model: nn.Module, plan: LayerPlan) -> type[Trainer]:
    """A Trainer class that trains everything and zeroes gradients outside a plan."""
    units = find_units(model, plan.granularity)
    kept = {name for unit in units if plan.scale[unit.name] > 0 for name in unit.parameters}

    class MaskingTrainer(Trainer):
        def training_step(self, model, *args, **kwargs):
            loss = super().training_step(model, *args, **kwargs)
            for name, parameter in model.named_parameters():
                if canonical_name(name) not in kept and parameter.grad is not None:
                    parameter.grad.zero_()
            return loss

    return MaskingTrainer


def lisa_missing() -> str:
    """Why LISA cannot run here; empty if it can."""
    try:
        from swift.callbacks.lisa import LISACallback  # noqa: F401
    except Exception as error:  # a package of that name, or one whose dependencies do not fit
        return (
            "no installed package offers LISA as a callback of the Trainer; ms-swift does "
            f"(pip install ms-swift; here: {type(error).__name__}: {error})"
        )
    return ""


def lisa_callback(k: int) -> TrainerCallback:
    """LISA of ms-swift: k random blocks and everything outside the stack train."""
    from swift.callbacks.lisa import LISACallback

    # It reads these three of ms-swift's own training arguments and nothing else.
    arguments = SimpleNamespace(
        tuner_type="full", lisa_activated_layers=k, lisa_step_interval=_LISA_INTERVAL
    )
    return LISACallback(arguments, None)


def badam_missing() -> str:
    """Why BAdam cannot run here; empty if it can."""
    try:
        from badam import BlockOptimizer  # noqa: F401
    except Exception as error:
        return (
            f"the package badam cannot be imported (pip install badam; here: "
            f"{type(error).__name__}: {error})"
        )
    return ""


def badam_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """BAdam's optimizer: one block at a time trains, the first drawn at random."""
    from badam import BlockOptimizer

    base = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.0, fused=True)
    return BlockOptimizer(
        base_optimizer=base,
        named_parameters_list=list(model.named_parameters()),
        switch_block_every=_BADAM_INTERVAL,
        switch_mode="random",
        verbose=0,
    )
