"""What a plan saves on this machine: time and peak memory of real Trainer steps against full ones.

Arms take turns in one process, and every turn begins and ends with full training: what else the
machine does then falls on all arms alike. Memory is measured in a process for each arm.
"""

import copy
import gc
import math
import platform
import random
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from typing import Any

import psutil
import torch
from rich import box
from rich.table import Table
from scipy import stats
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from gradloc.errors import GradlocError
from gradloc.experiments.bench_arms import (
    Arm,
    ArmSetup,
    fill_cache,
    run_arm,
    token_rows,
)
from gradloc.experiments.bench_config import BenchConfig
from gradloc.localization.cost import StepShape, predict_cost
from gradloc.localization.plan import LayerPlan
from gradloc.models import load_model
from gradloc.models.architecture import model_shape
from gradloc.models.units import find_units
from gradloc.training.callback import GradLocCallback
from gradloc.training.freezing import check_trains_something
from gradloc.utils.environment import current_environment
from gradloc.utils.memory import PeakMemory

FORMAT = 2
# Every ratio is to this arm.
REFERENCE = "full"
_RATIOS = ("time_ratio", "memory_ratio", "ideal_time_ratio")
_MIB = 2**20

# (model, folder for caches) -> arms by name, ``full`` among them. Other processes call it as well.
ArmTable = Callable[[PreTrainedModel, Path], dict[str, Arm]]


@dataclass(frozen=True)
class Turn:
    """One turn of every arm.

    Args:
        order: Arms in the order in which they ran; ``full`` is first and last.
        seconds: Seconds of the timed steps of each arm's runs, (n_runs, n_steps); two runs of
            ``full``, one of the others.
    """

    order: tuple[str, ...]
    seconds: dict[str, list[list[float]]]

    def step_seconds(self, arm: str) -> float:
        """Seconds of an arm's step: the median of a run, which a disturbed step does not move."""
        return mean(median(run) for run in self.seconds[arm])


def bench_plan(plan: LayerPlan, config: BenchConfig, *, progress: bool | None = None) -> dict:
    """Compare training under a plan, with and without the prefix cache, with full training.

    Args:
        plan: The plan.
        config: Model, sizes and counts.
        progress: Show a progress bar; ``None``: when on a terminal.

    Returns:
        See ``run_bench``.

    Raises:
        GradlocError: The plan does not fit the model or trains nothing.
    """
    return run_bench(partial(plan_arms, plan), config, progress=progress)


def run_bench(
    arms_of: ArmTable, config: BenchConfig, *, progress: bool | None = None
) -> dict[str, Any]:
    """Time all arms in turns, then measure the memory of each in a process of its own.

    Args:
        arms_of: Makes the arms of a model. It is pickled for the processes that measure memory.
        config: Model, sizes and counts.
        progress: Show a progress bar; ``None``: when on a terminal.

    Returns:
        Plain values for ``bench.json``: ``config``, ``environment``, ``machine``, ``model``,
        ``arms`` (name -> ``time_ratio`` and ``memory_ratio``, each with ``value``, ``low`` and
        ``high``, ``predicted``, and more), ``drift`` and ``turns`` with every single step.

    Raises:
        GradlocError: The model takes no sequences this long, a cache was not read, or a process
            failed.
    """
    model = load_model(config.model, dtype=config.dtype)
    token_rows(model, config)  # a length that the model does not take fails here, at once
    with tempfile.TemporaryDirectory(prefix="gradloc-bench-") as folder:
        arms = arms_of(model, Path(folder))
        n_cached = sum(arm.cached for arm in arms.values())
        total = n_cached + config.turns * (len(arms) + 1) + config.memory_repeats * len(arms)
        disable = None if progress is None else not progress
        with tqdm(desc="bench", total=total, unit="run", leave=False, disable=disable) as bar:
            for arm in arms.values():
                if arm.cached:
                    fill_cache(arm, copy.deepcopy(model), config)
                    bar.update()
            turns = time_arms(arms, model, config, advance=bar.update)
            memory = measure_memory(arms_of, arms, config, Path(folder), advance=bar.update)
    return {
        "format": FORMAT,
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
        "drift": drift(turns),
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
    arms = {REFERENCE: Arm("plain Trainer, everything trains", ArmSetup)}
    arms["plan"] = plan_arm(plan)
    if predict_cost(units, plan.scale, {}).get("lowest_block"):
        arms["plan_cached"] = plan_arm(plan, folder / "plan_cached")
    return arms


def plan_arm(plan: LayerPlan, cache: Path | None = None) -> Arm:
    """An arm that trains under a plan."""
    about = f"{len(plan.trained)} of {len(plan.scale)} units train"
    return Arm(
        about + ", prefix cached" * (cache is not None),
        lambda model: ArmSetup(model, [GradLocCallback(plan, cache=cache and str(cache))]),
        plan,
        cached=cache is not None,
        step={"label_loss": True, "cached": cache is not None},
    )


def time_arms(
    arms: dict[str, Arm],
    model: PreTrainedModel,
    config: BenchConfig,
    *,
    advance: Callable[[], Any] = lambda: None,
) -> list[Turn]:
    """Let the arms take turns, each on a copy of the model.

    Args:
        arms: The arms, ``full`` among them; caches are filled already.
        model: The model; it stays as it is.
        config: Sizes and counts.
        advance: Called after each run.
    """
    turns = []
    for number in range(config.turns):
        others = [name for name in arms if name != REFERENCE]
        random.Random(config.seed + number).shuffle(others)
        order = (REFERENCE, *others, REFERENCE)
        seconds: dict[str, list[list[float]]] = {}
        for name in order:
            steps = run_arm(arms[name], copy.deepcopy(model), config, seed=config.seed + number)
            seconds.setdefault(name, []).append(steps)
            gc.collect()  # a Trainer and its callbacks hold each other, and the model
            advance()
        turns.append(Turn(order, seconds))
    return turns


def measure_memory(
    arms_of: ArmTable,
    names: Iterable[str],
    config: BenchConfig,
    folder: Path,
    *,
    advance: Callable[[], Any] = lambda: None,
) -> dict[str, list[float]]:
    """Peak memory of each arm above the weights, MiB, one value a repeat.

    Raises:
        GradlocError: A process was killed.
    """
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(config.memory_repeats):
        for name, values in found.items():
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                try:
                    values.append(pool.submit(arm_memory, arms_of, name, config, folder).result())
                except BrokenProcessPool as error:
                    raise GradlocError(
                        f"bench: the process that measured the memory of {name} was killed. If "
                        "memory ran out, choose a smaller --batch-size."
                    ) from error
            advance()
    return found


def arm_memory(arms_of: ArmTable, name: str, config: BenchConfig, folder: Path) -> float:
    """Peak memory of an arm's steps above the weights, MiB, in this process.

    Returns:
        Peak resident memory above what is resident before the trainer is built: gradients,
        optimizer state, activations and logits. On a GPU, peak allocated device memory.
    """
    model = load_model(config.model, dtype=config.dtype)
    arm = arms_of(model, folder)[name]
    with torch.no_grad():
        for parameter in model.parameters():
            # Weights that are mapped from a file count as resident only once they are read.
            parameter.data = parameter.data.clone()
    if torch.cuda.is_available():
        model.cuda()  # type: ignore[call-arg]  # transformers wraps it without its signature
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run_arm(arm, model, config, seed=config.seed)
        return (torch.cuda.max_memory_allocated() - before) / _MIB
    with PeakMemory() as peak:
        before = psutil.Process().memory_info().rss
        run_arm(arm, model, config, seed=config.seed)
    return peak.mib - before / _MIB


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
    logs = [math.log(ratio) for ratio in ratios]
    value, n = mean(logs), len(logs)
    if n < 2:
        return {"value": math.exp(value), "low": None, "high": None}
    error = math.sqrt(sum((log - value) ** 2 for log in logs) / (n - 1) / n)
    reach = stats.t.ppf(0.975, n - 1) * error
    ends = {"value": value, "low": value - reach, "high": value + reach}
    return {name: math.exp(end) for name, end in ends.items()}


def range_ratio(mine: Sequence[float], full: Sequence[float]) -> dict[str, float | None]:
    """Ratio of the means, with the lowest and highest of any two repeats; peaks hardly vary.

    Example:
        >>> range_ratio([1.0, 3.0], [4.0, 4.0])
        {'value': 0.5, 'low': 0.25, 'high': 0.75}
    """
    if not mine:
        return dict.fromkeys(("value", "low", "high"))
    ends = (min(mine) / max(full), max(mine) / min(full)) if len(mine) > 1 else (None, None)
    return {"value": mean(mine) / mean(full), "low": ends[0], "high": ends[1]}


def drift(turns: Sequence[Turn]) -> float:
    """How much full training changed between its two runs of a turn: the median, 0-1."""
    pairs = [[median(run) for run in turn.seconds[REFERENCE]] for turn in turns]
    return median(abs(math.log(last / first)) for first, last in pairs)


def bench_table(result: dict[str, Any]) -> Table:
    """The result for the terminal."""
    config, machine = result["config"], result["machine"]
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{result['model']['name']}: a Trainer step of {config['batch_size']} x "
        f"{config['sequence_length']} tokens, {config['dtype']}, on "
        f"{machine.get('gpu') or machine['cpu']}, {machine['n_threads']} threads",
        caption=f"lower is better; {config['turns']} turns of {config['steps']} steps, seed "
        f"{config['seed']}; full training itself changed by {result['drift']:.1%} within a turn",
    )
    table.add_column("arm", no_wrap=True)
    for head in (
        "time / full ↓\n[dim]95 % interval[/dim]",
        "predicted",
        "seconds\n[dim]a step[/dim]",
        "memory / full ↓\n[dim]range[/dim]",
        "predicted",
        "MiB\n[dim]above weights[/dim]",
    ):
        table.add_column(head, justify="right", no_wrap=True)
    for name, arm in result["arms"].items():
        mib = f"{mean(arm['memory_mib']):,.0f}" if arm["memory_mib"] else "–"
        table.add_row(
            name,
            _ratio_text(**arm["time_ratio"]),
            _ratio_text(arm["predicted"]["time_ratio"]),
            f"{arm['step_seconds']:.3g}",
            _ratio_text(**arm["memory_ratio"]),
            _ratio_text(arm["predicted"]["memory_ratio"]),
            mib,
        )
    return table


def _ratio_text(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A ratio with its ends: ``0.43 [0.41, 0.45]``."""
    if value is None:
        return "–"
    return f"{value:.2f}" + (f" [{low:.2f}, {high:.2f}]" if low is not None else "")


def _arm_result(
    name: str, arm: Arm, turns: list[Turn], memory: dict[str, list[float]]
) -> dict[str, Any]:
    own = time_ratios(turns, name)
    return {
        "about": arm.about,
        "trainable_fraction": arm.plan and arm.plan.trainable_fraction,
        "time_ratio": mean_ratio(own),
        "memory_ratio": range_ratio(memory[name], memory[REFERENCE]),
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
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "system": platform.platform(),
    }
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    return machine
