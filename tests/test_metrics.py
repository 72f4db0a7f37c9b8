import numpy as np
import pytest
from scipy import stats

from gradloc.evaluation import bootstrap
from gradloc.evaluation.bootstrap import (
    derive_seed,
    estimate,
    figure,
    interval,
)
from gradloc.evaluation.metrics import PROBE_METRICS

# ---- items ------------------------------------------------------------------------------------


TABLE = {
    "nll": [1.0, 2.0, 3.0, 0.5],
    "exact": [True, False, False, True],
    "old_nll": [1.5, 2.0, 1.0, None],
    "greedy_new": [-2.0, -1.0, -3.0, None],
    "greedy_old": [-2.5, -1.0, -1.0, None],
    "candidate_nats": [[4.0, 6.0], [1.0, 2.0], None, [5.0, None]],
    "candidate_lengths": [[4, 12], [3, 3], None, [1, 1]],
    "candidate_right": [[False, True], [True, False], None, [True, False]],
    "token_accuracy": [1.0, 0.5, 0.0, 1.0],
    "predicted": [[7, 9], [1], [2, 2, 2, 2], [5]],
    "targets": [("The euro",), ("euro",), ("Bay of Pigs",), ("x", "y")],
    "old_targets": [("kuna",), (), ("bay",), ()],
    "written": ["euro.", "the Kuna", "bay of whales", "z"],
    "whole_nll": [2.0, 2.0, 1.0, 3.0],
    "beams": [["The euro", "kuna"], ["Euro"], [], ["y"]],
    "prose": ["the cat sat on the mat", "a a a a", "a b c", "a b"],
}
BEFORE = {"predicted": [[7, 10], [1], [2, 2, 2, 3], [6]]}
NAN = np.nan
READ = {
    "nll": [1.0, 2.0, 3.0, 0.5],
    "exact": [1, 0, 0, 1],
    # a tie counts for the old answer; a probe without an old answer has no preference
    "prefers_new": [1, 0, 0, NAN],
    "prefers_new_released": [1, 0, 0, NAN],
    "choice": [0, 1, NAN, NAN],  # a candidate without a score decides nothing
    "choice_norm": [1, 1, NAN, NAN],  # 6 nats over 12 characters beat 4 over 4
    "perplexity": [1.0, 2.0, 3.0, 0.5],
    "perplexity_macro": [1.0, 2.0, 3.0, 0.5],
    "perplexity_whole": [2.0, 2.0, 1.0, 3.0],
    "recall_at_10": [1, 0, 0, 1],  # upper case counts; the second answer counts
    "exact_match": [1, 0, 0, 0],  # articles, case and punctuation do not count
    "f1": [1, 0, 2 / 3, 0],
    "old_exact_match": [0, NAN, 0, NAN],
    "old_f1": [0, NAN, 0.5, NAN],
    "token_accuracy": [1.0, 0.5, 0.0, 1.0],
    "agreement": [0.5, 1.0, 0.75, 0.0],
    "fluency": [2.1073, 0.0, 1 / 3, 0.0],
}


def test_probe_metrics_equal_a_hand_made_table():
    assert set(READ) == set(PROBE_METRICS)
    for name, metric in PROBE_METRICS.items():
        found = metric.values(*([TABLE, BEFORE] if metric.compares else [TABLE]))
        np.testing.assert_allclose(found, READ[name], atol=1e-4, err_msg=name)


def test_every_metric_names_a_reading_that_there_is():
    from gradloc.evaluation.requests import REQUESTS

    assert {metric.request for metric in PROBE_METRICS.values()} == set(REQUESTS)


def test_weighted_mean_is_sum_of_nats_over_sum_of_tokens():
    nats, tokens = np.array([30.0, 8.0, 2.0]), np.array([10, 4, 2])
    (found,) = estimate([nats / tokens], range(3), weights=tokens)
    assert found.value == pytest.approx(40 / 16)


# ---- bootstrap --------------------------------------------------------------------------------


def bootstrap_replicates(*arguments, **options):
    return np.stack([found.replicates for found in estimate(*arguments, **options)])


def loop_bootstrap(values, clusters, weights, n_bootstrap, seed):
    """The same draws, with every resample spelled out item by item."""
    names = list(dict.fromkeys(clusters))
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n_bootstrap)
    replicates = []
    for row in counts:
        items = [
            item
            for name, count in zip(names, row, strict=True)
            for _ in range(count)
            for item, cluster in enumerate(clusters)
            if cluster == name
        ]
        replicates.append([np.average(v[items], weights=weights[items]) for v in values])
    return np.array(replicates).T


@pytest.mark.parametrize("weighted", [False, True])
def test_replicates_equal_resampling_spelled_out(weighted, monkeypatch):
    rng = np.random.default_rng(1)
    values, clusters = rng.normal(size=(3, 12)), list("aabbbcddeefa")
    weights = rng.integers(1, 9, 12).astype(float) if weighted else np.ones(12)
    # A small limit makes several chunks, which must continue the same draws.
    monkeypatch.setattr(bootstrap, "_COUNTS_AT_ONCE", 40)
    found = bootstrap_replicates(
        values, clusters, n_bootstrap=30, seed=7, weights=weights if weighted else None
    )
    np.testing.assert_allclose(found, loop_bootstrap(values, clusters, weights, 30, 7))


def test_standard_error_agrees_with_theory_for_independent_items():
    values = np.random.default_rng(0).normal(size=(1, 200))
    replicates = bootstrap_replicates(values, range(200), n_bootstrap=4000)
    assert replicates.std() == pytest.approx(stats.sem(values[0]), rel=0.06)
    scipy_interval = stats.bootstrap(
        values, np.mean, n_resamples=4000, method="percentile", rng=3
    ).confidence_interval
    assert interval(replicates[0]) == pytest.approx(tuple(scipy_interval), abs=0.02)


def test_probes_of_one_entity_do_not_count_as_independent():
    # 20 entities, 10 identical probes each: the honest spread is that of 20 values, not 200.
    values = np.repeat(np.random.default_rng(0).normal(size=20), 10)[None]
    entities = np.repeat(np.arange(20), 10)
    by_entity = bootstrap_replicates(values, entities, n_bootstrap=4000).std()
    by_probe = bootstrap_replicates(values, range(200), n_bootstrap=4000).std()
    assert by_entity == pytest.approx(np.sqrt(10) * by_probe, rel=0.1)


def test_differences_are_paired():
    values = np.random.default_rng(0).normal(size=50) * 10
    before, after = estimate([values, values - 0.5], range(50), n_bootstrap=200)
    gain = before.minus(after)
    assert gain.value == pytest.approx(0.5)
    np.testing.assert_allclose(gain.replicates, 0.5)
    assert before.replicates.std() > 0.5


def test_streams_differ_between_sets_and_repeat_between_runs():
    values, names = np.arange(9.0)[None], range(9)
    first, again, other = (
        bootstrap_replicates(values, names, n_bootstrap=20, seed=derive_seed(0, name))
        for name in ("probes", "probes", "texts")
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    hits = 0
    for trial in range(200):
        effects = np.repeat(rng.normal(size=40), 3) + rng.normal(size=120)
        low, high = interval(
            bootstrap_replicates(
                effects[None], np.repeat(np.arange(40), 3), n_bootstrap=400, seed=trial
            )[0]
        )
        hits += low <= 0 <= high
    assert 0.89 <= hits / 200 <= 0.99


def test_figures_without_an_interval_say_why():
    single = figure(estimate([[1.0, 3.0]], ["a", "a"], n_bootstrap=10)[0], "nats", False)
    assert (single.value, single.low, single.high, single.n) == (2.0, None, None, 2)
    assert "no interval" in single.note
    diverged = figure(estimate([[1.0, np.nan]], "ab", n_bootstrap=10)[0], "nats", False)
    assert (diverged.value, diverged.low) == (None, None)
    assert "diverged" in diverged.note
