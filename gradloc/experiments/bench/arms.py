"""The arms of a benchmark: ordinary Trainer set-ups, one function each.

Comes in: a model and the settings. Goes out: a table of arms, each of which says what it adds to
the plain Trainer. It trains nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback

from gradloc.errors import GradlocError, MethodError, SelectionError
from gradloc.experiments.bench import rivals
from gradloc.experiments.bench.bfloat16 import BF16_TOO_SLOW, bf16_slowdown
from gradloc.experiments.bench.plans import (
    block_choices,
    blocks_plan,
    everything_plan,
    mlps_plan,
    ten_mlp_blocks,
)
from gradloc.experiments.bench.settings import LORA_RANK, BenchSettings
from gradloc.localization.cost import predict_cost
from gradloc.localization.plan import LayerPlan
from gradloc.models.mixed_precision import PARTS
from gradloc.models.units import find_units, model_shape
from gradloc.training.callback import GradLocCallback
from gradloc.training.freezing import check_trains_something
from gradloc.training.methods.extra_loss import planned_parameters
from gradloc.training.methods.input_covariance import (
    input_covariance,
    input_projections,
    projected_names,
)
from gradloc.training.methods.input_projection import InputProjectionCallback
from gradloc.training.methods.interpolation import InterpolationCallback
from gradloc.utils.names import did_you_mean

# Every ratio is to this arm.
REFERENCE = "full"
# Those that a plan of the user's makes.
USERS_ARMS = ("plan", "plan_cached", "plan_projected")


@dataclass
class Setup:
    """What an arm adds to ``Trainer(model, TrainingArguments(...))``.

    Args:
        model: The model to train, wrapped where the arm does so.
        callbacks: Callbacks of the trainer.
        arguments: Training arguments other than the common ones.
        optimizer: An optimizer of the arm's own; ``None``: the Trainer's.
        trainer: The class of the trainer.
    """

    model: nn.Module
    callbacks: list[TrainerCallback] = field(default_factory=list)
    arguments: dict[str, Any] = field(default_factory=dict)
    optimizer: torch.optim.Optimizer | None = None
    trainer: type[Trainer] = Trainer


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Args:
        name: Its name.
        about: What it is, in a few words.
        build: Makes the set-up around a model of its own.
        plan: The plan it trains under, where there is one.
        cached: Whether it starts at hidden states that were computed before.
        bf16: Whether it, or a part of it, computes in bfloat16 autocast over the weights as they
            are.
        label_loss: Whether its head and loss are computed at labelled positions only.
        projected: Whether its steps are projected.
        usual: Whether it runs when no arms are named.
    """

    name: str
    about: str
    build: Callable[[nn.Module], Setup]
    plan: LayerPlan | None = None
    cached: bool = False
    bf16: bool = False
    label_loss: bool = False
    projected: bool = False
    usual: bool = True


@dataclass(frozen=True)
class ArmTable:
    """All arms of a model.

    Args:
        arms: Those that can run here, by name.
        missing: Those that cannot, with the reason.
        set_aside: Those that run only when they are named, with the reason.
    """

    arms: dict[str, Arm]
    missing: dict[str, str]
    set_aside: dict[str, str]

    def choose(self, names: tuple[str, ...]) -> dict[str, Arm]:
        """The arms of these names, ``full`` first; of no names: the usual ones.

        Raises:
            GradlocError: A name is unknown, or its arm cannot run here.
        """
        problems = []
        for name in names:
            if name in self.missing:
                problems.append(f"arm {name!r} cannot run: {self.missing[name]}")
            elif name not in self.arms:
                known = (*self.arms, *self.missing)
                problems.append(f"unknown arm {name!r}. {did_you_mean(name, known)}")
        if problems:
            raise GradlocError("bench: " + "\n  ".join(problems))
        wanted = names or [
            name for name, arm in self.arms.items() if arm.usual and name not in self.set_aside
        ]
        return {name: self.arms[name] for name in dict.fromkeys((REFERENCE, *wanted))}


def arm_table(model: nn.Module, settings: BenchSettings) -> ArmTable:
    """Make the arms of a model.

    Args:
        model: The model; it is looked at and not changed.
        settings: The settings.

    Raises:
        GradlocError: The model has no room for ``k`` blocks, or the user's plan does not fit.
    """
    plans, missing = _plans(model, settings)
    top, middle = f"top{settings.k}", f"middle{settings.k}"
    arms = [
        Arm(REFERENCE, "plain Trainer, everything trains", Setup),
        Arm(
            "full_bf16",
            "everything trains, bfloat16 autocast",
            lambda model: Setup(model, arguments={"bf16": True}),
            bf16=True,
        ),
    ]
    for name, plan in plans.items():
        arms.append(_plan_arm(plan, name))
        if name in (top, middle, "plan"):
            arms.append(_plan_arm(plan, f"{name}_cached", settings))
        if name == top:
            arms.append(_plan_arm(plan, f"{name}_cached_bf16", settings, bf16=PARTS))
            frozen = ("prefix", "head")
            arms.append(_plan_arm(plan, f"{name}_cached_bf16_frozen", settings, bf16=frozen))
        if name in ("ten_mlps", "plan"):
            try:
                projected_names(model, planned_parameters(model, plan))
                arms.append(_plan_arm(plan, f"{name}_projected", projected=True))
            except MethodError as error:
                missing[f"{name}_projected"] = str(error)
    others, others_missing = _other_arms(model, plans[top], settings.k)
    arms += others
    missing |= others_missing
    for arm in list(arms):
        if arm.cached and not predict_cost(arm.plan.units, arm.plan.scale, {})["lowest_block"]:
            missing[arm.name] = "the plan trains block 0 or the embeddings: nothing to cache."
            arms.remove(arm)
        elif arm.bf16 and settings.dtype == "bfloat16":
            missing[arm.name] = "the weights are bfloat16 already (--dtype)."
            arms.remove(arm)
    set_aside = {}
    if (slowdown := bf16_slowdown()) > BF16_TOO_SLOW:
        why = (
            f"bfloat16 products take {slowdown:.0f} times as long as float32 ones here; name it in "
        )
        set_aside = {arm.name: f"{why}--arms to run it all the same." for arm in arms if arm.bf16}
    return ArmTable({arm.name: arm for arm in arms}, missing, set_aside)


def _plans(
    model: nn.Module, settings: BenchSettings
) -> tuple[dict[str, LayerPlan], dict[str, str]]:
    """The plans by arm, and those that this model has no place for."""
    n_blocks = model_shape(model)["n_blocks"]
    choices = block_choices(n_blocks, settings.k)
    plans = {name: blocks_plan(model, name, blocks) for name, blocks in choices.items()}
    missing = {}
    try:
        plans["ten_mlps"] = mlps_plan(model, "ten_mlps", ten_mlp_blocks(n_blocks))
    except SelectionError as error:
        missing |= dict.fromkeys(("ten_mlps", "ten_mlps_projected"), str(error))
    if settings.plan is not None:
        plans["plan"] = _users_plan(model, settings.plan)
    else:
        missing |= dict.fromkeys(USERS_ARMS, "no --plan was given.")
    return plans, missing


def _users_plan(model: nn.Module, values: dict) -> LayerPlan:
    plan = LayerPlan.from_dict(values, "--plan")
    check_trains_something(plan)
    units = tuple(unit.info for unit in find_units(model, plan.granularity))
    plan.check_units(units)
    # A plan written by hand has a scale and nothing else; the prediction needs the units.
    return LayerPlan.from_dict({**values, "units": [vars(unit) for unit in units]}, "--plan")


def _plan_arm(
    plan: LayerPlan,
    name: str,
    cached_by: BenchSettings | None = None,
    *,
    bf16: tuple[str, ...] = (),
    projected: bool = False,
) -> Arm:
    """An arm that trains under a plan, with a cache where settings say in which folder.

    All parts in bfloat16 are what ``TrainingArguments(bf16=True)`` does.
    """
    whole, some = bf16 == PARTS, bf16 if bf16 != PARTS else ()

    def build(model: nn.Module) -> Setup:
        cache = {}
        if cached_by is not None:
            # A folder for each arm: the hidden states of autocast are others.
            cache["cache"] = str(Path(cached_by.cache_dir) / name)
            cache["cache_dtype"] = "bfloat16" if bf16 else "float32"
        callbacks: list[TrainerCallback] = [GradLocCallback(plan, **cache, bfloat16=some)]
        if projected:
            callbacks += [_projection(model, plan), InterpolationCallback()]
        return Setup(model, callbacks, {"bf16": True} if whole else {})

    about = f"{len(plan.trained)} of {len(plan.scale)} units train"
    about += ", cached hidden states" * (cached_by is not None)
    about += ", bfloat16 autocast" * whole + f", {' and '.join(some)} in bfloat16" * bool(some)
    about += ", steps projected, a part of the change kept" * projected
    return Arm(
        name,
        about,
        build,
        plan,
        cached=cached_by is not None,
        bf16=bool(bf16),
        label_loss=True,
        projected=projected,
        usual=not name.startswith("middle") or cached_by is None,
    )


def _projection(model: nn.Module, plan: LayerPlan) -> InputProjectionCallback:
    """A projection of the right size: what it holds costs nothing, so one row of tokens is "
    "enough."""
    names = projected_names(model, planned_parameters(model, plan))
    return InputProjectionCallback(input_projections(input_covariance(model, [range(8)], names)))


def _other_arms(model: nn.Module, top: LayerPlan, k: int) -> tuple[list[Arm], dict[str, str]]:
    """LoRA, gradient masking, LISA, BAdam, and the callback on top of full training."""
    everything = everything_plan(model, "callback_overhead")
    arms = [
        Arm(
            f"lora_r{LORA_RANK}",
            f"LoRA of rank {LORA_RANK} on all linear layers (PEFT)",
            lambda model: Setup(rivals.lora(model)),
        ),
        Arm(
            "masking",
            f"full training, gradients outside {top.policy} set to 0 after the backward pass",
            lambda model: Setup(model, trainer=rivals.masking_trainer(model, top)),
        ),
        Arm(
            "lisa",
            f"LISA of ms-swift: {k} random blocks, embeddings and head train",
            lambda model: Setup(model, [rivals.lisa_callback(k)]),
        ),
        Arm(
            "badam",
            "BAdam: one random block at a time trains",
            lambda model: Setup(model, optimizer=rivals.badam_optimizer(model)),
        ),
        Arm(
            "callback_overhead",
            "full training under a callback that freezes nothing, with the model's own loss",
            # label_loss would save work of its own; here the callback alone is on trial.
            lambda model: Setup(model, [GradLocCallback(everything, label_loss=False)]),
            everything,
            usual=False,
        ),
    ]
    missing = {"lisa": rivals.lisa_missing(), "badam": rivals.badam_missing()}
    missing = {name: why for name, why in missing.items() if why}
    return [arm for arm in arms if arm.name not in missing], missing
