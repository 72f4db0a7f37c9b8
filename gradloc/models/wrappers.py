"""A model inside its wrappers, and the mode that it runs in."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

# Path components that wrappers insert and the model's own names lack: DDP, torch.compile, FSDP,
# activation checkpointing, PEFT's tuned layers and its copies of saved modules.
_WRAPPER_COMPONENTS = {
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "base_layer",
    "original_module",
}


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DDP or ``torch.compile``; PEFT models stay as they are."""
    while True:
        inner: Any = getattr(model, "_orig_mod", None)
        if inner is None and type(model).__name__ == "DistributedDataParallel":
            inner = model.module
        if inner is None:
            return model
        model = inner


def plain_model(model: nn.Module) -> nn.Module:
    """The model inside DDP, ``torch.compile`` and PEFT; its linear layers may be adapted."""
    model = unwrap(model)
    inner = getattr(model, "get_base_model", None)
    return inner() if inner else model


def input_embedding(model: nn.Module) -> Any:
    """The token embedding that a model names, or ``None``."""
    named = getattr(model, "get_input_embeddings", None)
    return named() if named else None


def output_head(model: nn.Module) -> Any:
    """The output head that a model names, or ``None``."""
    named = getattr(model, "get_output_embeddings", None)
    return named() if named else None


def canonical_name(name: str) -> str:
    """A parameter's or module's name in the plain model, without what wrappers add.

    Example:
        >>> canonical_name("base_model.model.model.layers.3.mlp.up_proj.base_layer.weight")
        'model.layers.3.mlp.up_proj.weight'
    """
    parts = [part for part in name.split(".") if part not in _WRAPPER_COMPONENTS]
    return ".".join(parts).removeprefix("base_model.model.")


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a tensor that FSDP2 has sharded; any other tensor as it is."""
    to_local = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


def reshard(model: nn.Module) -> None:
    """Let FSDP2's modules hold this process's parts again, if the model is sharded.

    After a forward pass without a backward one (an evaluation, a measurement) some of them hold
    whole parameters, which are other objects.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        from torch.distributed.fsdp import FSDPModule  # slow to import

        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Run the model without dropout, and leave its modes and the random state as found."""
    with _mode(model, training=False):
        yield


@contextmanager
def training_mode(model: nn.Module) -> Iterator[None]:
    """Run the model as in training, and leave its modes and the random state as found."""
    with _mode(model, training=True):
        yield


@contextmanager
def _mode(model: nn.Module, training: bool) -> Iterator[None]:
    found = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        with torch.random.fork_rng(devices=_cuda_devices(model)):
            yield
    finally:
        for module, mode in found.items():
            module.training = mode


def _cuda_devices(model: nn.Module) -> list[torch.device]:
    return sorted({p.device for p in model.parameters() if p.is_cuda}, key=str)
