"""Policies over sets of units, against trying every set and against a general optimizer."""

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize
from test_selection import profile

from gradloc import select_layers
from gradloc.localization.policies.interference import estimated_shrinkage
from gradloc.localization.policies.search import best_set
from gradloc.localization.profile import GradientProfile
from gradloc.models.unit_info import UnitInfo


def aligned_profile(aligned, benefit, kind="mlp"):
    """A profile with given inner products on reference text, (n, n_units), and benefits."""
    n, n_units = np.shape(aligned)
    ones = np.ones((n, n_units))
    return GradientProfile(
        units=tuple(UnitInfo(f"u{i}", kind, i, 10) for i in range(n_units)),
        probe_norms=ones,
        reference_norms=ones,
        probe_alignment=np.tile(np.asarray(benefit, dtype=float), (n, 1)),
        reference_alignment=np.asarray(aligned, dtype=float),
    )


def random_problem(seed, n_units=12, n=24):
    """Benefits, and inner products with a common factor, as gradients of one model have."""
    generator = np.random.default_rng(seed)
    common = generator.standard_normal((n, 2)) @ generator.standard_normal((2, n_units))
    aligned = (common + generator.standard_normal((n, n_units))) * generator.lognormal(
        0, 1, n_units
    )
    return generator.lognormal(0, 1, n_units), aligned


def shrunk(aligned, shrinkage):
    matrix = aligned.T @ aligned / len(aligned)
    return (1 - shrinkage) * matrix + shrinkage * np.diag(np.diag(matrix))


def every_set(benefit, matrix):
    """B^2 / C of every set that is not empty, in one sum a set."""
    n = len(benefit)
    for size in range(1, n + 1):
        for members in itertools.combinations(range(n), size):
            gain = sum(benefit[u] for u in members)
            cost = sum(matrix[u, v] for u in members for v in members)
            yield members, gain**2 / cost


def of_set(benefit, matrix, chosen):
    return benefit[chosen].sum() ** 2 / matrix[np.ix_(chosen, chosen)].sum()


@pytest.mark.parametrize("shrinkage", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_the_set_is_the_one_that_trying_all_finds(seed, shrinkage):
    benefit, aligned = random_problem(seed, n_units=10)
    matrix = shrunk(aligned, shrinkage)
    values = dict(every_set(benefit, matrix))
    plan = select_layers(aligned_profile(aligned, benefit), "interference_set", shrinkage=shrinkage)
    found = tuple(int(name[1:]) for name in plan.trained)
    assert values[found] == pytest.approx(max(values.values()), rel=1e-9)
    of_size = {k: max(v for m, v in values.items() if len(m) == k) for k in (1, 3, 10)}
    for k, most in of_size.items():
        chosen = best_set(benefit, matrix, k)
        assert chosen.sum() == k
        assert of_set(benefit, matrix, chosen) == pytest.approx(most, rel=1e-9)


def test_the_search_finds_the_best_of_twelve_units_on_many_problems():
    masks = (np.arange(1, 2**12)[:, None] >> np.arange(12) & 1).astype(float)
    n_larger = 0
    for seed in range(60):
        benefit, aligned = random_problem(seed)
        matrix = shrunk(aligned, 0.3)
        values = (masks @ benefit) ** 2 / np.einsum("ij,ij->i", masks @ matrix, masks)
        chosen = best_set(benefit, matrix)
        assert of_set(benefit, matrix, chosen) == pytest.approx(values.max(), rel=1e-9), seed
        n_larger += chosen.sum() > 1
    assert n_larger > 30  # sets of one unit alone would prove little


def test_units_that_disturb_the_same_are_not_taken_twice():
    # u0 and u1 disturb the same text, u2 another; each alone has ratio 1, .95 and .9.
    aligned = [[1, 1, 0], [-1, -1, 0], [0, 0, 1], [0, 0, 1]]
    p = aligned_profile(aligned, [0.5, 0.475, 0.45])
    assert select_layers(p, "interference_set", k=2, shrinkage=0.0).trained == ("u0", "u2")
    assert select_layers(p, "interference_ratio", k=2).trained == ("u0", "u1")
    assert select_layers(p, "interference_set", k=2, shrinkage=1.0).trained == ("u0", "u1")


def test_what_cancels_is_worth_training_together():
    # The two disturb in opposite ways, so that a step in both disturbs little.
    aligned = [[1.0, -0.9, 0.5], [-1.0, 1.1, 0.5]]
    p = aligned_profile(aligned, [1.0, 1.0, 0.6])
    assert select_layers(p, "interference_set", shrinkage=0.0).trained == ("u0", "u1")


def test_without_cross_terms_the_set_is_a_prefix_of_the_ranking():
    benefit, aligned = random_problem(5)
    plan = select_layers(aligned_profile(aligned, benefit), "interference_set", shrinkage=1.0)
    order = np.argsort(-benefit / (aligned**2).mean(0))
    own = (aligned**2).mean(0)
    prefix = [benefit[order[:n]].sum() ** 2 / own[order[:n]].sum() for n in range(1, 13)]
    expected = {f"u{i}" for i in order[: 1 + int(np.argmax(prefix))]}
    assert set(plan.trained) == expected


def test_scale_does_not_matter_and_nothing_is_chosen_without_gradients():
    benefit, aligned = random_problem(1)
    first = select_layers(aligned_profile(aligned, benefit), "interference_set")
    tiny = select_layers(aligned_profile(aligned * 1e-90, benefit * 1e-95), "interference_set")
    assert first.trained == tiny.trained
    for policy in ("interference_set", "interference_rates", "interference_scaled"):
        assert select_layers(aligned_profile(aligned, 0 * benefit), policy).trained == ()


def test_the_search_ends_where_sums_are_nothing_but_rounding():
    # Pairs that cancel to the last digit, with more units than texts.
    generator = np.random.default_rng(0)
    half = generator.standard_normal((3, 10)) * generator.lognormal(0, 4, 10)
    aligned = np.hstack([half, -half * (1 + 1e-15)])
    benefit = generator.lognormal(0, 2, 20)
    assert best_set(benefit, shrunk(aligned, 0.0)).any()
    assert best_set(benefit, shrunk(aligned, 0.0), k=7).sum() == 7


def test_what_disturbs_nothing_comes_first():
    benefit, aligned = random_problem(2, n_units=6)
    aligned[:, 3] = 0.0
    p = aligned_profile(aligned, benefit)
    assert "u3" in select_layers(p, "interference_set").trained
    assert select_layers(p, "interference_set", k=1).trained == ("u3",)
    scale = select_layers(p, "interference_rates").scale
    assert max(scale, key=scale.get) == "u3" and np.isfinite(list(scale.values())).all()


# --- rates -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shrinkage", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_rates_are_the_optimum_that_a_general_optimizer_finds(seed, shrinkage):
    benefit, aligned = random_problem(seed, n_units=8)
    matrix = shrunk(aligned, shrinkage)
    plan = select_layers(
        aligned_profile(aligned, benefit), "interference_rates", shrinkage=shrinkage, cap=99.0
    )
    rates = np.array(list(plan.scale.values()))

    def loss(log_rates):
        s = np.exp(log_rates)
        return -np.log((benefit @ s) ** 2 / (s @ matrix @ s))

    best = min(
        minimize(loss, np.log(benefit / np.diag(matrix)) + start, method="L-BFGS-B").fun
        for start in np.random.default_rng(0).standard_normal((5, 8))
    )
    reached = -np.log((benefit @ rates) ** 2 / (rates @ matrix @ rates))
    assert reached == pytest.approx(best, abs=1e-3)
    assert reached <= best + 1e-9  # the other cannot reach rates of 0
    assert rates[rates > 0].mean() == pytest.approx(1)
    # Where a rate is positive, what it disturbs is in proportion to its benefit.
    pressure = (matrix @ rates) / benefit
    assert np.ptp(pressure[rates > 0]) < 1e-9 * pressure.max()
    assert (pressure[rates == 0] >= pressure[rates > 0].max() * (1 - 1e-9)).all()
    if shrinkage == 1.0:
        ratio = benefit / np.diag(matrix)
        np.testing.assert_allclose(rates, ratio / ratio.mean(), rtol=1e-9)


def test_rates_are_cut_at_the_cap():
    p = aligned_profile(np.eye(4) * [1, 3, 3, 3], [1, 1, 1, 1])
    # In proportion to 1 / c: 1, 1/9, 1/9, 1/9, of mean 1/3.
    free = select_layers(p, "interference_rates", shrinkage=1.0, cap=9.0).scale
    assert list(free.values()) == pytest.approx([3, 1 / 3, 1 / 3, 1 / 3])
    capped = select_layers(p, "interference_rates", shrinkage=1.0, cap=2.0).scale
    assert list(capped.values()) == pytest.approx([2, 1 / 3, 1 / 3, 1 / 3])


def test_the_score_of_rates_is_each_units_share():
    p = aligned_profile(np.eye(4) * [1, 2, 2, 4], [1, 1, 2, 1])
    plan = select_layers(p, "interference_rates", shrinkage=1.0)
    # b_u s_u with s = b / c up to a factor: 1, 1/4, 1, 1/16.
    assert list(plan.scores.values()) == pytest.approx(np.array([16, 4, 16, 1]) / 37)


def test_scaled_rates_are_in_proportion_to_the_ratio_and_1_at_most():
    # Ratios 6, 5, 4, 3, 2 of mean 4 among the best five; then 1 and 0.
    p = aligned_profile(np.ones((2, 7)), [1, 6, 5, 4, 3, 2, 0])
    scale = select_layers(p, "interference_scaled").scale
    assert list(scale.values()) == pytest.approx([0.25, 1, 1, 1, 0.75, 0.5, 0])


def test_rates_keep_to_the_stack_and_to_one_kind():
    p = profile()
    for policy in ("interference_rates", "interference_scaled", "interference_set"):
        plan = select_layers(p, policy)
        assert plan.scale["embed"] == plan.scale["norm"] == 0
    # The units of the other kind enter neither means nor cross terms.
    ones = np.ones((8, 14))
    loud = profile(probe_alignment=ones, reference_alignment=np.random.default_rng(0).normal(
        0, 1, (8, 14)
    ))  # fmt: skip
    quiet = loud.reference_alignment.copy()
    quiet[:, 1:13:2] *= 100
    for policy in ("interference_rates", "interference_scaled", "interference_set"):
        first = select_layers(loud, policy, only="mlp").scale
        second = select_layers(
            profile(probe_alignment=ones, reference_alignment=quiet), policy, only="mlp"
        ).scale
        assert first == pytest.approx(second)


# --- shrinkage -------------------------------------------------------------------------------


def test_shrinkage_by_a_loop_over_pairs():
    aligned = random_problem(3, n_units=4, n=7)[1]
    size = np.sqrt((aligned**2).mean(0))
    above = below = 0.0
    for u, v in itertools.permutations(range(4), 2):
        products = [row[u] * row[v] / (size[u] * size[v]) for row in aligned]
        mean = sum(products) / 7
        above += sum((x - mean) ** 2 for x in products) / 6 / 7
        below += mean**2
    assert estimated_shrinkage(aligned) == pytest.approx(above / below)


def test_shrinkage_goes_with_the_number_of_texts():
    few, many = (random_problem(0, n=n)[1] for n in (6, 3000))
    assert estimated_shrinkage(many) < 0.02 < estimated_shrinkage(few)
    independent = np.random.default_rng(0).standard_normal((24, 12))
    assert estimated_shrinkage(independent) > 0.8
    assert estimated_shrinkage(few[:1]) == 1.0
    assert estimated_shrinkage(np.zeros((5, 3))) == 1.0
    assert estimated_shrinkage(np.ones((5, 1))) == 1.0
    # Without noise in the products there is nothing to shrink, and rates still exist.
    same = np.ones((6, 3))
    assert estimated_shrinkage(same) == 0.0
    assert select_layers(aligned_profile(same, [1, 2, 3]), "interference_rates").trained == ("u2",)
