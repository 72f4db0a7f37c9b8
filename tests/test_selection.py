import numpy as np
import pytest

from gradloc import LayerPlan, select_layers
from gradloc.errors import GradlocError, PlanMismatchError, SelectionError
from gradloc.profile import GradientProfile, UnitInfo
from gradloc.selection import POLICIES, SCORES

N_BLOCKS = 6


def units():
    rows = [UnitInfo("embed", "embedding", None, 500)]
    for block in range(N_BLOCKS):
        rows.append(UnitInfo(f"layers.{block}.attn", "attention", block, 40))
        rows.append(UnitInfo(f"layers.{block}.mlp", "mlp", block, 120))
    return (*rows, UnitInfo("norm", "norm", None, 10))


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
    if policy in SCORES:
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
        (dict(policy="top_rgn_k", k=0), "from 1 to 12"),
        (dict(policy="top_rgn_k", k=13), "from 1 to 12"),
        (dict(policy="top_k", k=7), "from 1 to 6 .blocks."),
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
