"""What text sends into linear layers, and the projections that follow from it.

Why: a linear layer y = W x that is changed by D answers the input x otherwise by D x. Over some
text that is E ||D x||^2 = tr(D C D') with C = E[x x'], the second moment of its inputs. C is far
from round: few directions carry most of it. The step that gains as much for the least of this
cost is the ordinary one times (I + s C)^-1.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from gradloc.data.batches import collate
from gradloc.errors import MethodError
from gradloc.models.wrappers import canonical_name, evaluation_mode
from gradloc.utils.progress import SequenceBar

# Tokens that pass through the model at once, padding included: enough for large products, and
# little beside what a training step keeps.
_BATCH_TOKENS = 2048


def projected_names(model: Any, trained: Collection[str]) -> list[str]:
    """The linear layers among what trains, the head aside.

    Raises:
        MethodError: There are none.
    """
    head = model.get_output_embeddings()
    names = [
        name
        for name, module in linear_modules(model).items()
        if name in trained and module is not head
    ]
    if not names:
        raise MethodError(
            "input_projection: nothing that trains is a linear layer that can be projected. Choose "
            "another policy, or leave the projection out."
        )
    return names


def mean_covariance(
    model: nn.Module,
    groups: Sequence[Sequence[Sequence[int]]],
    names: Sequence[str],
    pad_id: int,
    progress: bool | None = None,
) -> dict[str, Tensor]:
    """``input_covariance`` of several groups of rows, each of which counts the same."""
    with SequenceBar(sum(map(len, groups)), progress) as bar:
        count = bar.stage("input covariance")
        found = [input_covariance(model, rows, names, pad_id, count) for rows in groups]
    zero = torch.zeros(())
    return {name: sum((part[name] for part in found), zero) / len(found) for name in names}


def linear_modules(model: nn.Module) -> dict[str, nn.Linear | Conv1D]:
    """Canonical name of its weight -> each linear layer that a projection can act on."""
    return {
        f"{canonical_name(name)}.weight": module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
    }


def input_covariance(
    model: nn.Module,
    rows: Sequence[Sequence[int]],
    names: Iterable[str],
    pad_id: int = 0,
    count: Callable[[float], object] = lambda n: None,
) -> dict[str, Tensor]:
    """Second moments of what reference text sends into linear layers.

    Args:
        model: The model; left as found, in evaluation mode while this runs.
        rows: Token rows.
        names: Canonical names of the layers' weights.
        pad_id: Token id that fills batches; padding does not count.
        count: Told how many rows have passed through the model, after each batch.

    Returns:
        Name -> C = mean over positions of x x', (in, in), float32.
    """
    modules = linear_modules(model)
    sums: dict[str, Tensor] = {}
    device = next(model.parameters()).device
    real: list[Tensor] = []
    latest: list[Tensor] = []  # an input, and its products summed

    def note(name: str):
        def hook(module, inputs):
            # Queries, keys and values read one tensor, as do gate and up: it is multiplied once.
            if not latest or inputs[0] is not latest[0]:
                x = inputs[0].detach()
                # Some layers are given all positions in one row (OPT, shared experts).
                x = x.reshape(-1, x.shape[-1])[real[0].flatten()].float()
                latest[:] = inputs[0], x.T @ x
            sums[name] = sums.get(name, 0) + latest[1]

        return hook

    hooks = [modules[name].register_forward_pre_hook(note(name)) for name in names]
    n_positions = 0
    # The stack alone, so that no head runs. FSDP2 gathers what lies outside the blocks around the
    # forward pass of the whole model only.
    sharded = any(hasattr(parameter, "to_local") for parameter in model.parameters())
    stack: Any = model if sharded else model.base_model
    try:
        with evaluation_mode(model), torch.no_grad():
            for part in _batches(rows):
                batch = collate([{"input_ids": row, "labels": row} for row in part], pad_id)
                real[:] = [batch["attention_mask"].bool().to(device)]
                latest.clear()
                n_positions += int(real[0].sum())
                stack(
                    input_ids=batch["input_ids"].to(device),
                    attention_mask=batch["attention_mask"].to(device),
                )
                count(len(part))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: total / n_positions for name, total in sums.items()}


def _batches(rows: Sequence[Sequence[int]]) -> Iterator[list[list[int]]]:
    """Rows of like length together, so that there is little padding."""
    part: list[list[int]] = []
    for row in sorted(rows, key=len):  # the longest so far is the last
        if part and (len(part) + 1) * len(row) > _BATCH_TOKENS:
            yield part
            part = []
        part.append(list(row))
    if part:
        yield part


def input_projections(
    covariances: Mapping[str, Tensor], strength: float = 1.0
) -> dict[str, Tensor]:
    """S = (I + strength x C / mean eigenvalue of C)^-1 of each layer.

    A direction that carries the mean share of the inputs is slowed down 1 + ``strength`` times,
    one that carries none is left free.

    Args:
        covariances: Name -> C, (in, in), from ``input_covariance``.
        strength: 0 leaves all updates as they are; the larger, the nearer to a projection onto
            the directions that reference text does not use.

    Example:
        >>> covariance = {"w": torch.diag(torch.tensor([2.0, 0.0]))}
        >>> input_projections(covariance, strength=2.0)["w"].diagonal()
        tensor([0.2000, 1.0000])
    """
    projections: dict[str, Tensor] = {}
    previous: tuple[Tensor, Tensor] | None = None
    for name, covariance in covariances.items():
        # Layers that read the same share one projection, and its inverse is computed once.
        if previous is not None and torch.equal(covariance, previous[0]):
            projections[name] = previous[1]
            continue
        mean = covariance.diagonal().mean().clamp_min(torch.finfo(covariance.dtype).tiny)
        identity = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
        factor = torch.linalg.cholesky(identity + (strength / mean) * covariance)
        projections[name] = torch.cholesky_inverse(factor).contiguous()
        previous = covariance, projections[name]
    return projections
