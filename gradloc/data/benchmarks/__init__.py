"""Benchmarks: the files that users download, read as probes.

Comes in: the name of a benchmark and a file in the form in which its authors release it. Goes
out: a ``ProbeSet``. It downloads nothing, ships no data and runs no model.
"""

from gradloc.data.benchmarks.table import BENCHMARKS, Benchmark, read_benchmark

__all__ = ["BENCHMARKS", "Benchmark", "read_benchmark"]
