"""Tries every layer of a model before its per-sample gradients are relied upon."""

import torch
from torch import Tensor, nn

from gradloc.errors import MeasurementError
from gradloc.localization.gradients.batching import micro_batches
from gradloc.localization.gradients.capture import Capture
from gradloc.localization.gradients.layers import UnknownLayerError
from gradloc.localization.gradients.one_at_a_time import on_gradient
from gradloc.localization.gradients.sequences import Sequence, sequence_loss
from gradloc.models.units import Unit, parameters_of

# Tokens of the two trial sequences. assumption: a layer that is right on these is right on more;
# unequal, so that padding and telling the rows apart are tried too.
TRIAL_TOKENS = (5, 4)
# Relative to the parameter's own gradient, and to the largest one: what is zero but for rounding
# (biases of keys) cannot agree with itself. assumption: a wrong formula is off by far more. In a
# trained SmolLM2-135M the float32 gradient of a norm was itself 3e-3 from the one in float64.
TOLERANCE = {torch.float32: (1e-2, 1e-5), torch.float64: (1e-3, 1e-5)}
ROUGH_TOLERANCE = (5e-2, 1e-3)


def unknown_parameters(
    model: nn.Module, units: tuple[Unit, ...], sequences: list[Sequence]
) -> list[str]:
    """Parameters whose per-sample gradients the batched passes would not get right.

    Two short pieces of the sequences go through as one micro-batch, and the norms of the second
    are held against its true gradients. A module that nobody calls, weights used outside their
    module and layers that mix rows all show.

    Args:
        model: The model, its parameters frozen.
        units: Its units.
        sequences: Where the pieces are taken from.

    Returns:
        Names of parameters; empty where every layer is known.
    """
    wanted = parameters_of(units)
    pieces = [_piece(sequences[i % len(sequences)], n) for i, n in enumerate(TRIAL_TOKENS)]
    (batch,) = micro_batches(pieces, tokens=len(pieces) * max(TRIAL_TOKENS))
    place = batch.rows.index(1)
    found: dict[str, Tensor] = {}
    try:
        with Capture(model, wanted).hooked() as capture:
            capture.run(batch, lambda name, part: found.update({name: part.squared()[place]}))
    except UnknownLayerError as error:
        named = [name for name in wanted if name == str(error)]
        return named or list(wanted)
    except MeasurementError:  # no head on hidden states
        return list(wanted)
    true: dict[str, Tensor] = {}
    with on_gradient(wanted, lambda name, grad: true.update({name: _squared(grad)})):
        sequence_loss(model, pieces[1]).backward()
    return _disagreeing(wanted, found, true)


def _disagreeing(
    wanted: dict[str, nn.Parameter], found: dict[str, Tensor], true: dict[str, Tensor]
) -> list[str]:
    norms = {
        name: (float(found.get(name, 0.0)) ** 0.5, float(true.get(name, 0.0)) ** 0.5)
        for name in wanted
    }
    largest = max(expected for _, expected in norms.values())
    unknown = []
    for name, (got, expected) in norms.items():
        relative, floor = TOLERANCE.get(wanted[name].dtype, ROUGH_TOLERANCE)
        # What is not finite agrees with nothing; the passes themselves name unit and sequence.
        if abs(got - expected) > relative * expected + floor * largest:
            unknown.append(name)
    return unknown


def _piece(sequence: Sequence, n: int) -> Sequence:
    """The first tokens of a sequence, repeated where it is short, all of them labelled."""
    ids = sequence.input_ids.repeat(1, n)[:, :n]
    return Sequence(ids, ids)


def _squared(gradient: Tensor) -> Tensor:
    return gradient.float().square_().sum()
