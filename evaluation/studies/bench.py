"""What arms of a step cost against full training: blocks by place, bfloat16, LoRA, LISA, BAdam.

    python evaluation/studies/bench.py smollm2-135m-instruct \
        --arms top4 top4_cached middle4_cached ten_mlps lora_r16 --turns 3 --steps 2

Every arm is an ordinary Trainer on random tokens; ``gradloc bench`` compares a plan of yours in
the same way. Rivals run as their packages offer them: LISA with ms-swift, BAdam with badam.
"""

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from rich.console import Console
from torch import nn
from transformers import Trainer, TrainingArguments

from gradloc.errors import GradlocError, MethodError, SelectionError
from gradloc.experiments.bench import bench_table, plan_arm, run_bench
from gradloc.experiments.bench_config import BenchConfig
from gradloc.experiments.bench_runs import REFERENCE, Arm
from gradloc.localization.cost.prediction import predict_cost
from gradloc.localization.plan import LayerPlan
from gradloc.models.architecture import model_shape
from gradloc.models.mixed_precision import PARTS
from gradloc.models.units import find_units
from gradloc.models.wrappers import canonical_name
from gradloc.training.callback import GradLocCallback
from gradloc.training.methods.extra_loss import planned_parameters
from gradloc.training.methods.input_covariance import (
    input_covariance,
    input_projections,
    projected_names,
)
from gradloc.training.methods.input_projection import InputProjectionCallback
from gradloc.training.methods.interpolation import InterpolationCallback
from gradloc.utils.io import write_json
from gradloc.utils.names import did_you_mean

LORA_RANK = 16
# Steps after which LISA draws other blocks, and BAdam goes on to the next: the defaults of the
# packages. Runs are shorter, so each run has its own draw and the spread is between turns.
LISA_INTERVAL, BADAM_INTERVAL = 20, 50


# --- plans --------------------------------------------------------------------------------------


def block_choices(n_blocks: int, k: int) -> dict[str, tuple[int, ...]]:
    """Which blocks each arm trains, by name.

    Raises:
        SelectionError: The model has no room for k blocks beside frozen ones.

    Example:
        >>> block_choices(30, 4)["scattered4"], block_choices(30, 4)["middle4"]
        ((3, 11, 18, 26), (13, 14, 15, 16))
    """
    if k >= n_blocks:
        raise SelectionError(
            f"the model has {n_blocks} blocks: no room for {k} trained ones beside frozen ones. "
            f"Choose --k {n_blocks - 1} or less."
        )
    middle = (n_blocks - k) // 2
    return {
        f"top{k}": tuple(range(n_blocks - k, n_blocks)),
        f"middle{k}": tuple(range(middle, middle + k)),
        f"scattered{k}": tuple(int((i + 0.5) * n_blocks / k) for i in range(k)),
        f"bottom{k}": tuple(range(k)),
    }


def ten_mlp_blocks(n_blocks: int) -> tuple[int, ...]:
    """Blocks whose MLPs have the shape that the default policy chose in a model of 30 blocks.

    measured on SmolLM2-135M: the MLPs of blocks 3-6 and 22-27. In other models both groups keep
    their size and their share of the depth.

    Example:
        >>> ten_mlp_blocks(30)
        (3, 4, 5, 6, 22, 23, 24, 25, 26, 27)
    """
    low = round(n_blocks * 3 / 30)
    end = n_blocks - round(n_blocks * 2 / 30)
    return (*range(low, low + 4), *range(end - 6, end))


def place_plan(
    model: nn.Module, name: str, blocks: Sequence[int], granularity: str = "block"
) -> LayerPlan:
    """Train whole blocks, or with granularity ``sublayer`` their MLPs."""
    units = tuple(unit.info for unit in find_units(model, granularity))
    kind = "block" if granularity == "block" else "mlp"
    scale = {u.name: float(u.block in blocks and u.kind == kind) for u in units}
    return LayerPlan(scale, units, policy=name, granularity=granularity)


# --- arms ---------------------------------------------------------------------------------------


def research_arms(k: int, names: tuple[str, ...], model: nn.Module, folder: Path) -> dict[str, Arm]:
    """The arms of these names, ``full`` first.

    Args:
        k: Whole blocks that the arms ``top``, ``middle``, ``scattered`` and ``bottom`` train.
        names: Names of arms.
        model: The model; it is not changed.
        folder: Where caches go.

    Raises:
        GradlocError: A name is unknown, or its arm cannot run on this model.
    """
    found = {**_plain_arms(), **_placed_arms(k, model, folder), **_rival_arms(k, model)}
    for name in names:
        if name not in found:
            raise GradlocError(f"bench: unknown arm {name!r}. {did_you_mean(name, found)}")
    return {name: found[name] for name in dict.fromkeys((REFERENCE, *names))}


def _plain_arms() -> dict[str, Arm]:
    return {
        REFERENCE: Arm("plain Trainer, everything trains"),
        "full_bf16": Arm(
            "everything trains, bfloat16 autocast",
            lambda args, **given: Trainer(args=replace(args, bf16=True), **given),
        ),
    }


def _placed_arms(k: int, model: nn.Module, folder: Path) -> dict[str, Arm]:
    """Blocks by place, plain, cached and in bfloat16; ten MLPs, plain and projected."""
    n_blocks = model_shape(model)["n_blocks"]
    arms = {}
    for name, blocks in block_choices(n_blocks, k).items():
        plan = place_plan(model, name, blocks)
        arms[name] = plan_arm(plan)
        if predict_cost(plan.units, plan.scale, {})["lowest_block"]:
            cached = f"{name}_cached"
            arms[cached] = plan_arm(plan, folder / cached)
            for suffix, parts in (("_bf16", PARTS), ("_bf16_frozen", ("prefix", "head"))):
                arms[cached + suffix] = bf16_arm(plan, folder / (cached + suffix), parts)
    if n_blocks >= 12:  # room for two groups of them
        plan = place_plan(model, "ten_mlps", ten_mlp_blocks(n_blocks), "sublayer")
        arms["ten_mlps"] = plan_arm(plan)
        with contextlib.suppress(MethodError):  # layers whose inputs cannot be projected
            arms["ten_mlps_projected"] = projected_arm(model, plan)
    return arms


def bf16_arm(plan: LayerPlan, folder: Path, parts: tuple[str, ...]) -> Arm:
    """A cached arm with parts in bfloat16; all parts are ``TrainingArguments(bf16=True)``."""
    whole = parts == PARTS

    def trainer(args: TrainingArguments, **given: Any) -> Trainer:
        options = {"cache": str(folder), "cache_dtype": "bfloat16"}
        callback = GradLocCallback(plan, **options, bfloat16=() if whole else parts)
        args = replace(args, bf16=True) if whole else args
        return Trainer(args=args, callbacks=[callback], **given)

    return Arm(
        f"{plan.policy}, cached, {' and '.join(parts)} in bfloat16", trainer, plan, cached=True
    )


def projected_arm(model: nn.Module, plan: LayerPlan) -> Arm:
    """A plan with projected steps and interpolation to the start.

    Raises:
        MethodError: A layer's input cannot be projected.
    """
    projected_names(model, planned_parameters(model, plan))

    def trainer(model: nn.Module, **given: Any) -> Trainer:
        names = projected_names(model, planned_parameters(model, plan))
        # What a projection holds costs nothing, so one row of tokens gives one of the right size.
        projections = input_projections(input_covariance(model, [range(8)], names))
        callbacks = [GradLocCallback(plan), InputProjectionCallback(projections)]
        return Trainer(model, callbacks=[*callbacks, InterpolationCallback()], **given)

    step = {"label_loss": True, "projected": True}
    return Arm(f"{plan.policy}, steps projected", trainer, plan, step=step)


def _rival_arms(k: int, model: nn.Module) -> dict[str, Arm]:
    n_blocks = model_shape(model)["n_blocks"]
    top = place_plan(model, f"top{k}", range(n_blocks - k, n_blocks))
    everything = replace(top, scale=dict.fromkeys(top.scale, 1.0), policy="everything")
    return {
        f"lora_r{LORA_RANK}": Arm(f"LoRA of rank {LORA_RANK} on all linear layers (PEFT)", lora),
        "masking": Arm(
            f"full training, gradients outside top{k} set to 0 after the backward pass",
            lambda model, **given: masking_trainer(model, top)(model, **given),
        ),
        "lisa": Arm(f"LISA: {k} random blocks, embeddings and head train", partial(lisa, k)),
        "badam": Arm("BAdam: one random block at a time trains", badam),
        "callback_overhead": Arm(
            "full training under a callback that freezes nothing, with the model's own loss",
            # label_loss would save work of its own; here the callback alone is on trial.
            lambda **given: Trainer(
                callbacks=[GradLocCallback(everything, label_loss=False)], **given
            ),
            everything,
            step={},
        ),
    }


def lora(model: nn.Module, **given: Any) -> Trainer:
    """LoRA on all linear layers but the head."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=LORA_RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    return Trainer(get_peft_model(model, config), **given)


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


def lisa(k: int, **given: Any) -> Trainer:
    """LISA of ms-swift: k random blocks and everything outside the stack train."""
    callback = _imported("ms-swift", lambda: __import__("swift.callbacks.lisa", fromlist=["x"]))
    # It reads these three of ms-swift's own training arguments and nothing else.
    arguments = SimpleNamespace(
        tuner_type="full", lisa_activated_layers=k, lisa_step_interval=LISA_INTERVAL
    )
    return Trainer(callbacks=[callback.LISACallback(arguments, None)], **given)


def badam(model: nn.Module, **given: Any) -> Trainer:
    """BAdam's optimizer: one block at a time trains, the first drawn at random."""
    package = _imported("badam", lambda: __import__("badam"))
    optimizer = package.BlockOptimizer(
        base_optimizer=torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.0, fused=True),
        named_parameters_list=list(model.named_parameters()),
        switch_block_every=BADAM_INTERVAL,
        switch_mode="random",
        verbose=0,
    )
    return Trainer(model, optimizers=(optimizer, None), **given)


def _imported(package: str, get: Callable):
    try:
        return get()
    except Exception as error:  # a package of that name, or one whose dependencies do not fit
        raise GradlocError(
            f"bench: {package} cannot be imported ({type(error).__name__}: {error}); "
            f"pip install {package}"
        ) from error


def main(arguments: Sequence[str]) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--arms", nargs="+", required=True, help="an unknown one lists them all")
    parser.add_argument("--k", type=int, default=4, help="blocks that top4 and its like train")
    for name in ("batch_size", "sequence_length", "turns", "steps", "memory_repeats", "seed"):
        default = getattr(BenchConfig, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    options = vars(parser.parse_args(arguments))
    out, k, names = options.pop("out"), options.pop("k"), tuple(options.pop("arms"))
    try:
        result = run_bench(partial(research_arms, k, names), BenchConfig(**options))
    except GradlocError as error:
        sys.exit(str(error))
    write_json(out, result)
    Console(width=160).print(bench_table(result))


if __name__ == "__main__":
    main(sys.argv[1:])
