"""Gradient norms and directions, per unit and per sequence.

Comes in: a model and batches as any Trainer collator makes them. Goes out: a
``GradientProfile``. It changes nothing of the model and chooses no layers.

Three passes, each one sequence at a time, so that padding, batching and order cannot matter:
the mean probe gradient (of which only the sign is kept), then every probe sequence, then every
reference sequence, each as a norm and an inner product with that sign.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from gradloc.errors import MeasurementError
from gradloc.layers import Unit, evaluation_mode, find_units, model_shape, unwrap
from gradloc.logits import logits_at
from gradloc.profile import REDUCTIONS, GradientProfile

# The float32 buffer in which mean gradients are summed before their sign is taken. Larger models
# take more passes instead of more memory. assumption: 1 GiB is there wherever a model trains.
BUFFER_BYTES = 2**30

IGNORED = -100


class Sequence(NamedTuple):
    """One row of a batch without its padding: two tensors of shape (1, seq)."""

    input_ids: Tensor
    labels: Tensor


def measure_gradients(
    model: nn.Module,
    batches: Iterable[dict[str, Tensor]],
    *,
    reference: Iterable[dict[str, Tensor]] | None = None,
    granularity: str = "sublayer",
    reduction: str = "mean_of_norms",
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
    state. While norms are taken at most one parameter's gradient is alive; of the mean gradient
    a byte a parameter is kept.

    Args:
        model: Causal language model, in float32 or bfloat16, on any one device, PEFT-wrapped or
            not. Adapters are not measured: the base weights are, whether trainable or frozen.
        batches: Probe batches: ``input_ids``, ``attention_mask`` (optional) and ``labels``
            (-100 ignored) of shape (batch, seq); label the salient span only.
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
            (quantised), or a gradient that is not finite (unit and sequence are named).
        UnitsError: The model's units cannot be found.

    References:
        Fernandez, Bisk, Strubell 2024, arXiv:2411.04448 (relative gradient norm).
    """
    if reduction not in REDUCTIONS:
        raise MeasurementError(
            f"reduction {reduction!r} is unknown; choose one of {', '.join(REDUCTIONS)}."
        )
    model = unwrap(model)
    device = next(model.parameters()).device
    probes = _sequences(batches, "probe", device)
    references = None if reference is None else _sequences(reference, "reference", device)
    units = find_units(model, granularity)
    n_mean = len(probes) if references is not None or reduction == "norm_of_mean" else 0
    n_mean += len(references or ()) if reduction == "norm_of_mean" else 0

    with (
        _measurable(model, units),
        _Bar(n_mean + len(probes) + len(references or ()), progress) as bar,
    ):
        signs = probe_mean = reference_mean = None
        if references is not None or reduction == "norm_of_mean":
            signs, probe_mean = _mean_gradient(model, units, probes, "probe", bar)
        if references is not None and reduction == "norm_of_mean":
            _, reference_mean = _mean_gradient(model, units, references, "reference", bar)
        probe = _per_sequence(model, units, probes, signs, "probe", bar)
        ref = (None, None)
        if references is not None:
            ref = _per_sequence(model, units, references, signs, "reference", bar)
    return GradientProfile(
        units=tuple(unit.info for unit in units),
        probe_norms=probe[0],
        reference_norms=ref[0],
        probe_alignment=None if references is None else probe[1],
        reference_alignment=ref[1],
        probe_norm_of_mean=probe_mean,
        reference_norm_of_mean=reference_mean,
        granularity=granularity,
        reduction=reduction,
        model=getattr(model.config, "_name_or_path", ""),
        dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
        shape=model_shape(model),
        settings=dict(settings or {}),
    )


def sequence_loss(model: nn.Module, sequence: Sequence) -> Tensor:
    """Mean negative log-likelihood in nats over the labelled tokens of one sequence, a scalar."""
    positions = (sequence.labels[0, 1:] != IGNORED).nonzero().squeeze(1)
    logits = logits_at(model, sequence.input_ids, positions)
    targets = sequence.labels[0, positions + 1]
    return nn.functional.cross_entropy(logits[0].float(), targets)


def _sequences(batches: Iterable[dict], side: str, device: torch.device) -> list[Sequence]:
    """Rows of all batches without padding, on the model's device."""
    rows = []
    for batch in batches:
        missing = [key for key in ("input_ids", "labels") if key not in batch]
        if missing:
            raise MeasurementError(
                f"a {side} batch has no {' and no '.join(missing)}; give dictionaries of "
                "input_ids, attention_mask and labels, each of shape (batch, seq)."
            )
        ids, labels = torch.as_tensor(batch["input_ids"]), torch.as_tensor(batch["labels"])
        mask = batch.get("attention_mask")
        keep = torch.ones_like(ids) if mask is None else torch.as_tensor(mask)
        for row in range(len(ids)):
            real = keep[row].bool()
            sequence = Sequence(ids[row][real][None].to(device), labels[row][real][None].to(device))
            if not (sequence.labels[0, 1:] != IGNORED).any():
                raise MeasurementError(
                    f"{side} sequence {len(rows)} has no labelled token after its first, so it "
                    "has no loss. Label at least one token (-100 means ignored)."
                )
            rows.append(sequence)
    if not rows:
        raise MeasurementError(f"no {side} sequences were given; at least one is needed.")
    return rows


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


@contextmanager
def _on_gradient(
    parameters: Iterable[tuple[object, nn.Parameter]], use: Callable[[object, Tensor], None]
) -> Iterator[None]:
    """Hand each parameter's gradient to ``use`` as soon as it is whole, then free it.

    A tied parameter's gradient arrives once, summed over all its uses.
    """
    handles, switched = [], []

    def hook_for(key):
        def hook(parameter):
            use(key, parameter.grad)
            parameter.grad = None

        return hook

    try:
        for key, parameter in parameters:
            parameter.requires_grad_(True)
            switched.append(parameter)
            handles.append(parameter.register_post_accumulate_grad_hook(hook_for(key)))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter in switched:
            parameter.requires_grad_(False)
            parameter.grad = None


def _mean_gradient(
    model: nn.Module, units: tuple[Unit, ...], sequences: list[Sequence], side: str, bar: "_Bar"
) -> tuple[dict[str, Tensor], np.ndarray]:
    """Sign (int8) of the mean gradient of every parameter, and its L2 norm by unit."""
    signs: dict[str, Tensor] = {}
    squared = np.zeros(len(units))
    chunks = list(_chunks(units))
    for number, chunk in enumerate(chunks):
        sums = {
            name: torch.zeros_like(parameter, dtype=torch.float32) for _, name, parameter in chunk
        }
        with _on_gradient(
            [(name, parameter) for _, name, parameter in chunk],
            lambda name, grad: sums[name].add_(grad),  # noqa: B023 - used inside this turn only
        ):
            for sequence in sequences:
                sequence_loss(model, sequence).backward()
                bar.advance(1 / len(chunks), f"mean {side} gradient {number + 1}/{len(chunks)}")
        for index, name, _ in chunk:
            mean = sums.pop(name).div_(len(sequences))
            squared[index] += float(torch.linalg.vector_norm(mean)) ** 2
            signs[name] = torch.sign(mean).to(torch.int8)
    _check_finite(np.sqrt(squared)[None], units, f"mean {side} gradient")
    return signs, np.sqrt(squared)


def _chunks(units: tuple[Unit, ...]) -> Iterator[list[tuple[int, str, nn.Parameter]]]:
    """Runs of (unit index, name, parameter) whose float32 sums fit in the buffer."""
    chunk, size = [], 0
    for index, unit in enumerate(units):
        for name, parameter in unit.parameters.items():
            n_bytes = 4 * parameter.numel()
            if chunk and size + n_bytes > BUFFER_BYTES:
                yield chunk
                chunk, size = [], 0
            chunk.append((index, name, parameter))
            size += n_bytes
    if chunk:
        yield chunk


def _per_sequence(
    model: nn.Module,
    units: tuple[Unit, ...],
    sequences: list[Sequence],
    signs: dict[str, Tensor] | None,
    side: str,
    bar: "_Bar",
) -> tuple[np.ndarray, np.ndarray]:
    """Norms and inner products with the signs, each (n_sequences, n_units)."""
    squared = np.zeros((len(sequences), len(units)))
    aligned = np.zeros((len(sequences), len(units)))
    row = 0

    def use(key, grad):
        index, name = key
        grad = grad.float()
        squared[row, index] += float(torch.linalg.vector_norm(grad)) ** 2
        if signs is not None:
            sign = signs[name].to(torch.float32)
            aligned[row, index] += float(torch.dot(grad.flatten(), sign.flatten()))

    parameters = [
        ((index, name), parameter)
        for index, unit in enumerate(units)
        for name, parameter in unit.parameters.items()
    ]
    with _on_gradient(parameters, use):
        for row, sequence in enumerate(sequences):  # noqa: B007 - `use` reads row
            sequence_loss(model, sequence).backward()
            bar.advance(1, f"{side} gradients")
    norms = np.sqrt(squared)
    _check_finite(norms, units, f"{side} sequence")
    return norms, aligned


def _check_finite(norms: np.ndarray, units: tuple[Unit, ...], what: str) -> None:
    rows, columns = np.nonzero(~np.isfinite(norms))
    if len(rows):
        where = what if what.startswith("mean") else f"{what} {rows[0]}"
        raise MeasurementError(
            f"the gradient of unit {units[columns[0]].name} is NaN or infinite on {where} "
            f"({len(rows)} such values in all). Look at that sequence, or measure in float32."
        )


class _Bar:
    """A progress bar over sequences that takes fractional steps."""

    def __init__(self, total: int, progress: bool | None):
        disable = None if progress is None else not progress
        self._bar = tqdm(
            total=total,
            disable=disable,
            desc="measure",
            unit="seq",
            bar_format="{l_bar}{bar}| {n:.0f}/{total:.0f} [{elapsed}<{remaining}]",
        )

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def advance(self, steps: float, stage: str) -> None:
        self._bar.set_description(stage, refresh=False)
        self._bar.update(steps)
