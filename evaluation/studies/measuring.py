"""What measuring costs: against the plain way, and against ordinary backward passes.

Comes in: a model and probes. Goes out: the time of ``measure_gradients`` on probes and shipped
reference passages, as a ratio to measuring one sequence at a time (which models with an unknown
layer get) and to forward and backward passes that train everything on the same batches. Measured
are a whole profile, norms alone, and norms of the probes alone.

    python evaluation/studies/measuring.py smollm2-135m-instruct \
        runs/quickstart/probes.jsonl --turns 5

All take turns in one process; a ratio is formed within a turn, its 95 % interval is over turns. It
also says how far the figures of both ways of measuring lie apart.
"""

import argparse
import json
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
from scipy import stats
from torch import nn
from tqdm.auto import tqdm

from gradloc.data.batches import Row, collate, pad_token_id, probe_rows, text_rows
from gradloc.data.probes import load_probes
from gradloc.localization.gradients.measure import measure_gradients
from gradloc.localization.probe_profile import draw_probes, reference_texts
from gradloc.localization.profile import GradientProfile
from gradloc.models import load_model, load_tokenizer


def ordinary(model: nn.Module, rows: list[Row], pad: int) -> None:
    """Forward and backward on every batch, gradients on all parameters, as in full training."""
    for start in range(0, len(rows), 8):
        model(**collate(rows[start : start + 8], pad)).loss.backward()
        model.zero_grad(set_to_none=True)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Within it ``measure_gradients`` measures as for a model whose layers are not known."""
    target = "gradloc.localization.gradients.measure.per_sample.unknown_parameters"
    with patch(target, return_value=["any layer"]):
        yield


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What the work gives, and the seconds it took."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def ratio(top: list[float], bottom: list[float]) -> dict[str, float]:
    """Geometric mean of the turns' ratios and its 95 % interval (Student's t on logarithms)."""
    logs = np.log(np.array(top) / np.array(bottom))
    half = 0.0
    if len(logs) > 1:
        half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
    low, value, high = np.exp([logs.mean() - half, logs.mean(), logs.mean() + half])
    return {"value": round(value, 3), "low": round(low, 3), "high": round(high, 3)}


def largest_difference(left: GradientProfile, right: GradientProfile) -> float:
    """Largest difference of a norm, as a share of the norm."""
    pairs = (
        (left.probe_norms, right.probe_norms),
        (left.reference_norms, right.reference_norms),
    )
    return max(float(np.max(np.abs(a - b) / b)) for a, b in pairs)


def main() -> None:
    """Read the arguments, take turns, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("probes", help="JSONL of probes")
    parser.add_argument("--n", type=int, default=24, help="probes, and reference texts")
    parser.add_argument("--max-length", type=int, default=96)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.getLogger("gradloc.localization.gradients.measure").setLevel(
        logging.ERROR
    )  # it is slow by request
    model, tokenizer = load_model(given.model).train(), load_tokenizer(given.model)
    chosen = draw_probes(load_probes(given.probes), given.n, given.seed)
    texts = random.Random(given.seed).sample(reference_texts(None), given.n)
    probes = probe_rows(tokenizer, chosen, max_length=given.max_length)
    reference = text_rows(tokenizer, texts, max_length=given.max_length)
    both = [*probes, *reference]
    cases = {  # what is measured, and the rows that it goes through
        "profile": (partial(measure_gradients, model, probes, reference=reference), both),
        "norms": (partial(measure_gradients, model, both), both),
        "norms_of_probes": (partial(measure_gradients, model, probes), probes),
    }
    ways = ("gradloc", "one_at_a_time", "ordinary")
    seconds: dict[str, dict[str, list[float]]] = {name: {w: [] for w in ways} for name in cases}
    for turn in tqdm(range(given.turns + 1), unit="turn"):
        for name, (measure, rows) in cases.items():
            mine, own = timed(partial(measure, progress=False))
            with one_at_a_time():
                plain, one = timed(partial(measure, progress=False))
            _, usual = timed(partial(ordinary, model, rows, pad_token_id(tokenizer)))
            if name == "profile":
                difference = largest_difference(mine, plain)
            for way, value in zip(ways, (own, one, usual), strict=True):
                if turn:  # the first is a warm-up
                    seconds[name][way].append(value)
    result = {
        name: {
            "seconds": {way: round(float(np.mean(values)), 2) for way, values in spent.items()},
            "to_one_at_a_time": ratio(spent["gradloc"], spent["one_at_a_time"]),
            "to_ordinary": ratio(spent["gradloc"], spent["ordinary"]),
        }
        for name, spent in seconds.items()
    }
    settings = {"model": given.model, "n_probes": len(chosen), "n_texts": len(texts)}
    result |= {**settings, "largest_difference": difference, "turns": given.turns}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
