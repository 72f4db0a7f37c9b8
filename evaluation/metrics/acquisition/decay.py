"""Means of retainability over probes, and the decay that is fitted to them.

References: Chang et al. 2024, arXiv:2406.11813, section 4.3.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

# Times the interquartile range. arXiv:2406.11813 §4.3; the released code uses 2.0.
OUTLIER_FACTOR = 1.5


class MeanCurve(NamedTuple):
    """A mean over probes at each of several times.

    Args:
        values: Mean of the probes that were kept, (n_times,); NaN where none was left.
        n: Probes averaged at each time, (n_times,).
        n_removed: Probes left out as outliers at each time, (n_times,).
    """

    values: np.ndarray
    n: np.ndarray
    n_removed: np.ndarray


class DecayFit(NamedTuple):
    """A straight line through retainability over log10 of the steps since its maximum.

    Args:
        slope: Change of retainability for ten times as many steps; negative: it decays.
        intercept: Fitted retainability one step after the maximum.
        decay_constant: ``-slope``, the paper's a; larger is faster forgetting.
        threshold_steps: Steps after which the line reaches 0, the learnability threshold: a fact
            met again only after longer is forgotten in between. No threshold unless the slope
            is negative; infinite where it is too large for a float.
        log10_threshold: log10 of ``threshold_steps``, which the released code prints.
        slope_standard_error: Standard error of the slope (and of the decay constant).
        r2: Share of the variance that the line explains, 1 at best.
    """

    slope: float
    intercept: float
    decay_constant: float
    threshold_steps: float
    log10_threshold: float
    slope_standard_error: float
    r2: float


def within_fences(values: ArrayLike, factor: float = OUTLIER_FACTOR) -> np.ndarray:
    """Which values are no outliers: within ``factor`` interquartile ranges of the quartiles.

    Args:
        values: Finite numbers, (n,) or (n, n_columns); each column is judged apart.
        factor: 1.5 as in the paper; 2.0 as in the released code. Bounds are inclusive.

    Returns:
        Booleans in the shape of ``values``.
    """
    values = np.asarray(values, float)
    if not values.size:
        return np.zeros(values.shape, bool)
    first, third = np.percentile(values, [25, 75], axis=0)
    room = factor * (third - first)
    return (first - room <= values) & (values <= third + room)


def remove_outliers(values: ArrayLike, factor: float = OUTLIER_FACTOR) -> np.ndarray:
    """The values that ``within_fences`` keeps, in order.

    Example:
        >>> remove_outliers([1.0, 2.0, 2.5, 3.0, 30.0])
        array([1. , 2. , 2.5, 3. ])
    """
    values = np.asarray(values, float)
    return values[within_fences(values, factor)]


def mean_retainability(curves: ArrayLike, factor: float = OUTLIER_FACTOR) -> MeanCurve:
    """Mean over the probes of one scenario and depth, outliers left out at each time apart.

    Args:
        curves: Retainability of each probe, (n_probes, n_times); NaN where there is none.
        factor: As in ``within_fences``.

    Returns:
        The mean curve. A probe may be an outlier at one time and not at another, as published.

    Example:
        >>> mean_retainability([[1.0, 0.5], [1.0, 0.7], [1.0, float("nan")]]).values
        array([1. , 0.6])
    """
    curves = np.atleast_2d(np.asarray(curves, float))
    found = np.isfinite(curves)
    kept = np.zeros(curves.shape, bool)
    whole = found.all(axis=1)
    if (whole | ~found.any(axis=1)).all() and whole.any():
        # The usual case, in one go: a probe has a value at every time or at none.
        kept[whole] = within_fences(curves[whole], factor)
    else:
        for place, column in enumerate(curves.T):
            rows = np.flatnonzero(found[:, place])
            kept[rows, place] = within_fences(column[rows], factor)
    n = kept.sum(axis=0)
    sums = np.where(kept, curves, 0.0).sum(axis=0)
    values = np.divide(sums, n, out=np.full(n.shape, np.nan), where=n > 0)
    return MeanCurve(values, n, found.sum(axis=0) - n)


def fit_decay(steps: ArrayLike, values: ArrayLike) -> DecayFit:
    """Fit retainability = intercept + slope * log10(steps) by least squares.

    Args:
        steps: Steps since the local acquisition maximum, (n,). Those up to 0, which have no
            logarithm, and values that are not finite are left out.
        values: Mean retainability, (n,), a fraction.

    Returns:
        The fit; every field NaN where fewer than three different steps are left, and the
        threshold NaN where the line is level.

    Example:
        >>> fit = fit_decay([1, 10, 100], [1.0, 0.8, 0.6])
        >>> round(fit.decay_constant, 3), round(fit.log10_threshold, 3)
        (0.2, 5.0)
    """
    steps, values = np.asarray(steps, float), np.asarray(values, float)
    usable = (steps > 0) & np.isfinite(values)
    x, y = np.log10(steps[usable]), values[usable]
    if len(np.unique(x)) < 3:
        return DecayFit(*[float("nan")] * 7)
    x_spread = np.sum((x - x.mean()) ** 2)
    slope = np.sum((x - x.mean()) * (y - y.mean())) / x_spread
    intercept = y.mean() - slope * x.mean()
    residual = np.sum((y - intercept - slope * x) ** 2)
    total = np.sum((y - y.mean()) ** 2)
    log10_threshold = -intercept / slope if slope else np.nan
    with np.errstate(over="ignore"):
        threshold = np.float64(10.0) ** log10_threshold
    return DecayFit(
        slope=float(slope),
        intercept=float(intercept),
        decay_constant=float(-slope),
        threshold_steps=float(threshold),
        log10_threshold=float(log10_threshold),
        slope_standard_error=float(np.sqrt(residual / (len(x) - 2) / x_spread)),
        r2=float(1 - residual / total) if total else float("nan"),
    )
