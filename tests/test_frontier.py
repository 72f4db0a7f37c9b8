import numpy as np
import pytest

from gradloc.evaluation.bootstrap import BootstrapEstimate
from gradloc.evaluation.matched_uptake import (
    Point,
    forgetting_ratio,
    interpolate_forgetting,
    uptake_share,
)


def sure(value, n=10, spread=0.0):
    """An estimate whose replicates scatter evenly by +-spread around its value."""
    return BootstrapEstimate(value, value + spread * np.linspace(-1, 1, 401), n, 5)


def point(uptake, forgetting, spread=0.0):
    return Point(sure(uptake, spread=spread), sure(forgetting, spread=spread))


def at_uptake(uptakes, forgettings, at):
    """Forgetting at one uptake, on one line."""
    line = (np.array(values, float)[:, None] for values in (uptakes, forgettings))
    return interpolate_forgetting(*line, np.array([at]))[0]


def test_line_is_piecewise_linear_through_the_base_and_never_extrapolated():
    uptakes, forgettings = [3.0, 1.0, 2.0], [0.9, 0.1, 0.3]
    table = {0.0: 0.0, 0.5: 0.05, 1.0: 0.1, 1.5: 0.2, 2.5: 0.6, 3.0: 0.9}
    for at, expected in table.items():
        assert at_uptake(uptakes, forgettings, at) == pytest.approx(expected)
    assert np.isnan(at_uptake(uptakes, forgettings, 3.001))
    assert np.isnan(at_uptake(uptakes, forgettings, -0.001))
    # equal uptake: one point with the mean forgetting
    assert at_uptake([2.0, 2.0], [0.2, 0.4], 1.0) == pytest.approx(0.15)


def test_line_of_replicates_equals_one_line_at_a_time():
    rng = np.random.default_rng(0)
    uptakes, forgettings = rng.uniform(1, 4, (3, 25)), rng.uniform(0, 1, (3, 25))
    at = rng.uniform(0, 4.5, 25)
    found = interpolate_forgetting(uptakes, forgettings, at)
    expected = [at_uptake(uptakes[:, i], forgettings[:, i], at[i]) for i in range(25)]
    np.testing.assert_array_equal(found, expected)


def test_ratio_at_equal_uptake():
    # The line rises from (2, .1) to (4, .5): at uptake 3 full training forgets .3.
    found = forgetting_ratio(point(3.0, 0.06), [point(4.0, 0.5), point(2.0, 0.1)])
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.2, 0.2))
    assert (found.unit, found.higher_is_better, found.note) == ("ratio", False, "")


def test_ratio_of_full_training_with_itself_is_one_with_a_closed_interval():
    line = [point(2.0, 0.2, spread=0.05), point(4.0, 0.6, spread=0.05)]
    found = forgetting_ratio(line[0], line)
    assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1))


@pytest.mark.parametrize(
    ("arm", "line", "note"),
    [
        (point(-0.1, 0.1), [point(2, 0.2)], "takes up nothing"),
        (point(2.5, 0.05), [point(1, 0.1), point(2, 0.4)], "takes up more than full"),
        (point(1.0, 0.1), [point(2, -0.2)], "forgets nothing at this uptake"),
        (point(1.0, np.nan), [point(2, 0.2)], "not finite"),
    ],
)
def test_ratio_is_left_out_where_there_is_none(arm, line, note):
    found = forgetting_ratio(arm, line)
    assert (found.value, found.low, found.high) == (None, None, None)
    assert note in found.note


def test_notes_name_no_figure_whose_unit_a_table_writes_otherwise():
    for arm, line in (
        (point(2.5, 0.05), [point(1, 0.1), point(2, 0.4)]),
        (point(1.0, 0.1), [point(2, -0.2)]),
        (point(1.0, 0.02), [Point(sure(2.0), sure(0.08, spread=0.2))]),
    ):
        note = forgetting_ratio(arm, line).note
        assert note and not any(letter.isdigit() for letter in note)


def test_uncertain_reference_gives_a_value_and_an_open_interval():
    found = forgetting_ratio(point(1.0, 0.02), [Point(sure(2.0), sure(0.08, spread=0.2))])
    assert found.value == pytest.approx(0.5)
    assert found.high is None and found.low is not None
    assert "not distinct from zero" in found.note


def test_resamples_beyond_the_line_are_counted():
    arm = Point(sure(2.0, spread=0.3), sure(0.1))
    found = forgetting_ratio(arm, [point(2.0, 0.4)])
    assert found.value == pytest.approx(0.25)
    assert "in 50% of the resamples" in found.note
    assert found.low == pytest.approx(0.25)  # held at the line's end, so never below


def test_uptake_share_is_of_the_reference_that_takes_up_most():
    found = uptake_share(sure(1.5), [sure(1.0), sure(2.0)])
    assert (found.value, found.low, found.high) == pytest.approx((0.75, 0.75, 0.75))
    assert found.higher_is_better
    assert uptake_share(sure(1.0), [sure(-1.0)]).value is None
    assert uptake_share(sure(1.0), [sure(np.nan), sure(2.0)]).value == pytest.approx(0.5)
