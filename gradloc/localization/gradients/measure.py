"""Gradient norms and directions, per unit and per sequence.

Whole micro-batches are measured in one backward pass (``gradloc.localization.gradients``). A
model with a layer that
is not known there is measured one sequence at a time. Padding, batching and order do not matter in
either.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from gradloc.errors import MeasurementError
from gradloc.localization import gradients as per_sample
from gradloc.localization.gradients.sequences import Sequence, Workload, read_sequences
from gradloc.localization.profile import REDUCTIONS, GradientProfile, Reduction
from gradloc.models.architecture import model_shape
from gradloc.models.unit_info import Granularity
from gradloc.models.units import Unit, find_units
from gradloc.models.wrappers import evaluation_mode, unwrap
from gradloc.utils.names import did_you_mean
from gradloc.utils.progress import SequenceBar

logger = logging.getLogger(__name__)

# Room for mean gradients in float32, or for the layer inputs and output gradients of probes, until
# their sign is taken. Larger models take more passes instead of more memory. assumption: 1 GiB is
# there wherever a model trains.
BUFFER_BYTES = 2**30


def measure_gradients(
    model: nn.Module,
    batches: Iterable[Mapping],
    *,
    reference: Iterable[Mapping] | None = None,
    granularity: Granularity = "sublayer",
    reduction: Reduction = "mean_of_norms",
    progress: bool | None = None,
    settings: dict | None = None,
) -> GradientProfile:
    """Measure each unit's gradient on probe sequences and on reference text.

    For a sequence s with labelled tokens, the loss is the mean negative log-likelihood of those
    tokens in nats; ``g_s,u`` is its gradient in unit u. Measured are ``||g_s,u||_2`` for probe
    and reference sequences and, with reference text, ``<g_s,u, sign G_u>`` for both, where
    ``G_u`` is the mean probe gradient and ``-sign G_u`` the direction of Adam's first step.
    The mean over probes of the inner product is ``||G_u||_1``.

    The model is left bit for bit as found: weights, ``requires_grad``, ``grad``, modes, random
    state. No parameter gets a ``grad``, but for a few tokens that try every layer and in
    models with a layer of unknown kind (a warning names it). At most one parameter's gradient is
    alive at a time; of the mean gradient a byte a parameter is kept. Inputs and output gradients
    of all layers are kept over the probes where they fit into 1 GiB; else there is one more pass.

    Args:
        model: Causal language model, in float32 or bfloat16, on any one device, PEFT-wrapped or
            not. Adapters are not measured: the base weights are, whether trainable or frozen.
        batches: Probe batches: ``input_ids``, ``attention_mask`` (optional) and ``labels``
            (-100 ignored) of shape (batch, seq), or (seq,) for a row without padding; label the
            salient span only.
        reference: Reference batches of the same form, usually with all tokens labelled. Without
            it the profile has raw probe norms only.
        granularity: ``sublayer`` or ``block``.
        reduction: What the profile's ``rgn`` is made of: ``mean_of_norms`` (mean over sequences
            of the norm) or ``norm_of_mean`` (norm of the mean gradient). They rank layers
            differently.
        progress: Show a progress bar; ``None``: when on a terminal.
        settings: How the sequences were drawn, kept in the profile for the record.

    Returns:
        The profile, arrays of shape (n_sequences, n_units).

    Raises:
        MeasurementError: No sequence, a sequence without labels, weights that have no gradient
            (quantised), a gradient that is not finite (unit and sequence are named), or an
            unknown ``reduction``.
        UnitsError: The model's units cannot be found.

    References:
        Fernandez, Bisk, Strubell 2024, arXiv:2411.04448 (relative gradient norm);
        Goodfellow 2015, arXiv:1510.01799 (per-sequence norms from one backward pass).
    """
    if reduction not in REDUCTIONS:
        raise MeasurementError(
            f"reduction {reduction!r} is unknown. {did_you_mean(reduction, REDUCTIONS)}"
        )
    model = unwrap(model)
    device = next(model.parameters()).device
    probes = read_sequences(batches, "probe", device)
    references = None if reference is None else read_sequences(reference, "reference", device)
    units = find_units(model, granularity)
    with _measurable(model, units):
        slow = _has_unknown_layer(model, units, probes)
        probe, ref = _measure_sides(model, units, probes, references, reduction, slow, progress)
    return GradientProfile(
        units=tuple(unit.info for unit in units),
        probe_norms=probe.norms,
        reference_norms=ref and ref.norms,
        probe_alignment=None if references is None else probe.aligned,
        reference_alignment=ref and ref.aligned,
        probe_norm_of_mean=probe.norm_of_mean,
        reference_norm_of_mean=ref and ref.norm_of_mean,
        granularity=granularity,
        reduction=reduction,
        model=getattr(model.config, "_name_or_path", ""),
        dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
        shape=model_shape(model),
        settings=dict(settings or {}),
    )


class _Side(NamedTuple):
    """What was measured on probes or on reference text, (n_sequences, n_units) or (n_units,)."""

    norms: np.ndarray
    aligned: np.ndarray
    norm_of_mean: np.ndarray | None


def _has_unknown_layer(
    model: nn.Module, units: tuple[Unit, ...], sequences: list[Sequence]
) -> bool:
    """Whether some layer is not known, so that batches cannot be measured; a warning names it."""
    unknown = per_sample.unknown_parameters(model, units, sequences)
    if unknown:
        listed = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if unknown[5:] else "")
        logger.warning(
            "Gradients are measured one sequence at a time, which is slower: no rule of "
            "gradloc.localization.gradients gives the gradients of %s.",
            listed,
        )
    return bool(unknown)


def _measure_sides(
    model: nn.Module,
    units: tuple[Unit, ...],
    probes: list[Sequence],
    references: list[Sequence] | None,
    reduction: str,
    one_at_a_time: bool,
    progress: bool | None,
) -> tuple[_Side, _Side | None]:
    """All passes over probes and reference text."""
    of_mean = reduction == "norm_of_mean"
    needs_signs = references is not None or of_mean
    n_steps = len(probes) * (1 + needs_signs) + len(references or ()) * (1 + of_mean)
    with SequenceBar(n_steps, progress) as bar:

        def load(sequences: list[Sequence], stage: str) -> Workload:
            return Workload(model, units, sequences, bar.stage(stage), one_at_a_time)

        signs = probe_mean = reference_mean = None
        if needs_signs:
            signs, probe_mean, norms, aligned = per_sample.mean_and_per_sequence(
                load(probes, "probe gradients"), BUFFER_BYTES
            )
        else:
            norms, aligned = per_sample.per_sequence(load(probes, "probe gradients"), None)
        _check_finite(norms, units, "probe sequence")
        if probe_mean is not None:
            _check_finite(probe_mean[None], units, "mean probe gradient")
        probe = _Side(norms, aligned, probe_mean)
        if references is None:
            return probe, None
        if of_mean:
            stage = "mean reference gradient"
            _, reference_mean = per_sample.mean_gradient(load(references, stage), BUFFER_BYTES)
            _check_finite(reference_mean[None], units, stage)
        norms, aligned = per_sample.per_sequence(load(references, "reference gradients"), signs)
        _check_finite(norms, units, "reference sequence")
        return probe, _Side(norms, aligned, reference_mean)


@contextmanager
def _measurable(model: nn.Module, units: tuple[Unit, ...]) -> Iterator[None]:
    """Set the model up for measuring, and back to what it was."""
    state = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    for unit in units:
        for name, parameter in unit.parameters.items():
            if not parameter.is_floating_point():
                raise MeasurementError(
                    f"{name} holds {str(parameter.dtype).removeprefix('torch.')} values, which "
                    "have no gradient. Load the model without quantisation to measure it."
                )
    try:
        for parameter, _, _ in state:
            parameter.grad = None
            parameter.requires_grad_(False)
        with evaluation_mode(model), torch.enable_grad():
            yield
    finally:
        for parameter, requires_grad, grad in state:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad


def _check_finite(norms: np.ndarray, units: tuple[Unit, ...], what: str) -> None:
    rows, columns = np.nonzero(~np.isfinite(norms))
    if len(rows):
        where = what if what.startswith("mean") else f"{what} {rows[0]}"
        raise MeasurementError(
            f"the gradient of unit {units[columns[0]].name} is NaN or infinite on {where} "
            f"({len(rows)} such values in all). Look at that sequence, or measure in float32."
        )
