"""A model anywhere between its own weights and a tuned checkpoint's; given back bit for bit."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from gradloc.errors import MeasurementError, ModelError
from gradloc.evaluation.scoring.tokens import vocabulary_size
from gradloc.localization import gradients as per_sample
from gradloc.localization.gradients.sequences import (
    Sequence,
    Workload,
    predicting_positions,
    sequence_loss,
)
from gradloc.models.logits import logits_at
from gradloc.models.units import Granularity, find_units
from gradloc.models.wrappers import canonical_name, evaluation_mode, unwrap

# Logits of the base that are kept while other mixtures are compared with them.
# assumption: this much is there wherever three copies of a model are.
LOGIT_BYTES = 2**28

Advance = Callable[[float], object]


class MergePath:
    """The mixtures ``base + a_u * (tuned - base)`` of a model's units u.

    Args:
        model: The base model. Three times its weights are held in memory: its own, the change and
            the mixture.
        tuned: Parameter name -> tuned weights, read one by one.
        granularity: ``sublayer`` or ``block``.

    Raises:
        ModelError: A parameter of the model is missing from ``tuned`` or has another shape.
    """

    def __init__(self, model: nn.Module, tuned: Mapping[str, Tensor], granularity: Granularity):
        self.model = unwrap(model)
        self.units = find_units(model, granularity)
        theirs = {canonical_name(name): name for name in tuned}
        self.change: dict[str, Tensor] = {}
        for unit in self.units:
            for name, parameter in unit.parameters.items():
                other = tuned[theirs[name]] if name in theirs else None
                if other is None or other.shape != parameter.shape:
                    found = "nothing" if other is None else f"shape {tuple(other.shape)}"
                    raise ModelError(
                        f"{name} has shape {tuple(parameter.shape)} in the base model, and the "
                        f"tuned checkpoint has {found}; merge two checkpoints of one architecture."
                    )
                mine = parameter.detach()
                self.change[name] = other.to(mine.device, mine.dtype) - mine
        self.is_changed = np.array(
            [any(self.change[name].any() for name in unit.parameters) for unit in self.units]
        )

    @contextmanager
    def at(self, scales: float | np.ndarray) -> Iterator[None]:
        """Put the mixture with these scales, one for all or (n_units,), into the model."""
        scales = np.broadcast_to(scales, len(self.units))
        found = [(p, p.data, p.requires_grad, p.grad) for p in self.model.parameters()]
        try:
            for parameter, *_ in found:
                parameter.requires_grad_(False)
                parameter.grad = None
            for unit, scale in zip(self.units, scales, strict=True):
                for name, parameter in unit.parameters.items():
                    if scale:
                        parameter.data = torch.add(
                            parameter.data, self.change[name], alpha=float(scale)
                        )
            with evaluation_mode(self.model):
                yield
        finally:
            for parameter, data, requires_grad, grad in found:
                parameter.data = data
                parameter.requires_grad_(requires_grad)
                parameter.grad = grad

    def slopes(
        self, scales: float | np.ndarray, sequences: list[Sequence], advance: Advance
    ) -> np.ndarray:
        """Slope of each sequence's loss in each unit's scale, in nats, (n_sequences, n_units).

        Entry (s, u) is ``d loss_s / d a_u``, the inner product of the gradient with the unit's
        change, at the mixture with these scales.

        Raises:
            MeasurementError: A slope is not finite.
        """
        with self.at(scales), torch.enable_grad():
            slow = bool(per_sample.unknown_parameters(self.model, self.units, sequences))
            load = Workload(self.model, self.units, sequences, advance, one_at_a_time=slow)
            _, slopes = per_sample.per_sequence(load, self.change)
        if not np.isfinite(slopes).all():
            row, column = np.argwhere(~np.isfinite(slopes))[0]
            raise MeasurementError(
                f"the slope of unit {self.units[column].name} is NaN or infinite on sequence "
                f"{row}. Measure in float32, and look at the tuned weights."
            )
        return slopes

    def loss(self, scales: float | np.ndarray, sequences: list[Sequence]) -> float:
        """Mean over sequences of their loss at a mixture, in nats per token."""
        return float(self.losses(scales, sequences).mean())

    def losses(self, scales: float | np.ndarray, sequences: list[Sequence]) -> np.ndarray:
        """Loss of each sequence at a mixture, in nats per token, (n_sequences,)."""
        with self.at(scales), torch.no_grad():
            return np.array([sequence_loss(self.model, s).item() for s in sequences])

    def divergences(
        self, points: Mapping[str, float | np.ndarray], sequences: list[Sequence]
    ) -> dict[str, float]:
        """KL(base || mixture) of the next token at some mixtures, in nats per token.

        Mean over labelled positions, then over sequences.
        """
        sums = dict.fromkeys(points, 0.0)
        for chunk in self._chunks(sequences):
            with self.at(0.0), torch.no_grad():
                base = [self._log_probabilities(s) for s in chunk]
            for name, scales in points.items():
                with self.at(scales), torch.no_grad():
                    for before, sequence in zip(base, chunk, strict=True):
                        after = self._log_probabilities(sequence)
                        each = (before.exp() * (before - after)).sum(-1)
                        sums[name] += float(each.mean())
        return {name: total / len(sequences) for name, total in sums.items()}

    def redrawn(self, sequences: list[Sequence], seed: int) -> list[Sequence]:
        """The sequences with labels that the base itself draws, each given the real text before.

        Under such labels the mean outer product of gradients is the Fisher matrix; under the
        text's own it is not (Kunstner et al. 2019, arXiv:1905.12558).
        """
        generator = torch.Generator().manual_seed(seed)
        redrawn = []
        with self.at(0.0), torch.no_grad():
            for sequence in sequences:
                probabilities = self._log_probabilities(sequence).exp().cpu()
                drawn = torch.multinomial(probabilities, 1, generator=generator).squeeze(1)
                labels = sequence.labels.clone()
                places = predicting_positions(sequence) + 1
                labels[0, places] = drawn.to(labels.device)
                redrawn.append(Sequence(sequence.input_ids, labels))
        return redrawn

    def _log_probabilities(self, sequence: Sequence) -> Tensor:
        """Log-probabilities at the predicting positions, (n_labelled, vocab)."""
        logits = logits_at(self.model, sequence.input_ids, predicting_positions(sequence))
        return logits[0].float().log_softmax(-1)

    def _chunks(self, sequences: list[Sequence]) -> Iterator[list[Sequence]]:
        """Runs of sequences whose logits fit in ``LOGIT_BYTES``."""
        vocabulary = vocabulary_size(self.model)
        chunk, size = [], 0
        for sequence in sequences:
            n_bytes = 4 * vocabulary * len(predicting_positions(sequence))
            if chunk and size + n_bytes > LOGIT_BYTES:
                yield chunk
                chunk, size = [], 0
            chunk.append(sequence)
            size += n_bytes
        yield chunk
