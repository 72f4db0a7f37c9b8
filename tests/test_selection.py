import itertools

import numpy as np
import pytest

from gradloc import LayerPlan, select_layers
from gradloc.errors import GradlocError, PlanMismatchError, SelectionError
from gradloc.localization.budget import share_of_mass
from gradloc.localization.cost.prediction import predict_cost
from gradloc.localization.cost.step_shape import StepShape
from gradloc.localization.policies import POLICIES, SCORES
from gradloc.localization.profile import GradientProfile
from gradloc.models.unit_info import UnitInfo

N_BLOCKS = 6


def units():
    rows = [UnitInfo("embed", "embedding", None, 500)]
    for block in range(N_BLOCKS):
        rows.append(UnitInfo(f"layers.{block}.attn", "attention", block, 40))
        rows.append(UnitInfo(f"layers.{block}.mlp", "mlp", block, 120))
    return (*rows, UnitInfo("norm", "norm", None, 10))


def units_of(profile):
    """No policy: it gives no scales."""
    return np.ones(3)


def profile(seed=0, n=8, noise=0.05, **changes):
    """Scores rise with the unit's index, apart from the units outside the stack."""
    generator = np.random.default_rng(seed)
    n_units = len(units())
    level = np.linspace(1, 3, n_units)

    def rows(mean):
        return mean * (1 + noise * generator.standard_normal((n, n_units)))

    values = dict(
        units=units(),
        probe_norms=rows(level),
        reference_norms=rows(np.ones(n_units)),
        probe_alignment=rows(level**2),
        reference_alignment=rows(2 * np.ones(n_units)),
        probe_norm_of_mean=0.5 * level,
        model="tiny",
        shape={"n_blocks": N_BLOCKS, "hidden_size": 4, "vocab_size": 50, "kv_size": 4},
    )
    return GradientProfile(**values | changes)


def test_profile_ratios_by_hand():
    p = GradientProfile(
        units=units()[1:3],
        probe_norms=np.array([[1.0, 2.0], [3.0, 4.0]]),
        reference_norms=np.array([[1.0, 1.0], [1.0, 2.0]]),
        probe_alignment=np.array([[1.0, 5.0], [3.0, 7.0]]),
        reference_alignment=np.array([[1.0, -2.0], [-3.0, 4.0]]),
    )
    np.testing.assert_allclose(p.rgn, [2 / 1, 3 / 1.5])
    np.testing.assert_allclose(p.benefit, [2, 6])
    np.testing.assert_allclose(p.interference, [5, 10])  # squares, so signs do not cancel
    np.testing.assert_allclose(p.interference_ratio, [0.4, 0.6])


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_policy_gives_a_plan_for_every_unit(policy, tmp_path):
    plan = select_layers(profile(), policy)
    assert tuple(plan.scale) == profile().names
    assert LayerPlan.load(plan.save(tmp_path / "plan.json")) == plan
    if policy != "all":
        assert plan.scale["embed"] == plan.scale["norm"] == 0
    if policy == "sign_agreement":
        # In this profile all units disturb the same texts alike: which agree best is noise.
        assert -1 <= plan.reliability["split_half"] <= 1
    elif policy in SCORES:
        assert set(plan.scores) == set(plan.scale)
        assert plan.reliability["split_half"] > 0.9
        for name in plan.scale:
            assert plan.reliability["low"][name] <= plan.scores[name] * 1.05
            assert plan.reliability["high"][name] >= plan.scores[name] * 0.95


def test_above_mean_keeps_what_exceeds_the_mean_of_the_stack():
    # The embedding's huge score must neither be chosen nor move the mean.
    norms = np.ones((4, 14))
    norms[:, 0], norms[:, 3], norms[:, 8] = 1000, 1.2, 5
    p = profile(n=4, probe_norms=norms, reference_norms=np.ones((4, 14)))
    assert select_layers(p, "rgn_above_mean").trained == ("layers.3.mlp",)


def test_interference_ratio_by_mean_k_and_parameter_fraction():
    align = np.ones((4, 14))
    align[:, [2, 4, 11]] = [10, 20, 5]
    p = profile(n=4, probe_alignment=align, reference_alignment=np.ones((4, 14)))
    assert set(select_layers(p).trained) == {"layers.0.mlp", "layers.1.mlp", "layers.5.attn"}
    assert select_layers(p, k=1).trained == ("layers.1.mlp",)
    # 170 of 1470 parameters: the best MLP (120), then the attention (40); no second MLP fits
    plan = select_layers(p, parameter_fraction=170 / 1470)
    assert set(plan.trained) == {"layers.1.mlp", "layers.5.attn"}
    assert plan.trainable_fraction == pytest.approx(160 / 1470)


def test_rgn_scaled_has_mean_one_over_the_stack():
    plan = select_layers(profile(), "rgn_scaled")
    values = [plan.scale[u.name] for u in units() if u.in_stack]
    assert np.mean(values) == pytest.approx(1)
    np.testing.assert_allclose(values, profile().rgn[1:-1] / profile().rgn[1:-1].mean())


@pytest.mark.slow
def test_random_k_is_seeded_and_as_large_as_the_default():
    p = profile()
    size = {u.name: u.n_parameters for u in p.units}

    def count(plan):
        return sum(size[n] for n in plan.trained)

    plans = [select_layers(p, "random_k", seed=seed) for seed in range(20)]
    assert plans[0] == select_layers(p, "random_k", seed=0)
    assert len({plan.trained for plan in plans}) > 5
    assert all(abs(count(plan) - count(select_layers(p))) <= 60 for plan in plans)
    assert len(select_layers(p, "random_k", k=3).trained) == 3


def test_controls():
    p = profile()
    assert select_layers(p, "last_third_mlp").trained == ("layers.4.mlp", "layers.5.mlp")
    assert select_layers(p, "top_k", k=1).trained == ("layers.5.attn", "layers.5.mlp")
    assert select_layers(p, "bottom_k", k=1).trained == ("layers.0.attn", "layers.0.mlp")
    chosen, rest = set(select_layers(p).trained), set(select_layers(p, "inverse").trained)
    assert chosen.isdisjoint(rest)
    assert chosen | rest == {u.name for u in units() if u.in_stack}
    assert select_layers(p, "none").trained == ()
    assert select_layers(p, "all").trainable_fraction == 1


def test_a_noisy_ranking_is_called_noise():
    generator = np.random.default_rng(0)
    noisy = profile(probe_norms=np.exp(3 * generator.standard_normal((8, 14))))
    assert "mostly noise" in select_layers(noisy, "raw_norm", k=3).reliability["warning"]
    assert select_layers(profile(), "raw_norm", k=3).reliability["warning"] == ""
    few = select_layers(profile(n=2), "raw_norm", k=3).reliability
    assert few["split_half"] is None
    assert "fewer than 4 sequences" in few["warning"]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(policy="rgn_above_maen"), "Did you mean 'rgn_above_mean'"),
        (dict(policy="top_rgn_k", kk=3), "no option 'kk'.*Did you mean 'k'"),
        (dict(policy="top_rgn_k", k=0), "k .units. must be a whole number from 1 to 12"),
        (dict(policy="top_rgn_k", k=13), "from 1 to 12"),
        (dict(policy="top_k", k=7), "k .blocks. must be a whole number from 1 to 6"),
        (dict(k=2, parameter_fraction=0.1), "not both"),
        (dict(parameter_fraction=0.001), "no unit fits"),
    ],
)
def test_bad_requests_are_explained(kwargs, message):
    with pytest.raises(SelectionError, match=message):
        select_layers(profile(), **kwargs)


def test_a_profile_without_reference_says_what_to_do():
    p = profile(reference_norms=None, reference_alignment=None, probe_alignment=None)
    with pytest.raises(GradlocError, match="--reference"):
        select_layers(p)
    assert len(select_layers(p, "raw_norm", k=2).trained) == 2


def test_a_plan_for_another_model_is_refused():
    plan = select_layers(profile())
    other = (UnitInfo("layers.10.mlp", "mlp", 10, 1), *units()[:-1])
    with pytest.raises(PlanMismatchError, match="no unit norm") as error:
        plan.check_units(other)
    assert "says nothing of layers.10.mlp" in str(error.value)
    resized = tuple(
        UnitInfo(u.name, u.kind, u.block, 7) if u.name == "layers.1.mlp" else u for u in units()
    )
    with pytest.raises(PlanMismatchError, match="layers.1.mlp has 120 parameters in the plan, 7"):
        plan.check_units(resized)


def test_a_plan_by_hand_needs_only_scales(tmp_path):
    (tmp_path / "plan.json").write_text('{"scale": {"layers.0.mlp": 1, "layers.1.mlp": 0}}')
    assert LayerPlan.load(tmp_path / "plan.json").trained == ("layers.0.mlp",)
    (tmp_path / "bad.json").write_text('{"scale": {"layers.0.mlp": -1}}')
    with pytest.raises(GradlocError, match="layers.0.mlp: -1"):
        LayerPlan.load(tmp_path / "bad.json")


# --- budgets ---------------------------------------------------------------------------------


def uneven_profile(seed):
    """Four blocks of uneven size with scores of no order."""
    generator = np.random.default_rng(seed)
    rows = [UnitInfo("embed", "embedding", None, 4000)]
    for block in range(4):
        for kind, size in (("attention", 1024), ("mlp", int(generator.integers(800, 6000)))):
            rows.append(UnitInfo(f"layers.{block}.{kind}", kind, block, size))
    rows.append(UnitInfo("norm", "norm", None, 16))
    align = np.tile(generator.lognormal(0, 1.5, len(rows)), (4, 1))
    ones = np.ones((4, len(rows)))
    return GradientProfile(
        units=tuple(rows),
        probe_norms=ones,
        reference_norms=ones,
        probe_alignment=align,
        reference_alignment=ones,
        shape={"n_blocks": 4, "hidden_size": 16, "vocab_size": 250, "kv_size": 16},
    )


def every_choice(p, step):
    """Mass, time and memory of every set of the stack's units, one by one by the cost model."""
    stack = [unit.name for unit in p.units if unit.in_stack]
    scores = dict(zip(p.names, p.interference_ratio, strict=True))
    total = sum(scores[name] for name in stack)
    for n in range(1, len(stack) + 1):
        for chosen in itertools.combinations(stack, n):
            cost = predict_cost(
                p.units, {name: float(name in chosen) for name in p.names}, p.shape, step
            )
            mass = sum(scores[name] for name in chosen) / total
            yield frozenset(chosen), mass, cost["time_ratio"], cost["memory_ratio"]


STEPS = {
    "plain": StepShape(sequence_length=16, batch_size=2),
    "cached": StepShape(sequence_length=16, batch_size=2, cached=True, label_loss=True),
    "much memory": StepShape(sequence_length=128, batch_size=8),
    "projected": StepShape(sequence_length=16, batch_size=2, projected=True, label_loss=True),
    "projected and held": StepShape(
        sequence_length=128,
        batch_size=2,
        cached=True,
        label_loss=True,
        projected=True,
        kl_tokens=98.0,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("step", sorted(STEPS))
@pytest.mark.parametrize("seed", range(3))
def test_budgets_choose_what_trying_every_set_of_units_finds(seed, step):
    p, step = uneven_profile(seed), STEPS[step]
    choices = list(every_choice(p, step))
    times, memories = sorted(c[2] for c in choices), sorted(c[3] for c in choices)
    n_tight = 0
    for part in (0.02, 0.2, 0.5, 0.8):
        # Between two possible values, so that rounding decides nothing.
        time, memory = (values[int(part * len(values))] + 2e-4 for values in (times, memories))
        for limits in (
            dict(budget=time),
            dict(memory_budget=memory),
            dict(budget=time, memory_budget=memory),
        ):
            allowed = [
                c
                for c in choices
                if c[2] <= limits.get("budget", 9) and c[3] <= limits.get("memory_budget", 9)
            ]
            best = max((c[1] for c in allowed), default=None)
            if best is None:
                continue
            plan = select_layers(p, k=8, step=step, **limits)
            kept = next(c[1] for c in choices if c[0] == frozenset(plan.trained))
            assert kept == pytest.approx(best, abs=1e-6), (limits, plan.trained)
            assert plan.predicted["time_ratio"] <= limits.get("budget", 9)
            assert plan.predicted["memory_ratio"] <= limits.get("memory_budget", 9)
            n_tight += best < 0.999
        least = min(c[2] for c in choices if c[1] >= part)
        plan = select_layers(p, k=8, step=step, share=part)
        assert plan.predicted["time_ratio"] == pytest.approx(least, abs=1.1e-4)
    assert n_tight >= 6  # budgets that bind, or nothing was tested


def test_a_budget_takes_away_from_the_rule_and_never_adds():
    p = uneven_profile(1)
    rule = select_layers(p)
    assert 1 < len(rule.trained) < 8
    assert select_layers(p, budget=5.0).trained == rule.trained
    tight = select_layers(p, share=0.3)
    assert set(tight.trained) < set(rule.trained)
    assert tight.options == {"share": 0.3}
    assert {tight.scale[name] for name in tight.trained} == {1.0}
    # Of a rule with learning rates, what is kept keeps its rate.
    scaled = select_layers(p, "rgn_scaled", budget=0.8)
    full = select_layers(p, "rgn_scaled")
    assert all(scaled.scale[name] == full.scale[name] for name in scaled.trained)


def test_share_of_mass_counts_only_what_the_rule_trains():
    scores = np.array([0.0, 3.0, 1.0, 0.0])
    assert share_of_mass(scores, np.array([True, True, False, False])) == 0.75
    assert share_of_mass(scores, np.array([True, False, False, True])) == 0.0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(budget=0.01), r"no unit fits within budget 0.01 .*the cheapest .*layers.* costs 0\."),
        (dict(memory_budget=1e-6), "no unit fits within memory_budget 1e-06"),
        (
            dict(share=1.2),
            "share, a part of the mass .*above 0 and at most 1; found 1.2",
        ),
        (dict(budget=-0.5), "budget, a ratio .* above 0.*-0.5"),
        (dict(budget="half"), "budget, .* must be a number.*'half'"),
        (dict(policy="top_k", budget=0.5), "'top_k' ranks units by no score.*interference_ratio"),
        (dict(share=1.0, budget=0.6), "keeps budget 0.6, share 1 together"),
    ],
)
def test_impossible_budgets_are_explained(kwargs, message):
    with pytest.raises(SelectionError, match=message):
        select_layers(profile(), **kwargs)


def test_the_figure_that_an_error_names_is_enough():
    p = profile()
    with pytest.raises(SelectionError) as error:
        select_layers(p, budget=0.01)
    cheapest = float(str(error.value).rpartition("costs ")[2].rstrip("."))
    assert len(select_layers(p, budget=cheapest).trained) >= 1


def test_a_budget_needs_the_sizes_of_the_model():
    with pytest.raises(SelectionError, match="lacks the sizes"):
        select_layers(profile(shape={}), budget=0.5)


def test_a_ranking_of_equals_is_called_unknown_and_not_a_number():
    """Gradients of zero in every unit: NaN would be written to the plan and warn of nothing."""
    flat = profile(probe_alignment=np.zeros((8, len(units()))))
    found = select_layers(flat, "interference_ratio", k=2).reliability
    assert found["split_half"] is None and "same score" in found["warning"]
