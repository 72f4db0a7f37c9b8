"""The benchmark from the model to its result.

Comes in: settings. Goes out: the result as plain values, which ``bench.json`` holds. It prints
nothing.
"""

import platform
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradloc.errors import GradlocError
from gradloc.experiments.bench import ratios
from gradloc.experiments.bench.arms import REFERENCE, USERS_ARMS, Arm, ArmTable, arm_table
from gradloc.experiments.bench.memory import measure_memory
from gradloc.experiments.bench.prediction import predict
from gradloc.experiments.bench.settings import BenchSettings
from gradloc.experiments.bench.steps import token_rows
from gradloc.experiments.bench.timing import Rotation, fill_caches, n_runs, time_arms
from gradloc.models import load_model
from gradloc.models.units import model_shape
from gradloc.utils.environment import current_environment

FORMAT = 1
# The arm that those in bfloat16 are also compared with.
BF16_REFERENCE = "full_bf16"


def run_bench(
    settings: BenchSettings,
    *,
    begin: Callable[[int, ArmTable], None] = lambda n, table: None,
    after_run: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """Time all arms in turns, then measure the memory of each in a process of its own.

    Args:
        settings: What to do.
        begin: Called with the number of runs and the arms before the first run.
        after_run: Called with the arm's name after each run.

    Returns:
        ``settings``, ``environment``, ``machine``, ``model``, ``arms`` (name -> ``time_ratio``
        and ``memory_ratio``, each with ``value``, ``low`` and ``high``, and more), ``skipped``
        (name -> reason), ``drift`` and ``rotations`` with every single step.

    Raises:
        GradlocError: Unknown arms, a model without room for ``k`` blocks, a disk without room
            for the caches, a process that failed.
    """
    start = time.monotonic()
    model = load_model(settings.model, dtype=settings.dtype)
    token_rows(model, settings)  # a length that the model does not take fails here, at once
    table = arm_table(model, settings)
    arms = table.choose(settings.arms)
    _check_disk(arms, model, settings)
    begin(n_runs(arms, settings) + settings.memory_repeats * len(arms), table)
    fill_caches(arms, model, settings, after_run=after_run)
    rotations = time_arms(arms, model, settings, after_run=after_run)
    memory = measure_memory(arms, settings, after_run=after_run)
    found = {
        name: _arm_result(arm, rotations, memory)
        | {"predicted": predict(arm, model, settings), "trainable_fraction": _trained_share(arm)}
        for name, arm in arms.items()
    }
    skipped = {} if settings.arms else {**table.missing, **table.set_aside}
    return {
        "format": FORMAT,
        "kind": "bench",
        "settings": {**settings.to_dict(), "cache_dir": None, "arms": list(arms)},
        "environment": current_environment(),
        "machine": _machine(),
        "model": {"name": settings.model, **model_shape(model)},
        "arms": found,
        "skipped": {name: why for name, why in skipped.items() if name not in USERS_ARMS},
        "drift": ratios.drift(rotations),
        "total_seconds": time.monotonic() - start,
        "rotations": [_rotation_values(rotation) for rotation in rotations],
    }


def _arm_result(
    arm: Arm, rotations: list[Rotation], memory: dict[str, list[float]]
) -> dict[str, Any]:
    own = ratios.time_ratios(rotations, arm.name)
    found: dict[str, Any] = {
        "about": arm.about,
        "time_ratio": ratios.mean_ratio(own),
        "memory_ratio": ratios.range_ratio(memory[arm.name], memory[REFERENCE])
        if memory[arm.name]
        else dict.fromkeys(("value", "low", "high")),
        "step_seconds": sum(ratios.step_seconds(r, arm.name) for r in rotations) / len(rotations),
        "shares": ratios.shares(rotations, arm.name),
        "memory_mib": memory[arm.name],
        "time_ratios": own,
    }
    if arm.bf16 and BF16_REFERENCE in rotations[0].runs:
        other = ratios.time_ratios(rotations, BF16_REFERENCE)
        found["time_ratio_to_full_bf16"] = ratios.mean_ratio(
            [mine / full for mine, full in zip(own, other, strict=True)]
        )
    return found


def _trained_share(arm: Arm) -> float | None:
    return arm.plan.trainable_fraction if arm.plan is not None else None


def _rotation_values(rotation: Rotation) -> dict[str, Any]:
    """Every step: seconds of its parts."""
    return {
        "order": list(rotation.order),
        "runs": {
            name: [[{k: round(v, 6) for k, v in vars(step).items()} for step in run] for run in own]
            for name, own in rotation.runs.items()
        },
    }


def _check_disk(arms: dict[str, Arm], model: nn.Module, settings: BenchSettings) -> None:
    tokens = settings.batch_size * settings.steps_a_run * settings.sequence_length
    hidden = model_shape(model)["hidden_size"]
    needed = sum(tokens * hidden * (2 if arm.bf16 else 4) for arm in arms.values() if arm.cached)
    folder = Path(settings.cache_dir)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise GradlocError(
            f"bench: the caches need {needed / 2**20:,.0f} MiB and {folder} has "
            f"{free / 2**20:,.0f} MiB free. Leave out the cached arms with --arms, choose a "
            "smaller --batch-size or --sequence-length, or another TMPDIR."
        )


def _machine() -> dict[str, Any]:
    machine: dict[str, Any] = {
        "cpu": _cpu_name(),
        "n_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "system": platform.platform(),
    }
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    return machine


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
