"""How time and memory grow: with the model, with the number of probes, with the corpus.

Comes in: sizes. Goes out, as JSON: what a training step costs as a Llama gets deeper, wider or its
rows longer, beside what ``gradloc.localization.cost`` predicts; what measuring costs as probes
become more; how fast the prefix cache is written and read as the corpus grows.

    python evaluation/studies/growth.py steps
    python evaluation/studies/growth.py probes --n 16 64 256
    python evaluation/studies/growth.py cache --tokens 100000 1000000 10000000

Sizes of a model and numbers of probes take turns in one process; a ratio is formed within a turn,
its 95 % interval is over turns. Memory is the peak above what is resident once the model is there,
in a process of its own for each size. Weights and tokens are random, so nothing is learned; the
vocabulary is tiny, so that blocks are nearly all of the work.

Models this small weigh little beside what a process takes once (18 MiB) and what the heap of glibc
does not give back. ``MALLOC_MMAP_THRESHOLD_=65536`` in the environment leaves the heap out, at the
cost of time.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import psutil
import torch
from bench import place_plan, research_arms
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, LlamaConfig

from gradloc.errors import GradlocError
from gradloc.experiments.bench import mean_ratio, predicted_ratios, time_ratios
from gradloc.experiments.bench_config import BenchConfig
from gradloc.experiments.bench_runs import REFERENCE, Arm, Turn, measure_memory, time_arms
from gradloc.localization.cost.prediction import step_memory, step_seconds
from gradloc.localization.cost.step_shape import StepShape
from gradloc.localization.cost.work import step_work
from gradloc.localization.gradients.measure import BUFFER_BYTES, measure_gradients
from gradloc.localization.profile import GradientProfile
from gradloc.models import load_model
from gradloc.models.architecture import model_shape
from gradloc.models.prefix_cache import CacheConfig, PrefixCache
from gradloc.models.units import find_units
from gradloc.training.freezing import freeze_layers
from gradloc.utils.memory import PeakMemory

VOCABULARY, HEAD_SIZE = 256, 32
AXES = ("blocks", "width", "length")
ANSWER = 4  # labelled tokens at the end of a probe
BATCH, PLAIN_ROWS = 8, 800  # rows of a batch in the cache's passes; rows passed without a cache
_MIB = 2**20


def llama(blocks: int, width: int, length: int, seed: int) -> nn.Module:
    """A Llama with random weights and MLPs three times as wide as its blocks."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=blocks,
        num_attention_heads=width // HEAD_SIZE,
        max_position_embeddings=length,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config)


def in_own_process(function: Callable, *arguments: Any) -> Any:
    """What a function gives in a fresh process, in whose memory nothing is left of other work."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _resident_mib() -> float:
    return psutil.Process().memory_info().rss / _MIB


def _bar(what: str, total: int) -> tqdm:
    return tqdm(desc=what, total=total, leave=False, mininterval=1)


# --- steps --------------------------------------------------------------------------------------


@dataclass
class Case:
    """One size: what ``gradloc.experiments.bench`` needs to measure it, and what it measured."""

    size: dict[str, int]
    model: nn.Module
    config: BenchConfig
    top: str
    arms: dict[str, Arm]
    turns: list[Turn] = field(default_factory=list)
    memory: dict[str, list[float]] = field(default_factory=dict)


def make_case(size: dict[str, int], path: Path, given: argparse.Namespace) -> Case:
    """Write a model, so that other processes find it; its arms are full and the top third."""
    llama(**size, seed=given.seed).save_pretrained(path)
    config = BenchConfig(
        str(path), batch_size=given.batch_size, sequence_length=size["length"], turns=1,
        steps=given.steps, memory_repeats=given.memory_repeats, seed=given.seed,
    )  # fmt: skip
    model, top = load_model(path), f"top{size['blocks'] // 3}"
    return Case(size, model, config, top, arms_of(size["blocks"])(model, path))


def arms_of(blocks: int) -> Callable:
    """Full training and the top third of the blocks."""
    return partial(research_arms, blocks // 3, (f"top{blocks // 3}",))


def predicted_step(case: Case) -> np.ndarray:
    """Seconds and bytes of a step of full training, by the cost model; their ratios count."""
    units = tuple(unit.info for unit in find_units(case.model))
    step = StepShape(case.config.sequence_length, case.config.batch_size)
    work, trained = step_work(units, model_shape(case.model), step), np.ones(len(units), bool)
    return np.array([step_seconds(units, work, trained, step).total, step_memory(work, trained)])


def compare(case: Case, first: Case) -> dict[str, Any]:
    """The plan against full training, and this against full training of the smallest size."""
    top = case.top
    predicted = predicted_ratios(top, case.arms[top], case.model, case.config)
    growth = (predicted_step(case) / predicted_step(first)).tolist()
    seconds, least = ([turn.step_seconds(REFERENCE) for turn in one.turns] for one in (case, first))
    mib = case.memory[REFERENCE]
    return {
        **case.size,
        "n_parameters": sum(parameter.numel() for parameter in case.model.parameters()),
        "seconds": mean(seconds),
        "memory_mib": mib,
        "predicted_memory_mib": predicted_step(case)[1].item() / _MIB,
        "time_ratio": mean_ratio(time_ratios(case.turns, top)),
        "predicted_time_ratio": predicted["time_ratio"],
        "memory_ratio": mib and _mean_ratio(case.memory[top], mib),
        "predicted_memory_ratio": predicted["memory_ratio"],
        "time_growth": _mean_ratio(seconds, least),
        "predicted_time_growth": growth[0],
        "memory_growth": mib and _mean_ratio(mib, first.memory[REFERENCE]),
        "predicted_memory_growth": growth[1],
    }


def steps(given: argparse.Namespace) -> dict[str, Any]:
    """Full training and the top third of the blocks along each axis, the others at their middle."""
    axes = {axis: sorted(set(getattr(given, axis))) for axis in AXES}
    middle = {axis: values[len(values) // 2] for axis, values in axes.items()}
    along = {axis: [middle | {axis: v} for v in values] for axis, values in axes.items()}
    sizes = {tuple(size.values()): size for row in along.values() for size in row}
    with (
        tempfile.TemporaryDirectory() as folder,
        _bar("steps", len(sizes) * (given.turns + 1)) as bar,
    ):
        cases = {
            key: make_case(size, Path(folder) / str(number), given)
            for number, (key, size) in enumerate(sizes.items())
        }
        for seed in range(given.seed, given.seed + given.turns):
            for case in random.Random(seed).sample(list(cases.values()), len(cases)):
                config = replace(case.config, seed=seed)
                case.turns += time_arms(case.arms, case.model, config)
                bar.update()
        for case in cases.values():
            arms = arms_of(case.size["blocks"])
            case.memory = measure_memory(arms, case.arms, case.config, Path(folder))
            bar.update()
    rows = {axis: [cases[tuple(size.values())] for size in row] for axis, row in along.items()}
    return {axis: [compare(case, row[0]) for case in row] for axis, row in rows.items()}


def _mean_ratio(mine: list[float], its: list[float]) -> dict[str, float | None]:
    return mean_ratio([one / other for one, other in zip(mine, its, strict=True)])


# --- probes -------------------------------------------------------------------------------------


def measure(model: nn.Module, n: int, given: argparse.Namespace) -> GradientProfile:
    """Measure on probes whose last tokens are the answer, and on as many texts of that length."""
    generator, sides = torch.Generator().manual_seed(given.seed), []
    for first in (given.length - ANSWER, 0):
        ids = torch.randint(VOCABULARY, (n, given.length), generator=generator)
        labels = ids.clone()
        labels[:, :first] = -100
        sides.append([{"input_ids": ids, "labels": labels}])
    return measure_gradients(model, sides[0], reference=sides[1], progress=False)


def measuring_mib(n: int, given: argparse.Namespace) -> float:
    """Peak memory of ``measure`` above the model, MiB."""
    model = llama(given.blocks, given.width, given.length, given.seed)
    with PeakMemory() as peak:
        before = _resident_mib()
        measure(model, n, given)
    return peak.mib - before


def probes(given: argparse.Namespace) -> dict[str, Any]:
    """Time and memory of measuring, for each number of probes."""
    numbers = sorted(set(given.n))
    model = llama(given.blocks, given.width, given.length, given.seed)
    seconds: dict[int, list[float]] = {n: [] for n in numbers}
    memory = {}
    with _bar("probes", len(numbers) * (given.turns + 1)) as bar:
        measure(model, numbers[0], given)  # a warm-up
        for turn in range(given.turns):
            for n in random.Random(given.seed + turn).sample(numbers, len(numbers)):
                start = time.perf_counter()
                measure(model, n, given)
                seconds[n].append((time.perf_counter() - start) / n)
                bar.update()
        for n in numbers:
            memory[n] = in_own_process(measuring_mib, n, given)
            bar.update()
    found = [
        {
            "n": n,
            "seconds_per_probe": mean(seconds[n]),
            "to_smallest": _mean_ratio(seconds[n], seconds[numbers[0]]),
            "memory_mib": memory[n],
        }
        for n in numbers
    ]
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    # Room: what measure_gradients may keep of the probes until it knows their mean gradient.
    return {"weights_mib": weights / _MIB, "room_mib": BUFFER_BYTES / _MIB, "by_number": found}


# --- cache --------------------------------------------------------------------------------------


def batches(n_rows: int, length: int, order: int, seed: int) -> Iterator[Tensor]:
    """Random tokens, (batch, length): a row is the same in every order, and none is kept."""
    places = torch.randperm(n_rows, generator=torch.Generator().manual_seed(order))
    for batch in places.split(BATCH):
        generators = [torch.Generator().manual_seed(seed + int(place)) for place in batch]
        yield torch.stack([torch.randint(VOCABULARY, (length,), generator=g) for g in generators])


def tokens_per_second(model: nn.Module, rows: Iterator[Tensor], bar: tqdm) -> float:
    """Pass all rows through the blocks, as the forward pass of training does."""
    n_tokens, seconds = 0, 0.0
    for ids in rows:
        start = time.perf_counter()
        with torch.no_grad():
            model.base_model(input_ids=ids, use_cache=False)
        seconds += time.perf_counter() - start
        n_tokens += ids.numel()
        bar.update(ids.numel())
    return n_tokens / seconds


def fill_and_read(n_tokens: int, folder: str, given: argparse.Namespace) -> dict[str, Any]:
    """Two epochs under a plan that trains the last block: one fills the cache, one reads it.

    Raises:
        GradlocError: There is no prefix to cache, or the second epoch did not find everything.
    """
    model = llama(given.blocks, given.width, given.length, given.seed).train()
    freeze_layers(model, place_plan(model, "top1", [given.blocks - 1]))
    n_rows = n_tokens // given.length
    rows = [
        batches(n, given.length, o, given.seed) for o, n in enumerate([PLAIN_ROWS, *[n_rows] * 2])
    ]
    with _bar(f"cache {n_tokens:,}", (PLAIN_ROWS + 2 * n_rows) * given.length) as bar:
        plain = tokens_per_second(model, rows[0], bar)
        config = CacheConfig(folder, given.dtype, max_gib=float("inf"))
        cache = PrefixCache(model, given.blocks - 1, config)
        with PeakMemory() as writing:
            before = _resident_mib()
            first = tokens_per_second(model, rows[1], bar)
            cache.refresh()  # as the callback does between epochs
        with PeakMemory() as reading:
            second = tokens_per_second(model, rows[2], bar)
    if cache.n_hits != cache.n_misses:
        raise GradlocError(
            f"cache: {cache.n_hits} of {cache.n_misses} batches were found in the second pass, so "
            "its speed would be a mixture. Is the disk full?"
        )
    return {
        "tokens": n_rows * given.length,
        "kept_mib": cache.n_bytes / _MIB,
        "without_cache_tokens_per_second": plain,
        "first_pass_tokens_per_second": first,
        "second_pass_tokens_per_second": second,
        "first_pass_memory_mib": writing.mib - before,
        "second_pass_memory_mib": reading.mib - before,
    }


def cache(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Speed and memory of the prefix cache for each size of corpus.

    Raises:
        GradlocError: The disk has no room for the largest.
    """
    needed = max(given.tokens) * given.width * (2 if given.dtype == "bfloat16" else 4)
    if needed > (free := shutil.disk_usage(given.folder).free):
        raise GradlocError(
            f"cache: {max(given.tokens):,} tokens need {needed / _MIB:,.0f} MiB and {given.folder} "
            f"has {free / _MIB:,.0f} MiB free. Choose another --folder, fewer --tokens or "
            "--dtype bfloat16."
        )
    found = []
    for n_tokens in given.tokens:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            found.append(in_own_process(fill_and_read, n_tokens, folder, given))
    return found


# --- the command line ---------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    """Read the arguments, measure, print JSON."""
    given = _options(arguments)
    try:
        found = {"steps": steps, "probes": probes, "cache": cache}[given.what](given)
    except GradlocError as error:
        sys.exit(f"growth: {error}")
    settings = vars(given) | {"threads": torch.get_num_threads()}
    result = json.dumps({"settings": settings, given.what: found})
    # Four significant digits, for people.
    print(json.dumps(json.loads(result, parse_float=lambda x: float(f"{float(x):.4g}")), indent=1))


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="what", required=True)

    def command(name: str, about: str, **counts: int | list[int]) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=about)
        for option, default in counts.items():
            several = {"nargs": "+"} if isinstance(default, list) else {}
            flag = f"--{option.replace('_', '-')}"
            one.add_argument(flag, type=int, default=default, help=f"{default}", **several)
        return one

    command(
        "steps", "training steps along three axes; --steps: timed steps of a run",
        blocks=[3, 6, 12], width=[128, 256, 512], length=[64, 128, 256],
        batch_size=4, turns=5, steps=2, memory_repeats=1, seed=0,
    )  # fmt: skip
    command(
        "probes", "measuring; --n: probes, and as many texts",
        n=[16, 64, 256], blocks=6, width=256, length=64, turns=5, seed=0,
    )  # fmt: skip
    of_cache = command(
        "cache", "the prefix cache; --tokens: of the corpus, --length: of a row",
        tokens=[100_000, 1_000_000, 10_000_000], blocks=4, width=64, length=128, seed=0,
    )  # fmt: skip
    of_cache.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    of_cache.add_argument("--folder", default=tempfile.gettempdir(), help="holds it meanwhile")
    given = parser.parse_args(arguments)
    least = {"blocks": 2, "length": ANSWER + 1, "memory_repeats": 0, "seed": 0}
    if given.what == "cache":
        least["tokens"] = given.length
    for option, values in vars(given).items():
        for value in np.atleast_1d(values):
            if not isinstance(value, str) and value < least.get(option, 1):
                parser.error(f"--{option} {value}: {least.get(option, 1)} at least")
    if any(width % HEAD_SIZE for width in np.atleast_1d(given.width)):
        parser.error(f"--width must be a multiple of {HEAD_SIZE}, the width of a head")
    if given.what == "steps" and any(blocks % 3 for blocks in given.blocks):
        parser.error("--blocks must be multiples of 3: a third of them trains")
    if given.what == "cache" and not Path(given.folder).is_dir():
        parser.error(f"--folder {given.folder}: no such folder")
    return given


if __name__ == "__main__":
    main()
