"""Metrics: from scores of single items to figures with intervals.

Comes in: numpy arrays. Goes out: numbers, and ``MetricValue`` where intervals belong to them. It
sees no model, no file and no probe text.
"""

from gradloc.evaluation.metrics.intervals import (
    LEVEL,
    N_BOOTSTRAP,
    BootstrapEstimate,
    bootstrap_replicates,
    derive_seed,
    estimate,
    figure,
    interval,
    item_mean,
)
from gradloc.evaluation.metrics.probe_metrics import PROBE_METRICS, Columns, ProbeMetric

__all__ = [
    "LEVEL",
    "N_BOOTSTRAP",
    "PROBE_METRICS",
    "Columns",
    "BootstrapEstimate",
    "ProbeMetric",
    "bootstrap_replicates",
    "estimate",
    "figure",
    "interval",
    "item_mean",
    "derive_seed",
]
