"""The policies that score units one by one, against tables worked out by hand."""

import numpy as np
import pytest
from test_selection import profile, units

from gradloc import select_layers
from gradloc.errors import SelectionError
from gradloc.localization.layer_selection import COMMON_OPTIONS
from gradloc.localization.policies import POLICIES, POSITIONAL
from gradloc.localization.profile import GradientProfile
from gradloc.models.unit_info import UnitInfo


@pytest.mark.parametrize("policy", ["interference_ratio", "fisher_ratio", "sign_agreement"])
def test_scores_take_a_number_or_a_part_of_the_parameters(policy):
    p = profile()
    plan = select_layers(p, policy, k=3)
    stack = [unit.name for unit in p.units if unit.in_stack]
    best = sorted(stack, key=plan.scores.get)[-3:]
    assert set(plan.trained) == set(best)
    assert 0 < select_layers(p, policy, parameter_fraction=0.2).trainable_fraction <= 0.2
    with pytest.raises(SelectionError, match="not both"):
        select_layers(p, policy, k=1, parameter_fraction=0.2)


# --- one kind of unit only -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["attention", "mlp"])
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_policy_can_be_kept_to_one_kind(policy, kind):
    p = profile()
    options = {"k": 3} if policy in ("top_rgn_k", "raw_norm") else {}
    if (policy, kind) == ("last_third_mlp", "attention"):
        with pytest.raises(SelectionError, match="trains no unit of this kind"):
            select_layers(p, policy, only=kind)
        return
    plan = select_layers(p, policy, only=kind, **options)
    kinds = {unit.kind for unit in units() if plan.scale[unit.name]}
    assert kinds == ({kind} if policy != "none" else set())
    assert plan.options == {**options, "only": kind}
    assert plan.units == p.units


def test_the_mean_is_taken_over_the_kind_alone():
    norms = np.full((4, 14), 100.0)
    norms[:, 2:13:2] = [1, 1, 1, 1, 1, 2]  # MLPs, far below attention
    p = profile(n=4, probe_norms=norms, reference_norms=np.ones((4, 14)))
    assert select_layers(p, "rgn_above_mean", only="mlp").trained == ("layers.5.mlp",)
    assert "layers.5.mlp" not in select_layers(p, "rgn_above_mean").trained
    scale = select_layers(p, "rgn_scaled", only="mlp").scale
    assert scale["layers.5.mlp"] == pytest.approx(2 / (7 / 6))
    assert scale["layers.5.attn"] == 0


def test_counts_and_sizes_are_those_of_the_kind():
    p = profile()
    assert len(select_layers(p, "random_k", k=6, only="mlp").trained) == 6
    with pytest.raises(SelectionError, match="k .units. .* from 1 to 6"):
        select_layers(p, "random_k", k=7, only="mlp")
    # As many parameters as the default policy trains among MLPs, give or take half of one.
    like = select_layers(p, only="mlp").trainable_fraction
    drawn = select_layers(p, "random_k", only="mlp").trainable_fraction
    assert drawn == pytest.approx(like, abs=60 / 1470)
    chosen = set(select_layers(p, only="mlp").trained)
    rest = set(select_layers(p, "inverse", only="mlp").trained)
    assert chosen | rest == {u.name for u in units() if u.kind == "mlp"}
    assert chosen.isdisjoint(rest)
    assert select_layers(p, "top_k", k=2, only="attention").trained == (
        "layers.4.attn",
        "layers.5.attn",
    )


def test_reliability_is_that_of_the_kind():
    generator = np.random.default_rng(0)
    norms = np.tile(np.linspace(1, 3, 14), (8, 1))
    norms[:, 2:13:2] = np.exp(3 * generator.standard_normal((8, 6)))  # noise in the MLPs
    p = profile(probe_norms=norms)
    assert select_layers(p, "raw_norm", k=2, only="attention").reliability["split_half"] > 0.99
    assert "mostly noise" in select_layers(p, "raw_norm", k=2, only="mlp").reliability["warning"]


def test_a_budget_keeps_to_the_kind():
    plan = select_layers(profile(), "raw_norm", k=6, only="mlp", budget=0.7)
    assert set(plan.trained) < {u.name for u in units() if u.kind == "mlp"}
    assert plan.options == {"k": 6, "only": "mlp", "budget": 0.7}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(only="mpl"), "no kind of unit. Did you mean 'mlp'"),
        (dict(only="block"), "no kind of unit. Known: attention, mlp"),
        (dict(onyl="mlp"), "Did you mean 'only'"),
    ],
)
def test_bad_requests_are_explained(kwargs, message):
    with pytest.raises(SelectionError, match=message):
        select_layers(profile(), **kwargs)


@pytest.mark.parametrize(
    ("policy", "field", "message"),
    [
        ("rgn_above_mean", "reference_norms", "--reference FILE"),
        ("interference_ratio", "reference_alignment", "--reference FILE"),
    ],
)
def test_what_was_not_measured_is_named_with_its_cure(policy, field, message):
    with pytest.raises(SelectionError, match=f"policy '{policy}': .*no {field}.*{message}"):
        select_layers(profile(**{field: None}), policy)


def test_a_policy_can_be_named_by_its_import_path():
    p = profile()
    name = "evaluation.studies.rivals.signal_to_noise:snr"
    plan = select_layers(p, name, k=2)
    assert (len(plan.trained), plan.policy, plan.scores) == (2, name, {})
    with pytest.raises(SelectionError, match="no option 'kk'"):
        select_layers(p, name, kk=2)
    with pytest.raises(SelectionError, match="ranks units by no score"):
        select_layers(p, name, budget=0.5)
    with pytest.raises(SelectionError, match="one scale for each of 14 units"):
        select_layers(p, "test_selection:units_of")


def test_blocks_have_no_kind_to_choose():
    blocks = tuple(UnitInfo(f"layers.{i}", "block", i, 10) for i in range(3))
    p = GradientProfile(units=blocks, probe_norms=np.ones((4, 3)), granularity="block")
    with pytest.raises(SelectionError, match="granularity is 'block'"):
        select_layers(p, "raw_norm", k=1, only="mlp")


def test_only_stands_among_the_options_of_every_policy():
    assert COMMON_OPTIONS[0] == "only" and "budget" in COMMON_OPTIONS


# random_k takes the size of another policy's choice, which here is the same both ways; agreement
# of signs is noise in this profile.
@pytest.mark.parametrize("policy", sorted(set(POLICIES) - {"random_k", "sign_agreement"}))
def test_positional_policies_are_those_that_no_measurement_changes(policy):
    """A stream measures once for them; a wrong entry would freeze a choice that should move."""
    up = profile()
    down = GradientProfile(
        **{
            name: value[..., ::-1] if isinstance(value, np.ndarray) else value
            for name, value in vars(up).items()
        }
    )
    same = select_layers(up, policy).scale == select_layers(down, policy).scale
    assert same == (policy in POSITIONAL)


def three_units(**fields):
    """Three MLPs of four parameters; two probes and two reference sequences."""
    ones = np.ones((2, 3))
    values = dict(probe_norms=ones, reference_norms=ones, probe_alignment=ones)
    values |= dict(reference_alignment=ones) | fields
    units = tuple(UnitInfo(name, "mlp", block, 4) for block, name in enumerate("abc"))
    return GradientProfile(units=units, **values)


def test_fisher_ratio_is_a_ratio_of_mean_squares():
    p = three_units(
        probe_norms=np.array([[1.0, 3.0, 0.0], [3.0, 3.0, 0.0]]),
        reference_norms=np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 1.0]]),
    )
    # (1 + 9) / (1 + 4) = 2, (9 + 9) / (1 + 1) = 9, 0: b alone is above the mean.
    plan = select_layers(p, "fisher_ratio")
    assert list(plan.scores.values()) == pytest.approx([2.0, 9.0, 0.0]) and plan.trained == ("b",)


def test_sign_agreement_of_units_is_a_mean_of_cosines():
    p = three_units(
        reference_norms=np.array([[1.0, 2.0, 0.0], [4.0, 1.0, 1.0]]),
        reference_alignment=np.array([[2.0, 2.0, 0.0], [8.0, -1.0, -2.0]]),
    )
    # Signs of four parameters have length 2: (1 + 1) / 2, (.5 - .5) / 2, (0 - 1) / 2. The mean of
    # the products over the product of the means would make b 1/6.
    plan = select_layers(p, "sign_agreement")
    assert list(plan.scores.values()) == pytest.approx([1.0, 0.0, -0.5]) and plan.trained == ("a",)
