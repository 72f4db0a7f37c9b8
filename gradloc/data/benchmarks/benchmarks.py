"""The table of benchmarks: files that users download, read as probes.

To add a benchmark, write a function of a path and its rows that gives back what makes the fields
of a row's probes, and enter it in ``BENCHMARKS``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gradloc.data.benchmarks.benchmark_files import JSON_FILES, TABLE_FILES, read_rows
from gradloc.data.benchmarks.benchmark_row import Row
from gradloc.data.benchmarks.choices import minimal_pairs_fields, multiple_choice_fields
from gradloc.data.benchmarks.ckl import ckl_fields
from gradloc.data.benchmarks.entities import ecbd_fields, entity_inferences_fields
from gradloc.data.benchmarks.evolvingqa import evolvingqa_fields
from gradloc.data.benchmarks.fictional import fictional_knowledge_fields
from gradloc.data.benchmarks.knowedit import knowedit_fields
from gradloc.data.benchmarks.probe_building import FieldsOf, make_probes
from gradloc.data.benchmarks.triples import templama_fields, temporalwiki_fields
from gradloc.data.probes import ProbeSet
from gradloc.errors import ProbeError
from gradloc.utils.names import did_you_mean


class Benchmark(NamedTuple):
    """A benchmark that users download.

    Args:
        fields: Path and rows of a file -> function of a row that gives its probes' fields.
        source: Where it was published.
        files: Endings of the files it takes, each also with ``.gz``.
        columns: Names for the values of JSON rows that are bare lists.
    """

    fields: Callable[[Path, list[Row]], FieldsOf]
    source: str
    files: tuple[str, ...] = JSON_FILES
    columns: tuple[str, ...] = ()


_ALL = (*TABLE_FILES, *JSON_FILES)
BENCHMARKS = {
    "ecbd": Benchmark(ecbd_fields, "Onoe et al., NAACL Findings 2022, arXiv:2205.02832"),
    "entity_inferences": Benchmark(
        entity_inferences_fields, "Onoe et al., ACL 2023, arXiv:2305.01651"
    ),
    "ckl": Benchmark(ckl_fields, "Jang et al., ICLR 2022, arXiv:2110.03215", _ALL),
    "evolvingqa": Benchmark(evolvingqa_fields, "Kim et al., NAACL 2024, arXiv:2311.08106", _ALL),
    "knowedit": Benchmark(knowedit_fields, "Zhang et al. 2024, arXiv:2401.01286"),
    "temporalwiki": Benchmark(
        temporalwiki_fields,
        "Jang et al., EMNLP 2022, arXiv:2204.14211",
        _ALL,
        columns=("subject", "relation", "object"),
    ),
    "templama": Benchmark(templama_fields, "Dhingra et al., TACL 2022, arXiv:2106.15110"),
    "fictional_knowledge": Benchmark(
        fictional_knowledge_fields, "Chang et al., NeurIPS 2024, arXiv:2406.11813"
    ),
    "multiple_choice": Benchmark(
        multiple_choice_fields, "ARC: Clark et al. 2018, arXiv:1803.05457"
    ),
    "minimal_pairs": Benchmark(
        minimal_pairs_fields, "BLiMP: Warstadt et al., TACL 2020, arXiv:1912.00582"
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
    rows = read_rows(path, benchmark.columns)
    return ProbeSet(make_probes(path, rows, benchmark.fields(path, rows)))
