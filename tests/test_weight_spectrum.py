import numpy as np
import pytest
import torch
from conftest import build_model

from gradloc.localization.weight_spectrum import matrix_snr, spectrum_snr
from gradloc.models.units import find_units


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


def test_quartiles_are_interpolated():
    # 8, 4, 2, 1: quartiles at 0.75 and 2.25 of the way: 1.75 and 5; threshold 4.818.
    matrix = with_singular_values([8.0, 4.0, 2.0, 1.0], (4, 4))
    assert matrix_snr(matrix) == pytest.approx(8 / 7 / 8, rel=1e-4)


def test_what_has_no_noise_is_infinite():
    assert matrix_snr(torch.ones(1, 7)) == np.inf
    assert matrix_snr(torch.zeros(3, 3)) == np.inf
    assert np.isfinite(matrix_snr(torch.randn(12, 12).bfloat16()))


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


def test_stacked_matrices_count_one_by_one():
    from types import SimpleNamespace

    torch.manual_seed(0)
    stack = torch.randn(3, 8, 8)
    unit = SimpleNamespace(
        info=SimpleNamespace(in_stack=True), parameters={"experts": stack, "bias": torch.ones(8)}
    )
    assert spectrum_snr((unit,))[0] == pytest.approx(np.mean([matrix_snr(m) for m in stack]))
    rows = SimpleNamespace(
        info=SimpleNamespace(in_stack=True), parameters={"row": torch.ones(1, 8)}
    )
    assert spectrum_snr((rows,))[0] == 0
