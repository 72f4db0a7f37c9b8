import functools
import json
from dataclasses import replace

import numpy as np
import pytest
from sweep_records import AXIS, CONSTANTS, RATES, UPTAKES, make_record

from gradloc.errors import GradlocError
from gradloc.evaluation.bootstrap import BootstrapEstimate
from gradloc.evaluation.matched_uptake import Point, interpolate_forgetting
from gradloc.evaluation.score_record import ItemScores
from gradloc.experiments.sweep.corpus_runs import CorpusRuns
from gradloc.experiments.sweep.frontier_curves import (
    AtUptake,
    at_uptake,
    make_curve,
    mean_forgetting,
)
from gradloc.experiments.sweep.frontiers import find_frontier
from gradloc.experiments.sweep.sweep_record import RunRecord, SweepRecord

N = 200


def curve_points(arm):
    """Knots of an arm's true curve: uptake, forgetting, the base included."""
    uptake = np.array([0.0, *UPTAKES[arm]])
    return uptake, CONSTANTS[arm] * uptake**2


@functools.cache
def exact(**options):
    """The frontier of a sweep without noise, on its one corpus."""
    record = make_record(noise=0.0, **options)
    return find_frontier(record, n_bootstrap=N).corpora["invented"]


def simple_cell(arm="full", rate=1e-4, seed=0, uptake=(1.0,), lost=(0.5,), **options):
    """A run with these items; ``clusters`` and ``weights`` are those of what was lost."""
    clusters, weights = options.pop("clusters", None), options.pop("weights", None)
    metrics = {
        AXIS: ItemScores("uptake", "nats", uptake),
        "general_text": ItemScores("forgetting", "nats/token", lost, clusters, weights),
    }
    return RunRecord("invented", arm, "all", {}, rate, seed, metrics=metrics, **options)


def sweep_of(*runs):
    return SweepRecord("small", "full", AXIS, runs)


def find(*runs):
    return find_frontier(sweep_of(*runs), n_bootstrap=N).corpora["invented"]


def level(arm, share, measure="general_text"):
    return next(at for at in arm.forgetting[measure].at_uptake if at.share == share)


# Curves


def random_curves(n_points=4, n_columns=40):
    rng = np.random.default_rng(3)
    uptake = rng.uniform(-0.5, 4, (n_points, n_columns))
    uptake[:, :5] = np.round(uptake[:, :5])  # ties, some with the base
    return uptake, rng.uniform(-0.3, 1, uptake.shape), rng.uniform(-1, 4.5, n_columns)


def on_line(uptake, forgetting, at):
    """The oracle: corners with the base, ties as one with their mean, and ``np.interp``."""
    points = list(zip([0.0, *uptake], [0.0, *forgetting], strict=True))
    x = sorted({u for u, _ in points})
    y = [np.mean([f for u, f in points if u == corner]) for corner in x]
    return np.interp(at, x, y, left=np.nan, right=np.nan)


def test_forgetting_at_is_a_line_through_the_base_column_by_column():
    uptake, forgetting, at = random_curves()
    at[:5] = uptake[0, :5]  # exactly at a point
    expected = [on_line(uptake[:, i], forgetting[:, i], at[i]) for i in range(40)]
    assert np.isnan(expected).any() and np.isfinite(expected).any()
    np.testing.assert_allclose(interpolate_forgetting(uptake, forgetting, at), expected, atol=1e-12)


def test_mean_forgetting_is_the_area_over_its_width():
    uptake, forgetting, _ = random_curves()
    for i in range(40):
        if (reach := uptake[:, i].max()) <= 0:
            continue
        upto = 0.9 * reach
        grid = np.linspace(0, upto, 20_001)
        y = on_line(uptake[:, i], forgetting[:, i], grid)
        expected = np.trapezoid(y, grid) / upto
        found = mean_forgetting(uptake[:, [i]], forgetting[:, [i]], np.array([upto]))[0]
        assert found == pytest.approx(expected, abs=1e-3)
    assert np.isnan(mean_forgetting(uptake[:, :1], forgetting[:, :1], np.array([0.0])))


def sure(value):
    return BootstrapEstimate(value, np.full(3, value), 9, 9)


def test_a_curve_ends_at_its_rate_of_largest_uptake():
    points = {3e-4: (3.0, 2.0), 1e-5: (1.0, 0.1), 1e-4: (4.0, 0.8), 1e-3: (np.nan, np.nan)}
    curve = make_curve({rate: Point(*map(sure, point)) for rate, point in points.items()})
    assert curve.rates == (1e-5, 1e-4)
    assert curve.uptake[:, 0].tolist() == [1.0, 4.0]
    assert make_curve({1e-4: Point(sure(np.nan), sure(0.1))}) is None


# Resampling


def test_means_are_weighted_within_a_seed_and_plain_over_seeds():
    runs = CorpusRuns([
        simple_cell(lost=(1.0, 3.0), weights=(3.0, 1.0)),
        simple_cell(lost=(4.0,), weights=(7.0,), seed=1),
    ], AXIS, n_bootstrap=N)  # fmt: skip
    found = runs.estimate("full", 1e-4, "general_text", (0, 1))
    assert found.value == pytest.approx((1.5 + 4.0) / 2)
    assert (found.n, found.n_clusters) == (3, 3)


def test_seeds_are_drawn_anew_and_entities_within_them():
    # Without spread within a seed, the mean of two drawn seeds takes three values: 1/4, 1/2, 1/4.
    runs = [simple_cell(seed=s, lost=(float(s),) * 4, uptake=(float(s),) * 3) for s in (0, 1)]
    both = CorpusRuns(runs, AXIS, n_bootstrap=4000)
    found = {m: both.estimate("full", 1e-4, m, (0, 1)).replicates for m in (AXIS, "general_text")}
    values, counts = np.unique(found["general_text"], return_counts=True)
    assert values.tolist() == [0.0, 0.5, 1.0]
    np.testing.assert_allclose(counts / 4000, [0.25, 0.5, 0.25], atol=0.03)
    # A seed is drawn for all of its metrics at once.
    np.testing.assert_array_equal(found[AXIS], found["general_text"])


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_spread_of_replicates_is_that_of_entities(seeds):
    rng = np.random.default_rng(0)
    of_entity = rng.standard_normal((3, 60))
    of_entity -= of_entity.mean(axis=1, keepdims=True)  # seeds do not differ
    clusters = tuple(i // 5 for i in range(300))
    runs = CorpusRuns([
        simple_cell(seed=s, lost=tuple(np.repeat(of_entity[s], 5)), clusters=clusters)
        for s in seeds
    ], AXIS, n_bootstrap=4000)  # fmt: skip
    found = runs.estimate("full", 1e-4, "general_text", seeds)
    # Five probes of an entity add nothing: the error is that of 60 entities a seed.
    expected = np.sqrt(np.mean(of_entity[list(seeds)] ** 2) / 60 / len(seeds))
    assert found.replicates.std() == pytest.approx(expected, rel=0.08)
    assert found.n_clusters == 60 * len(seeds)


def test_arms_and_rates_are_paired():
    lost = tuple(np.random.default_rng(0).standard_normal(30))
    runs = CorpusRuns([
        simple_cell(arm, seed=s, rate=rate, lost=tuple(x + shift for x in lost))
        for arm, rate, shift in (("full", 1e-4, 0.0), ("half", 1e-4, 1.0), ("half", 2e-4, 2.0))
        for s in (0, 1)
    ], AXIS, n_bootstrap=N)  # fmt: skip
    first, second, third = (
        runs.estimate(arm, rate, "general_text", (0, 1)).replicates
        for arm, rate in (("full", 1e-4), ("half", 1e-4), ("half", 2e-4))
    )
    assert first.std() > 0.05
    np.testing.assert_allclose(second - first, 1.0)
    np.testing.assert_allclose(third - first, 2.0)


@pytest.mark.slow
def test_half_the_forgetting_is_found_in_about_95_of_100_sweeps():
    """Coverage: the true ratio is .5, and an arm like the line is told apart about as promised."""
    share, n_sweeps = 0.75, 100
    covered = distinguishable = 0
    for draw in range(n_sweeps):
        arms = ("full", "half", "alike")
        UPTAKES["alike"], CONSTANTS["alike"] = UPTAKES["full"], CONSTANTS["full"]
        record = make_record(arms=arms, seeds=(0, 1, 2, 3), noise=1.0, seed_effect=0.0, draw=draw,
                             losses=("general_text",))  # fmt: skip
        del UPTAKES["alike"], CONSTANTS["alike"]
        runs = CorpusRuns(record.runs, AXIS, n_bootstrap=400, seed=draw)
        curves = {arm: runs.curve(arm, "general_text", (0, 1, 2, 3)) for arm in arms}
        line = curves["full"]
        ratio = at_uptake(curves["half"], line, share, "nats/token", "full").ratio
        covered += ratio.low <= 0.5 <= ratio.high
        alike = at_uptake(curves["alike"], line, share, "nats/token", "full").difference
        distinguishable += not alike.low <= 0 <= alike.high
    assert 0.9 <= covered / n_sweeps <= 1.0
    assert distinguishable / n_sweeps <= 0.1


# Quantities, from noiseless sweeps with known curves


@pytest.mark.parametrize("arm", list(UPTAKES))
@pytest.mark.parametrize("share", [0.5, 0.75, 0.9])
def test_forgetting_at_matched_uptake(arm, share):
    found = level(exact().arms[arm], share)
    target = share * 4.0
    line = np.interp(target, *curve_points("full"))
    if target > max(UPTAKES[arm]):
        assert found.ratio.value is None and found.difference.value is None
        assert f"takes up {max(UPTAKES[arm]):.3g} at most" in found.ratio.note
        return
    own = np.interp(target, *curve_points(arm))
    assert found.ratio.value == pytest.approx(own / line)
    assert (found.ratio.low, found.ratio.high) == pytest.approx((own / line, own / line))
    assert found.difference.value == pytest.approx(own - line)
    assert (found.ratio.unit, found.ratio.higher_is_better) == ("ratio", False)


def test_constant_ratios_come_out_at_every_share_and_in_the_mean():
    arms = exact().arms
    for arm, ratio in (("half", 0.5), ("worse", 2.0), ("full", 1.0)):
        for measure in ("general_text", "known_facts", "known_facts_nll"):
            comparison = arms[arm].forgetting[measure]
            found = [at.ratio.value for at in comparison.at_uptake]
            assert [*found, comparison.mean_ratio.value] == pytest.approx([ratio] * 4)


def test_mean_ratio_of_an_arm_that_reaches_less_is_over_the_same_uptakes():
    found = exact().arms["small"].forgetting["general_text"].mean_ratio
    grid = np.linspace(0, 2.0, 200_001)
    own, line = (np.interp(grid, *curve_points(arm)).mean() for arm in ("small", "full"))
    assert found.value == pytest.approx(own / line, rel=1e-4)
    assert "up to 50% of full's best" in found.note


def test_ratios_at_an_arms_own_rates():
    points = exact().arms["chance"].points
    for point, uptake in zip(points, UPTAKES["chance"], strict=True):
        expected = 0.1 * uptake**2 / np.interp(uptake, *curve_points("full"))
        assert point.forgetting_ratio["general_text"].value == pytest.approx(expected)
        assert point.metrics[AXIS].value == pytest.approx(uptake)
        assert point.metrics["known_facts"].unit == "fraction"
    assert [point.learning_rate for point in points] == list(RATES)


def test_best_uptake_time_and_memory():
    arms = exact().arms
    assert arms["small"].uptake_share.value == pytest.approx(0.5)
    # 40, 41, 42 s in seeds 0, 1, 2, against 100 s of the line.
    assert arms["small"].time_ratio.value == pytest.approx(0.41)
    assert arms["small"].time_ratio.note == "0.40 to 0.42 over 3 seeds"
    assert arms["small"].memory_ratio.value == pytest.approx(0.5)
    assert arms["full"].time_ratio.value == pytest.approx(1.0)


def test_the_difference_from_the_line_says_which_arm_forgets_less():
    arms = find_frontier(make_record(noise=0.5), n_bootstrap=500).corpora["invented"].arms
    assert level(arms["half"], 0.9).difference.high < 0 < level(arms["worse"], 0.9).difference.low
    itself = level(arms["full"], 0.9).difference
    assert (itself.value, itself.low, itself.high) == (0, 0, 0)


# Cases at the edge


def test_rates_beyond_the_largest_uptake_do_not_flatter_the_arms():
    """Full training forgets 5 at a rate past its peak: no arm may be compared with that."""
    runs = [
        simple_cell(rate=rate, seed=s, uptake=(u, u), lost=(f, f))
        for s in (0, 1)
        for rate, u, f in ((1e-5, 2.0, 0.2), (1e-4, 4.0, 0.8), (1e-3, 3.0, 5.0))
    ]
    runs += [simple_cell("arm", seed=s, uptake=(4.0, 4.0), lost=(0.4, 0.4)) for s in (0, 1)]
    corpus = find(*runs)
    # At uptake 3 the line forgets .5 and the arm .3, both interpolated.
    assert level(corpus.arms["arm"], 0.75).ratio.value == pytest.approx(0.6)
    assert [p.on_curve["general_text"] for p in corpus.arms["full"].points] == [True, True, False]
    assert any("full: its curve leaves out 1e-3" in note for note in corpus.notes)


def test_where_the_line_forgets_nothing_there_is_a_difference_but_no_ratio():
    lost = {"full": (-0.1, -0.1), "arm": (0.2, 0.2)}
    corpus = find(*(
        simple_cell(arm, seed=s, uptake=(2.0, 2.0), lost=lost[arm])
        for arm in ("full", "arm") for s in (0, 1)
    ))  # fmt: skip
    found = level(corpus.arms["arm"], 0.9)
    assert found.ratio.value is None and "full forgets nothing at this uptake" in found.ratio.note
    assert found.difference.value == pytest.approx(0.9 * 0.3)
    assert found.difference.low > 0


def test_an_arm_that_barely_reaches_an_uptake_gets_no_upper_end():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, 2, 20)) * 0.3
    noise -= noise.mean(axis=2, keepdims=True)
    runs = [
        simple_cell(arm, seed=s, uptake=tuple(u + noise[s, i]), lost=(lost,) * 5)
        for i, (arm, u, lost) in enumerate((("full", 4.0, 0.8), ("arm", 3.61, 0.4)))
        for s in (0, 1)
    ]
    found = level(find(*runs).arms["arm"], 0.9)
    assert found.ratio.value is not None and found.ratio.low is not None
    assert found.ratio.high is None and found.difference.high is None


def test_one_seed_is_said_and_one_item_has_no_interval():
    corpus = exact(seeds=(0,))
    assert any(note.startswith("One seed") for note in corpus.notes)
    single = find(simple_cell(), simple_cell("arm"))
    found = level(single.arms["arm"], 0.5)
    assert found.ratio.value == pytest.approx(1.0)
    assert found.ratio.low is None and found.difference.low is None


def test_an_unfinished_sweep_uses_the_seeds_that_are_shared():
    record = make_record(noise=0.3, arms=("full", "half", "worse"))
    runs = [c for c in record.runs if (c.arm, c.learning_rate, c.seed) != ("half", 1e-4, 2)]
    corpus = find_frontier(replace(record, runs=tuple(runs)), n_bootstrap=N).corpora["invented"]
    assert corpus.arms["half"].seeds == (0, 1) and corpus.arms["worse"].seeds == (0, 1, 2)
    assert any(note.startswith("half: not every rate has every seed") for note in corpus.notes)
    only = [c for c in record.runs if c.seed < 2]
    whole = find_frontier(replace(record, runs=tuple(only)), n_bootstrap=N).corpora["invented"]
    assert level(corpus.arms["half"], 0.75).ratio == level(whole.arms["half"], 0.75).ratio


def test_without_the_line_points_are_shown_and_nothing_is_compared():
    corpus = exact(arms=("half", "worse"))
    assert corpus.best_rate is None and "no finished run" in corpus.best_uptake.note
    found = level(corpus.arms["half"], 0.5)
    assert found.ratio.value is None and "full has no finished run" in found.ratio.note
    assert corpus.arms["half"].points[0].metrics[AXIS].value == pytest.approx(1.0)
    assert any("nothing to compare" in note for note in corpus.notes)


def test_a_rate_that_diverged_is_off_the_curve():
    """A score that is not finite is null in ``sweep.json`` and None in the record."""
    good = [simple_cell(arm, uptake=(2.0, 2.0), lost=(0.5, 0.6)) for arm in ("full", "arm")]
    bad = simple_cell("arm", rate=1e-3, uptake=(None, 2.0), lost=(0.5, None))
    corpus = find(*good, bad)
    point = corpus.arms["arm"].points[1]
    assert point.metrics[AXIS].value is None and "diverged" in point.metrics[AXIS].note
    assert point.on_curve == {"general_text": False}
    assert level(corpus.arms["arm"], 0.9).ratio.value == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ((), "no finished run"),
        ((simple_cell(), simple_cell()), "1 runs have the arm, rate and seed"),
        ((simple_cell(), simple_cell("arm", lost=(0.5, 0.6))), "measured on other items for arm"),
        ((simple_cell(lost=()),), "has no items"),
    ],
)
def test_records_that_cannot_be_compared_are_refused(runs, words):
    with pytest.raises(GradlocError, match=words):
        find_frontier(sweep_of(*runs))


def test_an_unknown_axis_names_those_that_there_are():
    record = replace(sweep_of(simple_cell()), axis="general_text")
    with pytest.raises(GradlocError, match=f"'general_text'. Measured were: {AXIS}"):
        find_frontier(record)


# As JSON


def figures_in(value, where=""):
    if isinstance(value, dict):
        if "higher_is_better" in value:
            yield where, value
        for key, item in value.items():
            yield from figures_in(item, f"{where}/{key}")
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from figures_in(item, f"{where}/{place}")


def test_figures_are_json_and_the_same_again(tmp_path):
    record = make_record(arms=("full", "half", "small"), noise=0.5)
    found = find_frontier(record, n_bootstrap=N).to_dict()
    json.dumps(found, allow_nan=False)
    assert (found["kind"], found["format"], found["line"]) == ("frontier", 2, "full")
    figures = list(figures_in(found))
    assert len(figures) > 100
    for where, figure in figures:
        assert set(figure) == {
            "value", "low", "high", "n", "unit", "higher_is_better", "note"
        }, where  # fmt: skip
        assert figure["value"] is not None or figure["note"], where
        if figure["low"] is not None and figure["high"] is not None:
            assert figure["low"] <= figure["high"], where
    path = record.save(tmp_path / "sweep.json")
    again = find_frontier(SweepRecord.load(path), n_bootstrap=N).to_dict()
    # The file keeps four digits of each item.
    before, after = (dict(figures_in(one)) for one in (found, again))
    assert list(before) == list(after)
    for where, figure in before.items():
        for end in ("value", "low", "high"):
            expected = figure[end] and pytest.approx(figure[end], rel=5e-3, abs=5e-4)
            assert after[where][end] == expected, where
    assert find_frontier(record, n_bootstrap=N).to_dict() == found
    half = found["corpora"]["invented"]["arms"]["half"]["forgetting"]["general_text"]
    assert set(half) == {"at_uptake", "mean_ratio"}
    assert set(half["at_uptake"][0]) == {f for f in AtUptake.__dataclass_fields__}


def test_times_of_two_sessions_are_not_compared():
    """The second machine is ten times slower; it has the line again at seed 1 alone."""
    runs = [
        simple_cell(seed=0, train_seconds=100.0),
        simple_cell("ours", seed=0, train_seconds=400.0, session=1),
        simple_cell(seed=1, train_seconds=1000.0, session=1),
        simple_cell("ours", seed=1, train_seconds=400.0, session=1),
    ]
    assert find(*runs).arms["ours"].time_ratio.value == pytest.approx(0.4)
    assert find(*runs[:2]).arms["ours"].time_ratio.value is None
