"""Peak memory of every arm, each in a process of its own.

Comes in: arms and settings. Goes out: MiB above the weights, one value a repeat. The measuring
itself is ``gradloc.experiments.bench.worker``'s.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from gradloc.errors import GradlocError
from gradloc.experiments.bench.settings import BenchSettings
from gradloc.utils.io import read_json, write_json


def measure_memory(
    arms: Iterable[str],
    settings: BenchSettings,
    *,
    after_run: Callable[[str], None] = lambda what: None,
) -> dict[str, list[float]]:
    """Measure each arm ``settings.memory_repeats`` times.

    Args:
        arms: Names of the arms; caches are filled already.
        settings: The settings.
        after_run: Called with the arm's name after each measurement.

    Returns:
        Peak memory above the weights, MiB, one value a repeat.

    Raises:
        GradlocError: A process failed; the message has its last line.
    """
    found: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(settings.memory_repeats):
        for name, values in found.items():
            values.append(_one(name, settings))
            after_run(name)
    return found


def _one(arm: str, settings: BenchSettings) -> float:
    with tempfile.TemporaryDirectory() as folder:
        request, result = Path(folder) / "request.json", Path(folder) / "result.json"
        write_json(request, {"arm": arm, "settings": settings.to_dict()})
        command = [
            sys.executable,
            "-m",
            "gradloc.experiments.bench.worker",
            str(request),
            str(result),
        ]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode or not result.exists():
            lines = done.stderr.strip().splitlines() or ["it said nothing"]
            killed = " (killed; out of memory?)" if done.returncode < 0 else ""
            raise GradlocError(f"bench: the memory of {arm} was not measured{killed}: {lines[-1]}")
        return float(read_json(result, "result of the benchmark")["mib"])
