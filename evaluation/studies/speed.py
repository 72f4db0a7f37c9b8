"""gradloc and lm-evaluation-harness on the same multiple-choice items: time, memory, accuracy.

Comes in: a model and a file of items. Goes out: how long gradloc takes of the time of the harness's
``hf`` backend, with an interval; both accuracies; how far memory grows above the loaded model.

    python evaluation/studies/speed.py smollm2-135m-instruct arc_easy.jsonl --out speed.json

Both score the same requests with the same model in one process, chunk by chunk and in turns, so
that what else the machine does falls on both. Chunks are cut from the items in order of length:
both form the batches that they would form of all items at once. The harness has the batch size
that is its fastest in a trial. Memory is measured in a process of its own for each.
"""

import argparse
import contextlib
import importlib.metadata
import io
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from gradloc.data.benchmarks import BENCHMARKS, read_benchmark
from gradloc.data.probes import Probe
from gradloc.evaluation.lm_eval import harness_request
from gradloc.evaluation.scoring import score_probes
from gradloc.models import load_model, load_tokenizer
from gradloc.utils.io import write_json
from gradloc.utils.memory import PeakMemory

# The harness's own largest batch in automatic search.
_LARGEST_BATCH = 64
_N_TRIAL = 32
_N_BOOTSTRAP = 10_000
# The harness's peak is measured on so many of the longest items, which favours it if at all.
_N_MEMORY = 200


class Scored(NamedTuple):
    """One way of scoring: summed nats of each candidate of each item, seconds, CPU seconds."""

    nats: list[list[float]]
    seconds: float
    cpu_seconds: float


def by_gradloc(model: Any, tokenizer: Any, probes: Sequence[Probe]) -> Scored:
    """Score items by gradloc."""
    start, cpu = time.perf_counter(), time.process_time()
    columns = score_probes(model, tokenizer, probes, progress=False)
    seconds = time.perf_counter() - start
    return Scored(columns["candidate_nats"], seconds, time.process_time() - cpu)


def by_harness(harness: HFLM, probes: Sequence[Probe]) -> Scored:
    """Score items by the harness's own method for log-likelihoods."""
    requests = [
        Instance("loglikelihood", {}, harness_request(probe, candidate), number)
        for probe in probes
        for number, candidate in enumerate(probe.candidates)
    ]
    start, cpu = time.perf_counter(), time.process_time()
    # The automatic batch size is printed.
    with contextlib.redirect_stdout(io.StringIO()):
        found = iter(harness.loglikelihood(requests, disable_tqdm=True))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Scored([[-next(found)[0] for _ in probe.candidates] for probe in probes], seconds, cpu)


def harness_of(model: Any, tokenizer: Any, batch_size: int | str) -> HFLM:
    """The harness's model around ours."""
    return HFLM(model, tokenizer=tokenizer, batch_size=batch_size, max_batch_size=_LARGEST_BATCH)


def best_batch_size(
    model: Any, tokenizer: Any, probes: Sequence[Probe], sizes: Sequence[str]
) -> tuple[int, dict[str, float]]:
    """The harness's fastest batch size.

    The time of the search for the automatic size is not counted against the harness: the size it
    finds is tried like the others.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        probes: Items to try with.
        sizes: Numbers, and perhaps ``auto``.

    Returns:
        The size, and the seconds of each.
    """
    numbers = {int(size) for size in sizes if size != "auto"}
    if "auto" in sizes:
        harness = harness_of(model, tokenizer, "auto")
        by_harness(harness, probes[:1])
        numbers |= set(harness.batch_sizes.values())
    harnesses = {str(size): harness_of(model, tokenizer, size) for size in sorted(numbers)}
    # The better of two rounds: a pause of the machine must not decide.
    rounds = [
        {size: by_harness(harness, probes).seconds for size, harness in harnesses.items()}
        for _ in range(2)
    ]
    seconds = {size: min(found[size] for found in rounds) for size in harnesses}
    return int(min(seconds, key=seconds.get)), seconds


def accuracies(probes: Sequence[Probe], nats: Sequence[Sequence[float]]) -> dict[str, np.ndarray]:
    """Whether the likeliest candidate is right, (n_items,), in sum and per character."""
    found: dict[str, list[bool]] = {"acc": [], "acc_norm": []}
    for probe, sums in zip(probes, nats, strict=True):
        lengths = [len(candidate) for candidate in probe.candidates]
        for name, scores in (("acc", sums), ("acc_norm", np.divide(sums, lengths))):
            found[name].append(probe.candidates[int(np.argmin(scores))] in probe.targets)
    return {name: np.array(values) for name, values in found.items()}


def ratio_with_interval(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Our share of their time, and its 95 % interval by resampling chunks.

    Example:
        >>> ratio_with_interval([1.0, 1.0], [2.0, 2.0])
        {'value': 0.5, 'low': 0.5, 'high': 0.5}
    """
    a, b = np.array(ours), np.array(theirs)
    draws = np.random.default_rng(0).integers(0, len(a), (_N_BOOTSTRAP, len(a)))
    low, high = np.percentile(a[draws].sum(1) / b[draws].sum(1), [2.5, 97.5])
    return {"value": float(a.sum() / b.sum()), "low": float(low), "high": float(high)}


def compare(options: argparse.Namespace, probes: list[Probe]) -> dict[str, Any]:
    """Score all items both ways in turns."""
    model, tokenizer = _load(options)
    probes = sorted(probes, key=lambda probe: _length(tokenizer, probe))
    first = max(0, (len(probes) - _N_TRIAL) // 2)
    trial = probes[first : first + _N_TRIAL]
    by_gradloc(model, tokenizer, trial[:2])
    size, trials = best_batch_size(model, tokenizer, trial, options.batch_sizes)
    _say(f"harness, seconds for {len(trial)} items by batch size: {trials}; taken: {size}")
    harness = harness_of(model, tokenizer, size)
    nats: dict[str, list] = {"gradloc": [], "harness": []}
    seconds: dict[str, list[float]] = {"gradloc": [], "harness": []}
    cpu: dict[str, list[float]] = {"gradloc": [], "harness": []}
    chunks = [probes[i : i + options.chunk] for i in range(0, len(probes), options.chunk)]
    for number, chunk in enumerate(chunks):
        turns = {
            "gradloc": lambda chunk=chunk: by_gradloc(model, tokenizer, chunk),
            "harness": lambda chunk=chunk: by_harness(harness, chunk),
        }
        for name in sorted(turns, reverse=bool(number % 2)):
            scored = turns[name]()
            nats[name] += scored.nats
            seconds[name].append(scored.seconds)
            cpu[name].append(scored.cpu_seconds)
        _say(
            f"chunk {number + 1} of {len(chunks)}: gradloc {seconds['gradloc'][-1]:.1f} s, "
            f"harness {seconds['harness'][-1]:.1f} s"
        )
    right = {name: accuracies(probes, values) for name, values in nats.items()}
    differences = np.abs(np.concatenate(nats["gradloc"]) - np.concatenate(nats["harness"]))
    return {
        "n_items": len(probes),
        "n_requests": sum(len(probe.candidates) for probe in probes),
        "harness_batch_size": size,
        "harness_trial": trials,
        "n_chunks": len(chunks),
        "seconds": seconds,
        "cpu_seconds": cpu,
        "time_ratio": ratio_with_interval(seconds["gradloc"], seconds["harness"]),
        "cpu_time_ratio": ratio_with_interval(cpu["gradloc"], cpu["harness"]),
        "accuracy": {
            name: {metric: float(values.mean()) for metric, values in found.items()}
            for name, found in right.items()
        },
        "items_judged_differently": {
            metric: int((right["gradloc"][metric] != right["harness"][metric]).sum())
            for metric in ("acc", "acc_norm")
        },
        "largest_difference_nats": float(differences.max()),
    }


def memory_growth(options: argparse.Namespace, probes: list[Probe]) -> float:
    """MiB by which this process grows above the loaded model while it scores."""
    model, tokenizer = _load(options)
    with torch.no_grad():
        # Weights that are mapped from a file count once they were read.
        for parameter in model.parameters():
            parameter.sum()
    harness = harness_of(model, tokenizer, options.harness_size)
    with PeakMemory() as peak:
        before = psutil.Process().memory_info().rss / 2**20
        if options.measure == "gradloc":
            by_gradloc(model, tokenizer, probes)
        else:
            longest = sorted(probes, key=lambda p: len(p.prompt) + max(map(len, p.candidates)))
            by_harness(harness, longest[-_N_MEMORY:])
    return peak.mib - before


def measure_in_own_process(arguments: Sequence[str], who: str, size: int) -> float:
    """``memory_growth`` of a fresh process."""
    command = [sys.executable, __file__, *arguments, "--measure", who, "--harness-size", str(size)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout.split()[-1])


def main(arguments: Sequence[str]) -> int:
    """Run from the command line; the exit code is 1 where the accuracies differ."""
    options = _options(arguments)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    probes = list(read_benchmark(options.benchmark, options.file))[: options.n]
    if options.measure:
        print(memory_growth(options, probes))
        return 0
    result = compare(options, probes)
    result["memory_growth_mib"] = {
        who: measure_in_own_process(arguments, who, result["harness_batch_size"])
        for who in ("gradloc", "harness")
    }
    result["setting"] = {
        "model": options.model,
        "file": Path(options.file).name,
        "dtype": options.dtype,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        **{name: importlib.metadata.version(name) for name in ("lm-eval", "torch", "transformers")},
    }
    if options.out:
        write_json(options.out, result)
    shown = {key: value for key, value in result.items() if not key.endswith("seconds")}
    print(json.dumps(shown, indent=1))
    return int(result["accuracy"]["gradloc"] != result["accuracy"]["harness"])


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder, hub id, .gguf file or name of packaged weights")
    parser.add_argument("file", help="items, such as arc_easy.jsonl")
    parser.add_argument("--benchmark", default="multiple_choice", choices=sorted(BENCHMARKS))
    parser.add_argument("--n", type=int, help="only the first N items")
    parser.add_argument("--dtype", default="float32", help="type of the weights")
    parser.add_argument("--chunk", type=int, default=100, help="items scored in one turn")
    parser.add_argument(
        "--batch-sizes", nargs="+", default=["auto", "1", "2", "4", "8", "16", "32"],
        help="tried for the harness", metavar="SIZE",
    )  # fmt: skip
    parser.add_argument("--out", help="JSON file for the result")
    parser.add_argument("--measure", choices=("gradloc", "harness"), help=argparse.SUPPRESS)
    parser.add_argument("--harness-size", type=int, default=1, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _length(tokenizer: Any, probe: Probe) -> tuple[int, int]:
    """Tokens of the prompt, which items share, then characters of the longest candidate."""
    return len(tokenizer(probe.prompt)["input_ids"]), max(map(len, probe.candidates))


def _load(options: argparse.Namespace) -> tuple[Any, Any]:
    return load_model(options.model, dtype=options.dtype), load_tokenizer(options.model)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
