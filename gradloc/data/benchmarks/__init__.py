"""Benchmarks: the files that users download, read as probes."""

from gradloc.data.benchmarks.benchmarks import BENCHMARKS, Benchmark, read_benchmark

__all__ = ["BENCHMARKS", "Benchmark", "read_benchmark"]
