"""Acquisition metrics against hand-computed tables and a plain loop."""

import math

import numpy as np
import pytest
from scipy.stats import linregress

from evaluation.metrics.acquisition.decay import (
    DecayFit,
    fit_decay,
    mean_retainability,
    remove_outliers,
)
from evaluation.metrics.acquisition.exposures import (
    effectivity,
    local_acquisition_maximum,
    retainability,
)
from gradloc.errors import GradlocError


def loop_measures(losses, exposures, t, window):
    """The paper's formulas, step by step, for a series measured at every step."""
    gains = []
    for step in exposures:
        best = None
        for after in range(step + 1, min(step + window, len(losses) - 1) + 1):
            if best is None or losses[after] < losses[best]:
                best = after
        gains.append(losses[step] - losses[best])
    before = losses[exposures[0]]
    kept = (losses[best + t] - before) / (losses[best] - before)
    return gains, kept


@pytest.mark.parametrize("seed", range(5))
def test_equals_a_plain_loop_on_random_walks(seed):
    rng = np.random.default_rng(seed)
    losses = 5 + np.cumsum(rng.normal(-0.01, 0.1, 200))
    exposures = [3, 40, 77]
    gains, kept = loop_measures(losses, exposures, t=31, window=25)
    assert [effectivity(losses, t, 25) for t in exposures] == pytest.approx(gains)
    released = retainability(losses, exposures, 31, 25, released=True)
    assert float(released) == pytest.approx(kept)


def test_the_maximum_is_the_first_within_the_window():
    losses = [1.0, 5.0, 4.0, 2.0, 2.0, 0.5]
    # The step of the exposure itself does not count, the last of the window does.
    assert local_acquisition_maximum(losses, 0, window=4) == 3
    assert local_acquisition_maximum(losses, 0, window=5) == 5
    assert local_acquisition_maximum(losses, 4, window=50) == 5


def test_a_loss_that_is_no_number_is_never_the_best():
    assert local_acquisition_maximum([3.0, math.nan, 2.0], 0) == 2
    assert math.isnan(effectivity([3.0, math.nan], 0))


def test_measured_every_few_steps():
    steps = [0, 4, 8, 12, 16, 20]
    losses = [9.0, 3.0, 1.0, 2.0, 2.5, 3.0]
    # The exposure at 6 cannot be seen at 4, so 4 is before it and 8 the first after it.
    assert local_acquisition_maximum(losses, 6, window=3, steps=steps) == 2
    assert effectivity(losses, 6, window=3, steps=steps) == 2.0
    kept = retainability(losses, 6, [0, 4, 8, 12, 2, 400], window=3, steps=steps)
    # (3 - loss) / (3 - 1); no value between measurements and after the last.
    np.testing.assert_allclose(kept, [1, 0.5, 0.25, 0.0, np.nan, np.nan])


def test_retainability_is_between_before_the_first_and_the_last_maximum():
    losses = [4.0, 3.0, 3.5, 2.0, 3.0, 4.0, 5.0]
    kept = retainability(losses, [0, 2], [0, 1, 2, 3], window=2)
    np.testing.assert_allclose(kept, [1.0, 0.5, 0.0, -0.5])
    # The order of the exposures says nothing.
    np.testing.assert_allclose(retainability(losses, [2, 0], [0, 1, 2, 3], window=2), kept)


def test_where_nothing_was_acquired_nothing_can_be_kept():
    rising = [1.0, 2.0, 3.0]
    assert np.isnan(retainability(rising, 0, [0, 1])).all()
    np.testing.assert_allclose(retainability(rising, 0, [0, 1], released=True), [1.0, 2.0])
    level = [1.0, 1.0, 2.0]
    assert np.isnan(retainability(level, 0, [0, 1], released=True)).all()


def test_outliers_lie_beyond_the_fences_and_the_fences_belong_to_the_inside():
    # Quartiles 1 and 3: the fences at factor 1.5 are -2 and 6.
    values = [0.0, 1.0, 2.0, 3.0, 6.0]
    assert remove_outliers(values, 1.5).tolist() == values
    assert remove_outliers([0.0, 1.0, 2.0, 3.0, 6.001], 1.5).tolist() == [0.0, 1.0, 2.0, 3.0]
    assert remove_outliers([0.0, 1.0, 2.0, 3.0, 6.001], 2.0).tolist()[-1] == 6.001
    assert remove_outliers([]).size == 0


@pytest.mark.parametrize("hole", [False, True])
def test_the_mean_leaves_outliers_out_at_each_time_apart(hole):
    rng = np.random.default_rng(0)
    curves = rng.normal(0.5, 0.1, (12, 6))
    curves[3, 2] = 40.0
    curves[5] = np.nan  # acquired nothing
    if hole:
        curves[7, 4] = np.nan  # one time that was not measured
    found = mean_retainability(curves)
    for place in range(6):
        column = [value for value in curves[:, place] if not math.isnan(value)]
        q1, q3 = np.percentile(column, 25), np.percentile(column, 75)
        kept = [v for v in column if q1 - 1.5 * (q3 - q1) <= v <= q3 + 1.5 * (q3 - q1)]
        assert found.values[place] == pytest.approx(sum(kept) / len(kept))
        assert (found.n[place], found.n_removed[place]) == (len(kept), len(column) - len(kept))
    assert found.n_removed[2] >= 1 and 40.0 not in found.values


def test_the_mean_of_nothing_is_nothing():
    found = mean_retainability([[np.nan, np.nan]])
    assert np.isnan(found.values).all() and found.n.tolist() == [0, 0]


def test_the_fit_is_the_least_squares_line_over_log10():
    rng = np.random.default_rng(1)
    steps = np.arange(1, 60)
    values = 1.1 - 0.3 * np.log10(steps) + rng.normal(0, 0.05, 59)
    found, expected = fit_decay(steps, values), linregress(np.log10(steps), values)
    assert found.slope == pytest.approx(expected.slope)
    assert found.intercept == pytest.approx(expected.intercept)
    assert found.slope_standard_error == pytest.approx(expected.stderr)
    assert found.r2 == pytest.approx(expected.rvalue**2)
    assert found.decay_constant == -found.slope
    at_threshold = found.intercept + found.slope * math.log10(found.threshold_steps)
    assert at_threshold == pytest.approx(0, abs=1e-12)
    assert math.log10(found.threshold_steps) == pytest.approx(found.log10_threshold)


def test_the_maximum_itself_and_missing_values_take_no_part_in_the_fit():
    steps, values = [0, 1, 10, 100, 1000], [1.0, 0.9, 0.8, 0.7, np.nan]
    assert fit_decay(steps, values) == fit_decay(steps[1:4], values[1:4])


@pytest.mark.parametrize("steps", [[], [1, 2], [0, 1, 2], [3, 3, 3]])
def test_too_few_points_make_no_line(steps):
    assert all(math.isnan(value) for value in fit_decay(steps, np.ones(len(steps))))


def test_a_level_line_has_no_threshold_and_a_flat_one_an_endless_one():
    level = fit_decay([1, 10, 100], [0.5, 0.5, 0.5])
    assert level.slope == 0 and math.isnan(level.threshold_steps) and math.isnan(level.r2)
    flat = fit_decay([1, 10, 100], [0.5, 0.499, 0.498])
    assert flat.log10_threshold == pytest.approx(500) and flat.threshold_steps == math.inf
    assert isinstance(flat, DecayFit)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: effectivity([1.0, 2.0], 1), "no step from 2 to 51 was evaluated"),
        (lambda: effectivity([1.0], 0, steps=[5]), "first evaluated step is 5"),
        (lambda: effectivity([1.0, 2.0], 3, steps=[5, 6]), "first evaluated step is 5, after the"),
        (lambda: effectivity([1.0, 2.0], 0, steps=[0]), "do not belong together"),
        (lambda: effectivity([1.0, 2.0], 0, steps=[1, 0]), "must ascend"),
        (lambda: retainability([1.0, 2.0], [], 0), "no injection step is given"),
    ],
)
def test_what_cannot_be_measured_is_said(call, message):
    with pytest.raises(GradlocError, match=message):
        call()
