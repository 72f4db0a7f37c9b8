"""The table of benchmarks.

Comes in: a benchmark's name and a downloaded file. Goes out: its probes. Add a benchmark by
adding a reader, a plain function of a path, and its row here.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gradloc.data.benchmarks.choices import read_minimal_pairs, read_multiple_choice
from gradloc.data.benchmarks.ckl import read_ckl
from gradloc.data.benchmarks.entities import read_ecbd, read_entity_inferences
from gradloc.data.benchmarks.evolvingqa import read_evolvingqa
from gradloc.data.benchmarks.fictional import read_fictional_knowledge
from gradloc.data.benchmarks.files import JSON_FILES, TABLE_FILES
from gradloc.data.benchmarks.knowedit import read_knowedit
from gradloc.data.benchmarks.triples import read_templama, read_temporalwiki
from gradloc.data.probes import Probe, ProbeSet
from gradloc.errors import ProbeError
from gradloc.utils.names import did_you_mean


class Benchmark(NamedTuple):
    """A benchmark that users download.

    Args:
        read: Path of a file -> its probes.
        files: Endings of the files it takes, each also with ``.gz``.
        source: Where it was published.
    """

    read: Callable[[str | Path], list[Probe]]
    files: tuple[str, ...]
    source: str


BENCHMARKS = {
    "ecbd": Benchmark(read_ecbd, JSON_FILES, "Onoe et al., NAACL Findings 2022, arXiv:2205.02832"),
    "entity_inferences": Benchmark(
        read_entity_inferences, JSON_FILES, "Onoe et al., ACL 2023, arXiv:2305.01651"
    ),
    "ckl": Benchmark(
        read_ckl, (*TABLE_FILES, *JSON_FILES), "Jang et al., ICLR 2022, arXiv:2110.03215"
    ),
    "evolvingqa": Benchmark(
        read_evolvingqa, (*TABLE_FILES, *JSON_FILES), "Kim et al., NAACL 2024, arXiv:2311.08106"
    ),
    "knowedit": Benchmark(read_knowedit, JSON_FILES, "Zhang et al. 2024, arXiv:2401.01286"),
    "temporalwiki": Benchmark(
        read_temporalwiki, (*TABLE_FILES, *JSON_FILES), "Jang et al., EMNLP 2022, arXiv:2204.14211"
    ),
    "templama": Benchmark(read_templama, JSON_FILES, "Dhingra et al., TACL 2022, arXiv:2106.15110"),
    "fictional_knowledge": Benchmark(
        read_fictional_knowledge, JSON_FILES, "Chang et al., NeurIPS 2024, arXiv:2406.11813"
    ),
    "multiple_choice": Benchmark(
        read_multiple_choice, JSON_FILES, "ARC: Clark et al. 2018, arXiv:1803.05457"
    ),
    "minimal_pairs": Benchmark(
        read_minimal_pairs, JSON_FILES, "BLiMP: Warstadt et al., TACL 2020, arXiv:1912.00582"
    ),
}


def read_benchmark(name: str, path: str | Path) -> ProbeSet:
    """Read a downloaded file of a benchmark as probes.

    Args:
        name: A name in ``BENCHMARKS``.
        path: The file, in the form in which its authors release it, plain or ``.gz``.

    Returns:
        The probes, in the order of the file, with ids that begin with the file's name.

    Raises:
        ProbeError: The benchmark is unknown; the file is missing, empty, of another ending or
            not UTF-8; or rows are wrong, in which case all problems are reported together with
            their lines.

    Example:
        >>> read_benchmark("ecbdd", "np_spans_dev.json")
        Traceback (most recent call last):
        gradloc.errors.ProbeError: benchmark: 1 problem
          'ecbdd' is unknown. Did you mean 'ecbd'?
    """
    if name not in BENCHMARKS:
        raise ProbeError("benchmark", [f"{name!r} is unknown. {did_you_mean(name, BENCHMARKS)}"])
    benchmark, path = BENCHMARKS[name], Path(path)
    if path.exists() and not path.is_dir():
        ending = path.name.lower().removesuffix(".gz")
        if not ending.endswith(benchmark.files):
            takes = ", ".join(benchmark.files)
            raise ProbeError(path, [f"{name} takes {takes}, each also with .gz"])
    return ProbeSet(benchmark.read(path))
