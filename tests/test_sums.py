import pytest
import torch

from gradloc.utils.sums import dot


@pytest.mark.parametrize("shape", [(), (5,), (2**15,), (2**15 + 1,), (4000, 700)])
def test_equals_float64(shape):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=generator) * 1e-3
    other = torch.randn(shape, generator=generator)
    expected = float((values.double() ** 2).sum())
    assert float(dot(values, values)) == pytest.approx(expected, rel=2e-6)
    expected = float((values.double() * other.double()).sum())
    scale = float((values.double() * other.double()).abs().sum())
    assert float(dot(values, other)) == pytest.approx(expected, abs=1e-6 * scale)


def test_the_transposed_view_pairs_the_same_elements():
    left, right = torch.rand(300, 200).T, torch.rand(200, 300)
    assert float(dot(left, right)) == pytest.approx(float((left * right).sum()), rel=1e-5)
