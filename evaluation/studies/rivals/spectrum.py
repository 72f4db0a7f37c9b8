"""Spectrum: how far the weights of each unit stand out from noise; no gradient enters."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from gradloc.errors import SelectionError
from gradloc.localization.profile import GradientProfile
from gradloc.models import load_model
from gradloc.models.units import Unit, find_units
from gradloc.utils.numbers import check_number

# Interquartile range of a normal distribution, in standard deviations. (arXiv:2406.06623 sec. 4)
NORMAL_IQR = 1.349


def spectrum(profile: GradientProfile, *, fraction: float = 0.25) -> np.ndarray:
    """Train the units whose weights stand out most from noise, by the Spectrum rule.

    Of each kind of unit (attention, MLP) the best ``fraction`` by ``spectrum_snr`` is trained,
    rounded down, at least one. The weights are those of the model that was measured.

    The paper ranks single weight matrices within each type of module, 25 % of them by default
    (its code: 50 %), and its code trains the embeddings and the head beside them. Here whole
    units are ranked by the mean over their matrices, and embeddings and head stay frozen.

    Raises:
        SelectionError: A fraction outside (0, 1].

    References:
        Hartford et al. 2024, arXiv:2406.06623 sections 3.3 and 4.2.
    """
    check_number("fraction", fraction, 0, 1, above=True, error=SelectionError)
    score = spectrum_snr(find_units(load_model(profile.model), profile.granularity))
    return best_of_each_kind(profile, score, fraction)


def best_of_each_kind(profile: GradientProfile, score: np.ndarray, fraction: float) -> np.ndarray:
    """Train the best part of the units of each kind, at least one."""
    scale = np.zeros(len(profile.units))
    order = [i for i in np.argsort(-score, kind="stable") if profile.units[i].in_stack]
    for kind in {profile.units[index].kind for index in order}:
        alike = [index for index in order if profile.units[index].kind == kind]
        # The small number undoes what binary fractions take from a whole product.
        scale[alike[: max(1, int(len(alike) * fraction + 1e-9))]] = 1.0
    return scale


def spectrum_snr(units: tuple[Unit, ...]) -> np.ndarray:
    """Mean of ``matrix_snr`` over the weight matrices of each unit.

    A stack of matrices (experts) counts as its matrices; biases and norms are left out, and so are
    matrices whose ratio is infinite.

    Args:
        units: The units; those outside the stack are passed over, since an embedding's singular
            values would take longer than all others.

    Returns:
        (n_units,); 0 outside the stack and for units without a finite ratio. Higher is further
        from noise. No unit of measure of its own: see ``matrix_snr``.
    """
    result = np.zeros(len(units))
    for index, unit in enumerate(units):
        if unit.info.in_stack:
            ratios = [matrix_snr(matrix) for matrix in _matrices(unit)]
            finite = [ratio for ratio in ratios if np.isfinite(ratio)]
            result[index] = np.mean(finite) if finite else 0.0
    return result


def matrix_snr(weight: Tensor) -> float:
    """Singular values above the noise threshold over those below it, by the largest of all.

    With singular values s_1 >= s_2 >= ... of an n x m matrix and ``beta = min(n, m) / max(n, m)``::

        sigma     = (75 % quantile - 25 % quantile of s) / 1.349
        threshold = sigma (1 + sqrt(beta))
        snr       = sum of s above threshold / sum of s up to it / s_1

    This is what the released code computes. In the paper, the threshold follows from the
    Marchenko-Pastur law of the eigenvalues of ``W^T W / n``, the factor ``1 / sqrt(n)`` is left
    out, section 3.3 puts the bare interquartile range for sigma, the listing of section 4
    divides it by 1.349 but not the ratio by s_1, and takes beta as n / m. The law is one of
    eigenvalues and the quantiles are those of singular values, so the threshold is no test of
    noise. measured: of a matrix of independent normal numbers 24 % of the singular values lie
    above it for 500 x 500, 85 % for 200 x 533 and all for 100 x 800. Matrices of one shape
    compare, others do not.

    The ratio falls by half when all weights are doubled, by the division by s_1.

    Args:
        weight: A matrix, of any floating type.

    Returns:
        The ratio; infinite where no singular value but 0 lies below the threshold (a matrix of one
        row, equal singular values) and for a matrix of zeros.

    References:
        Hartford et al. 2024, arXiv:2406.06623 sections 3.2, 3.3 and 4;
        cognitivecomputations/spectrum, spectrum.py.

    Example:
        Quartiles of 8, 2, 2, 1, 1 are 1 and 2; the threshold is 2 / 1.349 = 1.48:

        >>> round(matrix_snr(torch.diag(torch.tensor([8.0, 2, 2, 1, 1]))), 4)
        0.75
    """
    values = torch.linalg.svdvals(weight.detach().float()).double().cpu().numpy()
    low, high = np.quantile(values, [0.25, 0.75])
    beta = min(weight.shape) / max(weight.shape)
    threshold = (high - low) / NORMAL_IQR * (1 + np.sqrt(beta))
    noise = values[values <= threshold].sum()
    return float(values[values > threshold].sum() / noise / values[0]) if noise else float("inf")


def _matrices(unit: Unit) -> Iterator[Tensor]:
    for parameter in unit.parameters.values():
        if parameter.dim() >= 2:
            yield from parameter.flatten(0, -3) if parameter.dim() > 2 else [parameter]
