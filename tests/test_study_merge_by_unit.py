"""Choosing scales: slopes, gains, cost, the program, and what is done with the result."""

import copy
import itertools
import json

import numpy as np
import pytest
import torch
from conftest import build_model
from torch.func import functional_call
from transformers import AutoModelForCausalLM

from evaluation.studies.merge_by_unit.__main__ import main
from evaluation.studies.merge_by_unit.drawing import split_probes
from evaluation.studies.merge_by_unit.path import MergePath
from evaluation.studies.merge_by_unit.scales import least_cost_scales, shrunk_second_moment
from evaluation.studies.merge_by_unit.solving import _cost, _gains, _kept_interval, solve_merge
from evaluation.studies.merge_by_unit.target import lowest_target
from gradloc.data.batches import probe_rows
from gradloc.data.probes import Probe, ProbeSet
from gradloc.errors import MeasurementError, ModelError
from gradloc.localization.gradients.sequences import Sequence, read_sequences, sequence_loss
from gradloc.localization.plan import LayerPlan
from gradloc.models.units import find_units
from gradloc.training.merging import merge_checkpoints

TOWNS = ["Arvenholm", "Brusk", "Cendary", "Dolmar", "Eskil", "Farrow", "Gant", "Holme"]
NAMES = ["Ilse", "Bruno", "Clara", "Dmitri", "Edda", "Franz", "Greta", "Henk"]
TEXTS = [
    "The sea is wide and the night is long.",
    "Rain falls on the hills in spring.",
    "A train left the station at noon.",
    "Seven ships came back from the north.",
    "The old bridge was closed for a year.",
    "Bread is baked early in the morning.",
]


@pytest.fixture(scope="module")
def probes():
    return ProbeSet(
        [
            Probe(prompt=f"The mayor of {t} is", targets=(n,), group="new", id=t, entity=t)
            for t, n in zip(TOWNS, NAMES, strict=True)
        ]
    )


def asked_of(tokenizer, probes):
    return read_sequences(probe_rows(tokenizer, probes), "probe", torch.device("cpu"))


@pytest.fixture(scope="module")
def tuned_pair(character_tokenizer, probes):
    """A tiny model and the same after a few steps on the answers."""
    base = build_model("llama_tied")
    tuned = copy.deepcopy(base)
    optimizer = torch.optim.Adam(tuned.parameters(), lr=3e-3)
    asked = asked_of(character_tokenizer, probes)
    for _ in range(8):
        torch.stack([sequence_loss(tuned, s) for s in asked]).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return base, tuned


def shifted(model, size=0.05, seed=3):
    """State of a model with random changes in every weight."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + size * tensor.std() * torch.randn(tensor.shape, generator=generator)
        for name, tensor in model.state_dict().items()
    }


def some_sequences(n=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(0, 97, (1, 5 + 3 * i), generator=generator) for i in range(n)]
    # Labels of their own, the first one without a label: as spans and drawn labels are.
    labels = [torch.randint(0, 97, row.shape, generator=generator) for row in ids]
    for row in labels:
        row[0, 1] = -100
    return [Sequence(*pair) for pair in zip(ids, labels, strict=True)]


class LossOf(torch.nn.Module):
    """So that ``functional_call`` can put weights under a whole loss."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, sequence):
        return sequence_loss(self.model, sequence)


def slopes_by_autograd(model, tuned, scales, sequence):
    """d loss / d a_u with the scales themselves as variables."""
    scales = torch.tensor(scales, dtype=torch.float32, requires_grad=True)
    weights = {}
    for scale, unit in zip(scales, find_units(model), strict=True):
        for name, parameter in unit.parameters.items():
            base = parameter.detach()
            weights[f"model.{name}"] = base + scale * (tuned[name] - base)
    loss = functional_call(LossOf(model), weights, (sequence,))
    return torch.autograd.grad(loss, scales)[0].numpy(), loss.item()


@pytest.mark.parametrize("kind", ["llama_tied", "gpt2", "gemma"])
def test_slopes_and_losses_are_those_of_the_mixture(kind):
    model = build_model(kind)
    tuned = shifted(model)
    path = MergePath(model, tuned, "sublayer")
    mixed = np.linspace(0.1, 1.2, len(path.units))
    sequences = some_sequences()
    for scales in (np.zeros_like(mixed), mixed):
        expected = [slopes_by_autograd(model, tuned, scales, s) for s in sequences]
        got = path.slopes(scales, sequences, lambda n: None)
        rows = np.array([row for row, _ in expected])
        np.testing.assert_allclose(got, rows, rtol=2e-3, atol=1e-4 * np.abs(rows).max())
        loss = np.mean([loss for _, loss in expected])
        assert path.loss(scales, sequences) == pytest.approx(loss, rel=1e-5)


def test_the_model_is_given_back_bit_for_bit(llama):
    llama.train()
    llama.model.layers[1].eval()
    first = next(llama.parameters())
    first.grad = torch.ones_like(first)
    llama.model.norm.weight.requires_grad_(False)
    before = copy.deepcopy(llama.state_dict())
    homes = [p.data_ptr() for p in llama.parameters()]
    path = MergePath(llama, shifted(llama), "sublayer")
    path.slopes(0.5, some_sequences(), lambda n: None)
    path.divergences({"a": 1.0}, some_sequences())
    with pytest.raises(RuntimeError, match="inside"), path.at(0.7):
        raise RuntimeError("inside")
    assert all(torch.equal(tensor, before[name]) for name, tensor in llama.state_dict().items())
    assert [p.data_ptr() for p in llama.parameters()] == homes
    assert torch.equal(first.grad, torch.ones_like(first))
    assert [p.grad is None for p in llama.parameters()].count(False) == 1
    assert not llama.model.norm.weight.requires_grad and first.requires_grad
    assert llama.training and not llama.model.layers[1].training


def test_gains_add_up_to_the_whole_difference(tuned_pair, character_tokenizer, probes):
    """Completeness of integrated gradients; and more points on the path come closer."""
    base, tuned = tuned_pair
    path = MergePath(base, tuned.state_dict(), "sublayer")
    asked = asked_of(character_tokenizer, probes)
    drop = path.loss(0.0, asked) - path.loss(1.0, asked)
    errors = [abs(_gains(path, asked, n, lambda n: None).sum() / drop - 1) for n in (1, 2, 4)]
    assert errors[2] < 2e-3
    assert errors[0] > 5 * errors[2]


@pytest.mark.slow
def test_the_cost_is_the_divergence_to_second_order():
    model = build_model("llama_tied")
    path = MergePath(model, shifted(model, size=0.02), "sublayer")
    # 200 draws of labels for two texts of unequal length.
    texts = [s._replace(labels=s.input_ids) for s in some_sequences(2)]
    cost, shrinkage = _cost(path, texts * 200, 0, lambda n: None)
    assert shrinkage < 0.5
    ones = np.ones(len(cost))
    some = np.linspace(0, 1, len(cost)) ** 2
    true = path.divergences({"ones": ones, "some": some}, texts)
    for name, scales in (("ones", ones), ("some", some)):
        assert scales @ cost @ scales / 2 == pytest.approx(true[name], rel=0.2)


def test_divergence_is_that_of_two_models(llama, monkeypatch):
    # One sequence a chunk.
    monkeypatch.setattr("evaluation.studies.merge_by_unit.path.LOGIT_BYTES", 4_000)
    tuned = copy.deepcopy(llama)
    tuned.load_state_dict(shifted(llama))
    sequences = some_sequences()
    path = MergePath(llama, tuned.state_dict(), "block")
    expected = []
    for sequence in sequences:
        places = (sequence.labels[0, 1:] != -100).nonzero().squeeze(1)
        with torch.no_grad():
            p, q = (m(sequence.input_ids).logits[0, places].softmax(-1) for m in (llama, tuned))
        expected.append(float((p * (p / q).log()).sum(-1).mean()))
    got = path.divergences({"one": 1.0, "none": 0.0}, sequences)
    assert got["one"] == pytest.approx(np.mean(expected), rel=1e-3)
    assert got["none"] == 0


@pytest.mark.slow
def test_three_units_as_by_trying_everything():
    """On a grid of a hundredth no cheaper point satisfies the target."""
    generator = np.random.default_rng(0)
    grid = np.array(list(itertools.product(np.linspace(0, 1, 101), repeat=3)))
    for _ in range(20):
        rows = generator.normal(size=(5, 3)) * [1, 3, 0.3]
        cost, gain = rows.T @ rows, generator.normal(size=3) + 0.6
        target = generator.uniform(0.3, 0.95) * max(gain[gain > 0].sum(), 0.1)
        found = least_cost_scales(gain, cost, target)
        feasible = grid[grid @ gain >= target]
        if not len(feasible):
            continue
        best = np.einsum("ni,ij,nj->n", feasible, cost, feasible).min()
        assert gain @ found >= target - 1e-8
        assert found @ cost @ found <= best + 1e-9


@pytest.mark.slow
def test_optimality_conditions_of_many_units():
    generator = np.random.default_rng(1)
    for n, n_rows in ((62, 24), (62, 200), (150, 24)):
        for _ in range(5):
            rows = generator.normal(size=(n_rows, n)) * np.exp(generator.normal(size=n))
            cost, _ = shrunk_second_moment(rows + generator.normal(size=(n_rows, 1)))
            gain = generator.normal(size=n) + 0.3
            target = 0.95 * gain[gain > 0].sum() * generator.uniform(0.3, 1)
            a = least_cost_scales(gain, cost, target)
            assert gain @ a == pytest.approx(target, rel=1e-6)
            # Convex: a is the minimum if no feasible x has slope' x below slope' a. The lowest x
            # is a knapsack, filled by slope per gain.
            slope = 2 * cost @ a
            gap = slope @ a - lowest_linear(slope, gain, target)
            assert gap <= 1e-3 * (a @ cost @ a)


def lowest_linear(slope, gain, target):
    from scipy.optimize import linprog

    return linprog(slope, A_ub=-gain[None], b_ub=[-target], bounds=(0, 1)).fun


def test_edges_of_the_program():
    cost = np.eye(3)
    gain = np.array([0.7, 0.5, -0.2])
    assert least_cost_scales(gain, cost, 0.0).tolist() == [0, 0, 0]
    assert least_cost_scales(gain, cost, 1.3).tolist() == [1, 1, 0], "the most there is"
    a = least_cost_scales(gain, cost, 0.6)
    np.testing.assert_allclose(a, 0.6 * np.array([0.7, 0.5, 0]) / 0.74, atol=1e-5)
    # The scale of the numbers is no matter.
    np.testing.assert_allclose(least_cost_scales(1e-6 * gain, 1e9 * cost, 6e-7), a, atol=1e-5)
    # A unit that gains nothing is kept where it undoes another's disturbance.
    rows = np.array([[1.0, -1.0]])
    a = least_cost_scales(np.array([1.0, 0.0]), rows.T @ rows + 1e-3 * np.eye(2), 0.99)
    np.testing.assert_allclose(a, [0.99, 0.99], atol=2e-3)


def test_shrinkage_as_by_loops():
    rows = np.random.default_rng(0).normal(size=(6, 3)) * [1.0, 5.0, 0.2]
    size = np.sqrt((rows**2).mean(0))
    variance = signal = 0.0
    for u, v in itertools.permutations(range(3), 2):
        products = rows[:, u] * rows[:, v] / (size[u] * size[v])
        variance += products.var(ddof=1) / 6
        signal += products.mean() ** 2
    matrix, weight = shrunk_second_moment(rows)
    assert weight == pytest.approx(min(1.0, variance / signal))
    np.testing.assert_allclose(np.diag(matrix), (rows**2).mean(0))
    assert matrix[0, 1] == pytest.approx((1 - weight) * (rows[:, 0] * rows[:, 1]).mean())


def test_shrinkage_goes_from_noise_to_signal():
    generator = np.random.default_rng(2)
    noise = generator.normal(size=(24, 60))
    assert shrunk_second_moment(noise)[1] > 0.8
    common = noise + 3 * generator.normal(size=(24, 1))
    assert shrunk_second_moment(common)[1] < 0.2
    matrix, weight = shrunk_second_moment(np.array([[1.0, 2.0, 0.0]]))
    assert weight == 1 and matrix.tolist() == np.diag([1.0, 4.0, 0.0]).tolist()
    for rows in (noise, common):
        assert np.linalg.eigvalsh(shrunk_second_moment(rows)[0]).min() > 0


def solved(pair, probes, tokenizer, **options):
    base, tuned = pair
    return solve_merge(base, tuned.state_dict(), probes, TEXTS, tokenizer, **options)


@pytest.fixture(scope="module")
def solution(tuned_pair, probes, character_tokenizer):
    return solved(tuned_pair, probes, character_tokenizer, min_uptake=0.8)


def test_the_uptake_is_kept_and_less_disturbed(tuned_pair, solution, probes, character_tokenizer):
    base, tuned = tuned_pair
    assert 0.8 <= solution.kept < 0.95
    assert solution.reference_kl_nats["merged"] < 0.9 * solution.reference_kl_nats["tuned"]
    assert solution.counts == {
        "probes_solved_on": 4,
        "probes_measured_on": 4,
        "texts_solved_on": 3,
        "texts_measured_on": 3,
    }
    assert sum(solution.plan.scores.values()) == pytest.approx(1)
    assert abs(solution.gain_error) < 0.05
    # What is measured is what a model with these weights does.
    merged = copy.deepcopy(base)
    with torch.no_grad():
        units = zip(find_units(merged), find_units(tuned), strict=True)
        for mine, other in units:
            for name, parameter in mine.parameters.items():
                parameter.lerp_(other.parameters[name], solution.plan.scale[mine.name])
        asked = asked_of(character_tokenizer, split_probes(probes, 24, 0)[1])
        losses = {
            name: float(torch.stack([sequence_loss(m, s) for s in asked]).mean())
            for name, m in (("base", base), ("tuned", tuned), ("merged", merged))
        }
    for name, loss in losses.items():
        assert solution.probe_loss_nats[name] == pytest.approx(loss, abs=1e-4)
    kept = (losses["base"] - losses["merged"]) / (losses["base"] - losses["tuned"])
    assert solution.kept == pytest.approx(kept, abs=1e-3)
    assert solution.kept_low < kept < solution.kept_high
    # The control keeps as much.
    assert solution.probe_loss_nats["uniform"] == pytest.approx(losses["merged"], abs=0.02)
    assert 0 < solution.uniform_scale < 1


def test_a_unit_that_only_disturbs_is_undone(probes, character_tokenizer):
    """One unit follows the probes' gradient, another is noise, the rest is as it was."""
    base = build_model("llama_tied")
    units = {unit.name: unit.parameters for unit in find_units(base)}
    asked = asked_of(character_tokenizer, probes)
    torch.stack([sequence_loss(base, s) for s in asked]).mean().backward()
    tuned = dict(base.state_dict())
    generator = torch.Generator().manual_seed(0)
    for name, parameter in units["model.layers.2.mlp"].items():
        tuned[name] = (parameter - 0.6 * parameter.grad).detach()
    for name, parameter in units["model.layers.0.mlp"].items():
        noise = torch.randn(parameter.shape, generator=generator)
        tuned[name] = (parameter + 0.1 * parameter.std() * noise).detach()
    base.zero_grad()
    solution = solve_merge(base, tuned, probes, TEXTS, character_tokenizer, min_uptake=0.9)
    scale = solution.plan.scale
    assert scale["model.layers.2.mlp"] > 0.8
    assert scale["model.layers.0.mlp"] < 0.2
    assert sum(scale.values()) == scale["model.layers.2.mlp"] + scale["model.layers.0.mlp"]
    assert solution.reference_kl_nats["merged"] < solution.reference_kl_nats["uniform"]


def test_probes_that_judge_are_not_seen(tuned_pair, solution, probes, character_tokenizer):
    others = [
        Probe(prompt="The river is", targets=("Senn",), group="new", split="evaluation", id=f"e{i}")
        for i in range(4)
    ] + [Probe(prompt="Two and two is", targets=("four",), group="invariant", id="i")]
    among = solved(tuned_pair, ProbeSet([*others, *probes]), character_tokenizer, min_uptake=0.8)
    assert among == solution
    with pytest.raises(MeasurementError, match="none of the 5 probes"):
        solved(tuned_pair, ProbeSet(others), character_tokenizer)


def test_probes_to_solve_on_and_to_measure_on_share_no_entity():
    mixed = [
        Probe(prompt=f"{t} {i}", targets=("a",), group="updated", id=f"{t}{i}", entity=t)
        for t in TOWNS[:5]
        for i in range(3)
    ]
    for n, sizes in ((24, {9, 6}), (4, {4})):
        left, right = split_probes(ProbeSet(mixed), n, seed=1)
        assert {len(left), len(right)} == sizes
        assert not {p.entity for p in left} & {p.entity for p in right}
    assert len({p.entity for p in left}) == 3, "one probe of each entity before a second of any"
    alone = split_probes(ProbeSet(mixed[:3]), 24, seed=1)
    assert alone[0] == alone[1] and len(alone[0]) == 3


def test_the_interval_of_the_share_resamples_entities():
    """Losses stand in for the model: two entities keep 1 and 0 of what tuning gained."""

    class Losses:
        def losses(self, point, asked):
            rows = {0.0: [2.0, 2, 4], 1.0: [1.0, 1, 3]}
            return np.array(rows.get(point, [1.0, 1, 4]))

    interval = _kept_interval(Losses(), 0.5, [None] * 3, ["a", "a", "b"])
    assert interval == (0.0, 1.0)
    # One entity says nothing of the spread between entities.
    assert _kept_interval(Losses(), 0.5, [None] * 3, ["a", "a", "a"]) == (None, None)


def test_what_cannot_be_solved_is_refused(tuned_pair, probes, character_tokenizer):
    base, tuned = tuned_pair
    with pytest.raises(ModelError, match="no uptake to keep"):
        solved((tuned, base), probes, character_tokenizer)
    for options in ({"min_uptake": 0.0}, {"min_uptake": 1.1}):
        with pytest.raises(ModelError, match="give a share above 0"):
            solved(tuned_pair, probes, character_tokenizer, **options)
    state = dict(tuned.state_dict())
    state["model.norm.weight"] = torch.ones(3)
    with pytest.raises(ModelError, match=r"model.norm.weight has shape \(32,\).*shape \(3,\)"):
        solve_merge(base, state, probes, TEXTS, character_tokenizer)
    del state["model.norm.weight"]
    with pytest.raises(ModelError, match="has nothing"):
        solve_merge(base, state, probes, TEXTS, character_tokenizer)


def test_the_target_moves_until_enough_is_kept():
    gains = np.array([0.6, 0.5, -0.1])
    # Kept is the square of what was predicted: .9 needs a target of .949, and up to 1.1 is there.
    scales, target, kept, warnings = lowest_target(
        lambda target: np.array([target]), lambda scales: float(scales[0] ** 2), 0.9, gains
    )
    assert scales.tolist() == [target] and kept == target**2 and not warnings
    assert 0.9 <= kept < 0.9 + 0.03
    # More is kept than was predicted: the target goes down.
    _, target, kept, _ = lowest_target(
        lambda target: np.array([target]), lambda scales: float(scales[0] ** 0.5), 0.9, gains
    )
    assert 0.9 <= kept < 0.92 and target < 0.85
    # Nothing keeps enough but the tuned model itself.
    scales, target, kept, warnings = lowest_target(
        lambda target: np.array([target]), lambda scales: 0.5, 0.9, gains
    )
    assert scales.tolist() == [1, 1, 1] and kept == 1 and "stay whole" in warnings[0]


def test_the_script(tuned_pair, probes, character_tokenizer, tmp_path):
    for side, model in zip(("base", "tuned"), tuned_pair, strict=True):
        model.save_pretrained(tmp_path / side)
        character_tokenizer.save_pretrained(tmp_path / side)
    probes.save(tmp_path / "probes.jsonl")
    (tmp_path / "texts.txt").write_text("\n\n".join(TEXTS))
    base, tuned, out = (str(tmp_path / name) for name in ("base", "tuned", "out"))
    files = ("--probes", tmp_path / "probes.jsonl", "--reference", tmp_path / "texts.txt")
    main([base, tuned, *map(str, files), "--min-uptake", ".8", "--out", out])
    solution = json.loads((tmp_path / "out" / "merge.json").read_text())
    assert solution["min_uptake"] == 0.8
    assert LayerPlan.load(tmp_path / "out" / "plan.json").scale == solution["plan"]["scale"]
    merge_checkpoints(base, tuned, tmp_path / "out" / "plan.json", tmp_path / "merged")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    asked = asked_of(character_tokenizer, split_probes(probes, 24, 0)[1])
    with torch.no_grad():
        loss = float(torch.stack([sequence_loss(loaded, s) for s in asked]).mean())
    assert loss == pytest.approx(solution["probe_loss_nats"]["merged"], abs=1e-4)
