"""One arm in a process of its own: how much memory its training takes above the weights.

Comes in: a file with the settings and the arm's name, on the command line. Goes out: a JSON
file. It times nothing.

The weights are put where they will be, and everything is imported, before the peak is reset; so
what is left is gradients, optimizer state, activations and logits.
"""

import json
import sys

import psutil
import torch
from torch import nn

from gradloc.experiments.bench.arms import Arm, arm_table
from gradloc.experiments.bench.settings import BenchSettings
from gradloc.experiments.bench.steps import run_arm
from gradloc.models import load_model
from gradloc.utils.io import read_json, write_json
from gradloc.utils.memory import PeakMemory

_MIB = 2**20


def main(request_path: str, result_path: str) -> None:
    """Measure the arm of a request."""
    request = read_json(request_path, "request of the benchmark")
    settings = BenchSettings(**request["settings"])
    model = load_model(settings.model, dtype=settings.dtype)
    arm = arm_table(model, settings).choose((request["arm"],))[request["arm"]]
    write_json(result_path, {"mib": arm_memory(arm, model, settings)})


def arm_memory(arm: Arm, model: nn.Module, settings: BenchSettings) -> float:
    """Peak memory of an arm's steps above the weights, MiB.

    Args:
        arm: The arm; its cache, if any, is filled.
        model: The model; it is trained.
        settings: Sizes.

    Returns:
        Peak resident memory above what is resident before the trainer is built; on a GPU, peak
        allocated device memory above the weights.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            # Weights that are mapped from a file count as resident only once they are read.
            parameter.data = parameter.data.clone()
    if torch.cuda.is_available():
        model.cuda()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run_arm(arm, model, settings, seed=settings.seed)
        return (torch.cuda.max_memory_allocated() - before) / _MIB
    with PeakMemory() as peak:
        before = psutil.Process().memory_info().rss
        run_arm(arm, model, settings, seed=settings.seed)
    return peak.mib - before / _MIB


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:  # the parent shows the last line
        sys.exit(json.dumps(f"{type(error).__name__}: {error}")[1:-1])
