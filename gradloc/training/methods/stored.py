"""Tensors that are computed once a training and found again when it resumes.

Comes in: a path, a digest of all that the tensors depend on, and a function that computes them.
Goes out: the tensors. It decides on no digest.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gradloc.errors import MethodError
from gradloc.models.wrappers import canonical_name, unwrap
from gradloc.training.freezing import tensor_digest


def load_or_compute(
    path: Path, digest: str, compute: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Tensors from a file, or computed and saved where the file is absent or of another digest.

    Args:
        path: A safetensors file; its folder is made.
        digest: Digest of everything that the tensors depend on.
        compute: Computes them, on the CPU.

    Returns:
        Name -> tensor on the CPU.

    Raises:
        MethodError: The file cannot be written.
    """
    if _saved_digest(path) == digest:
        return load_file(path)
    tensors = compute()
    # Written aside first, so that an interrupted run leaves no half file and two processes do
    # not write into one.
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, aside, metadata={"digest": digest})
        os.replace(aside, path)
    except (OSError, SafetensorError) as error:
        aside.unlink(missing_ok=True)
        raise MethodError(f"{path}: cannot be written: {error}. Free some space.") from error
    return tensors


def digest_of(model: nn.Module, request: dict[str, Any]) -> str:
    """Digest of a model's weights and of a request made of plain values."""
    found = hashlib.blake2b(json.dumps(request, sort_keys=True).encode(), digest_size=16)
    for name, parameter in unwrap(model).named_parameters():
        found.update(f"{canonical_name(name)} {tensor_digest(parameter)}".encode())
    return found.hexdigest()


def _saved_digest(path: Path) -> str | None:
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("digest")
    except (OSError, SafetensorError):
        return None
