"""Rival policies (evaluation/studies/rivals) against trying every set, and by hand."""

import itertools

import numpy as np
import pytest
import torch
from conftest import build_model

from evaluation.studies.rivals.interference_set import estimated_shrinkage
from evaluation.studies.rivals.set_search import best_set
from evaluation.studies.rivals.signal_to_noise import snr
from evaluation.studies.rivals.spectrum import matrix_snr, spectrum, spectrum_snr
from gradloc import select_layers
from gradloc.localization.profile import GradientProfile
from gradloc.models.unit_info import UnitInfo
from gradloc.models.units import find_units

SET = "evaluation.studies.rivals.interference_set:interference_set"


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
    plan = select_layers(aligned_profile(aligned, benefit), SET, shrinkage=shrinkage)
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
    assert select_layers(p, SET, k=2, shrinkage=0.0).trained == ("u0", "u2")
    assert select_layers(p, "interference_ratio", k=2).trained == ("u0", "u1")
    assert select_layers(p, SET, k=2, shrinkage=1.0).trained == ("u0", "u1")


def test_what_cancels_is_worth_training_together():
    # The two disturb in opposite ways, so that a step in both disturbs little.
    aligned = [[1.0, -0.9, 0.5], [-1.0, 1.1, 0.5]]
    p = aligned_profile(aligned, [1.0, 1.0, 0.6])
    assert select_layers(p, SET, shrinkage=0.0).trained == ("u0", "u1")


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


def test_snr_is_the_mean_over_the_spread():
    # Unit a: gradients 1 and 3 on a line: mean 2, variance 1. Unit b: 3 along x, 4 along y:
    # mean (1.5, 2) of length 2.5, variance 12.5 - 6.25. Unit c: opposite, mean 0.
    p = GradientProfile(
        units=tuple(UnitInfo(name, "mlp", block, 4) for block, name in enumerate("abc")),
        probe_norms=np.array([[1.0, 3.0, 1.0], [3.0, 4.0, 1.0]]),
        probe_norm_of_mean=np.array([2.0, 2.5, 0.0]),
    )
    assert snr(p).tolist() == [1, 0, 0]
    assert snr(p, k=2).tolist() == [1, 1, 0]


def with_singular_values(values, shape, seed=0):
    """A matrix of this shape with these singular values."""
    torch.manual_seed(seed)
    left = torch.linalg.qr(torch.randn(shape[0], shape[0]))[0]
    right = torch.linalg.qr(torch.randn(shape[1], shape[1]))[0]
    middle = torch.zeros(shape)
    middle[range(len(values)), range(len(values))] = torch.tensor(values)
    return left @ middle @ right


def test_by_hand():
    # Quartiles of 10, 6, 4, 3, 2 are 3 and 6; beta = 5/20; threshold = 3 / 1.349 * 1.5 = 3.336.
    values = [10.0, 6.0, 4.0, 3.0, 2.0]
    for shape in ((5, 20), (20, 5)):
        assert matrix_snr(with_singular_values(values, shape)) == pytest.approx(
            20 / 5 / 10, rel=1e-4
        )
    # Square: threshold = 3 / 1.349 * 2 = 4.448, and 4 is noise now.
    assert matrix_snr(with_singular_values(values, (5, 5))) == pytest.approx(16 / 9 / 10, rel=1e-4)
    # The ratio is free of the scale of the weights, the division by the largest value is not.
    assert matrix_snr(2 * with_singular_values(values, (5, 5))) == pytest.approx(
        16 / 9 / 20, rel=1e-4
    )


@pytest.mark.parametrize("kind", ["llama_tied", "gpt2"])
def test_units_are_means_over_their_matrices(kind):
    model = build_model(kind)
    with torch.no_grad():  # random weights have no noise by this rule where a matrix is wide
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter[0, 0] += 20.0
                parameter[:, 1] *= 0.01
                parameter[2] *= 0.01
    units = find_units(model)
    result = spectrum_snr(units)
    weights = dict(model.named_parameters())
    finite = 0
    for unit, value in zip(units, result, strict=True):
        if not unit.info.in_stack:
            assert value == 0
            continue
        matrices = [weights[name] for name in unit.parameters if weights[name].dim() == 2]
        assert len(matrices) >= 2
        ratios = [matrix_snr(matrix) for matrix in matrices]
        kept = [ratio for ratio in ratios if ratio != np.inf]
        finite += len(kept)
        assert value == pytest.approx(sum(kept) / len(kept))
    assert finite >= 6


def test_spectrum_takes_the_best_part_of_each_kind_of_the_measured_model(tiny_checkpoint):
    from gradloc.models import load_model

    units = find_units(load_model(str(tiny_checkpoint)))
    infos = tuple(unit.info for unit in units)
    p = GradientProfile(
        units=infos, probe_norms=np.ones((2, len(infos))), model=str(tiny_checkpoint)
    )
    score, scale = spectrum_snr(units), spectrum(p, fraction=0.5)
    for kind in ("attention", "mlp"):
        alike = [i for i, unit in enumerate(infos) if unit.kind == kind]
        assert [i for i in alike if scale[i]] == [max(alike, key=lambda i: score[i])]  # 1 of 3
    assert scale.sum() == 2
