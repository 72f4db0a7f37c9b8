"""Metrics: what is read off scored probes. ``metric_table`` is the table; add yours there."""

from gradloc.evaluation.metrics.metric_table import PROBE_METRICS, Columns, ProbeMetric

__all__ = ["PROBE_METRICS", "Columns", "ProbeMetric"]
