"""What a plan saves on this machine: time and peak memory of real Trainer steps against full ones.

Arms take turns in one process, and every turn begins and ends with full training: what else the
machine does then falls on all arms alike. Memory is measured in a process for each arm.
"""

import copy
import math
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from rich import table as rich_tables
from scipy import stats
from transformers import PreTrainedModel, Trainer

from gradloc.experiments.bench_config import BenchConfig
from gradloc.experiments.bench_runs import (
    REFERENCE,
    Arm,
    ArmTable,
    Turn,
    fill_cache,
    measure_memory,
    time_arms,
    token_rows,
)
from gradloc.localization.cost.prediction import predict_cost
from gradloc.localization.cost.step_shape import StepShape
from gradloc.localization.plan import LayerPlan
from gradloc.models import load_model
from gradloc.models.architecture import model_shape
from gradloc.models.units import find_units
from gradloc.report.table import Cell, Column, make_table, rich_table
from gradloc.training.callback import GradLocCallback
from gradloc.training.freezing import check_trains_something
from gradloc.utils.environment import current_environment

_RATIOS = ("time_ratio", "memory_ratio", "ideal_time_ratio")


def run_bench(arms_of: ArmTable, config: BenchConfig) -> dict[str, Any]:
    """Time all arms in turns, then measure the memory of each in a process of its own.

    Args:
        arms_of: Makes the arms of a model, such as ``plan_arms`` of a plan. It is pickled for the
            processes that measure memory.
        config: Model, sizes and counts.

    Returns:
        Plain values for ``bench.json``: ``config``, ``environment``, ``machine``, ``model``,
        ``arms`` (name -> ``time_ratio`` and ``memory_ratio``, each with ``value``, ``low`` and
        ``high``, ``predicted``, and more) and ``turns`` with every single step.

    Raises:
        GradlocError: The model takes no sequences this long, a cache was not read, or a process
            failed.
    """
    model = load_model(config.model, dtype=config.dtype)
    token_rows(model, config)  # a length that the model does not take fails here, at once
    with tempfile.TemporaryDirectory(prefix="gradloc-bench-") as folder:
        arms = arms_of(model, Path(folder))
        for arm in arms.values():
            if arm.cached:
                fill_cache(arm, copy.deepcopy(model), config)
        turns = time_arms(arms, model, config)
        memory = measure_memory(arms_of, arms, config, Path(folder))
    return {
        "kind": "bench",
        "config": asdict(config),
        "environment": current_environment(),
        "machine": _machine(),
        "model": {"name": config.model, **model_shape(model)},
        "arms": {
            name: _arm_result(name, arm, turns, memory)
            | {"predicted": predicted_ratios(name, arm, model, config)}
            for name, arm in arms.items()
        },
        "turns": [asdict(turn) for turn in turns],
    }


def plan_arms(plan: LayerPlan, model: PreTrainedModel, folder: Path) -> dict[str, Arm]:
    """Full training, the plan, and the plan with a prefix cache where it has a frozen prefix.

    Args:
        plan: The plan; one written by hand needs no units.
        model: The model; it is not changed.
        folder: Where the cache goes.

    Raises:
        GradlocError: The plan does not fit the model or trains nothing.
    """
    check_trains_something(plan)
    units = tuple(unit.info for unit in find_units(model, plan.granularity))
    plan.check_units(units)
    plan = replace(plan, units=units)
    arms = {REFERENCE: Arm("plain Trainer, everything trains"), "plan": plan_arm(plan)}
    if plan.lowest_block:
        arms["plan_cached"] = plan_arm(plan, folder / "plan_cached")
    return arms


def plan_arm(plan: LayerPlan, cache: Path | None = None) -> Arm:
    """An arm that trains under a plan."""

    def trainer(**given: Any) -> Trainer:
        return Trainer(callbacks=[GradLocCallback(plan, cache=cache and str(cache))], **given)

    return Arm(
        f"{len(plan.trained)} of {len(plan.scale)} units train" + ", prefix cached" * bool(cache),
        trainer,
        plan,
        cached=cache is not None,
        step={"label_loss": True, "cached": cache is not None},
    )


def predicted_ratios(
    name: str, arm: Arm, model: PreTrainedModel, config: BenchConfig
) -> dict[str, float | None]:
    """What the cost model says of an arm against full training; ``None`` where it says nothing."""
    if name == REFERENCE:
        return dict.fromkeys(_RATIOS, 1.0)
    if arm.plan is None or arm.step is None:
        return dict.fromkeys(_RATIOS)
    step = StepShape(config.sequence_length, config.batch_size, dtype=config.dtype, **arm.step)
    found = predict_cost(arm.plan.units, arm.plan.scale, model_shape(model), step)
    return {ratio: found.get(ratio) for ratio in _RATIOS}


def time_ratios(turns: Sequence[Turn], arm: str) -> list[float]:
    """An arm's step time / that of full training in the same turn."""
    return [turn.step_seconds(arm) / turn.step_seconds(REFERENCE) for turn in turns]


def mean_ratio(ratios: Sequence[float]) -> dict[str, float | None]:
    """Geometric mean with the 95 % interval of Student's t on the logarithms.

    Example:
        >>> mean_ratio([0.5, 0.5])
        {'value': 0.5, 'low': 0.5, 'high': 0.5}
    """
    if len(ratios) < 2:
        return {"value": ratios[0] if ratios else None, "low": None, "high": None}
    logs = [math.log(ratio) for ratio in ratios]
    value, n = mean(logs), len(logs)
    error = math.sqrt(sum((log - value) ** 2 for log in logs) / (n - 1) / n)
    reach = stats.t.ppf(0.975, n - 1) * error
    ends = {"value": value, "low": value - reach, "high": value + reach}
    return {name: math.exp(end) for name, end in ends.items()}


def bench_table(result: dict[str, Any]) -> rich_tables.Table:
    """The result for the terminal."""
    config, machine = result["config"], result["machine"]
    columns: list[str | Column] = ["arm"]
    for what, unit, of in (("time", "seconds", "a step"), ("memory", "MiB", "above weights")):
        ratio = Column(f"{what} / full", "95 % interval", higher_is_better=False)
        columns += [ratio, Column("predicted"), Column(unit, of)]
    rows = [
        (
            name,
            _ratio_cell(**arm["time_ratio"]),
            _ratio_cell(arm["predicted"]["time_ratio"]),
            f"{arm['step_seconds']:.3g}",
            _ratio_cell(**arm["memory_ratio"]),
            _ratio_cell(arm["predicted"]["memory_ratio"]),
            f"{mean(arm['memory_mib']):,.0f}" if arm["memory_mib"] else "–",
        )
        for name, arm in result["arms"].items()
    ]
    return rich_table(
        make_table(columns, rows),
        f"{result['model']['name']}: a Trainer step of {config['batch_size']} x "
        f"{config['sequence_length']} tokens, {config['dtype']}, on "
        f"{machine.get('gpu') or machine['cpu']}, {machine['n_threads']} threads",
        f"{config['turns']} turns of {config['steps']} steps, seed {config['seed']}",
    )


def _ratio_cell(value: float | None, low: float | None = None, high: float | None = None) -> Cell:
    ends = "" if low is None else f"{low:.2f}–{high:.2f}"
    return Cell("–" if value is None else f"{value:.2f}", ends)


def _arm_result(
    name: str, arm: Arm, turns: list[Turn], memory: dict[str, list[float]]
) -> dict[str, Any]:
    own = time_ratios(turns, name)
    return {
        "about": arm.about,
        "trainable_fraction": arm.plan and arm.plan.trainable_fraction,
        "time_ratio": mean_ratio(own),
        "memory_ratio": mean_ratio(
            [mine / full for mine, full in zip(memory[name], memory[REFERENCE], strict=True)]
        ),
        "step_seconds": mean(turn.step_seconds(name) for turn in turns),
        "memory_mib": memory[name],
        "time_ratios": own,
    }


def _machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")  # Linux alone has it
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    machine: dict[str, Any] = {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "n_threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    return machine
