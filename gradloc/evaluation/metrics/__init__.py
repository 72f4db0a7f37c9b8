"""Metrics: from scores of single items to figures with intervals.

Comes in: numpy arrays. Goes out: numbers, and ``Figure`` where intervals belong to them. It sees
no model, no file and no probe text.
"""

from gradloc.evaluation.metrics.intervals import (
    LEVEL,
    N_BOOTSTRAP,
    Estimate,
    bootstrap_replicates,
    estimate,
    figure,
    interval,
    item_mean,
    stream,
)
from gradloc.evaluation.metrics.probe_metrics import PROBE_METRICS, Columns, ProbeMetric

__all__ = [
    "LEVEL",
    "N_BOOTSTRAP",
    "PROBE_METRICS",
    "Columns",
    "Estimate",
    "ProbeMetric",
    "bootstrap_replicates",
    "estimate",
    "figure",
    "interval",
    "item_mean",
    "stream",
]
