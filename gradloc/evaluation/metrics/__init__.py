"""Metrics: from scores of single items to figures with intervals."""

from gradloc.evaluation.bootstrap import (
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
from gradloc.evaluation.metrics.metric_table import PROBE_METRICS, Columns, ProbeMetric

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
