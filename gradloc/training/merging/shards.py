"""Safetensors files that are written while their tensors are computed.

``safetensors.save_file`` wants all tensors of a file in memory. Its format needs no such thing:
eight bytes (the length of the header, little-endian), the header as JSON (name -> dtype, shape,
first and last byte), then the bytes of the tensors without gaps
(https://github.com/huggingface/safetensors#format).
"""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from gradloc.training.merging.folders import INDEX, StoredTensor
from gradloc.utils.io import write_json

# Weights go to disk in files of at most so many bytes, as the hub likes them.
SHARD_BYTES = 2 * 2**30


def write_shards(
    folder: Path,
    tensors: dict[str, StoredTensor],
    pieces: Callable[[str], Iterator[Tensor]],
    shard_bytes: int = SHARD_BYTES,
    advance: Callable[[int], object] = lambda n_bytes: None,
) -> None:
    """Write tensors as Transformers reads them, one piece in memory at a time.

    Args:
        folder: Folder to write in; it exists.
        tensors: Name -> type and shape.
        pieces: Gives the values of a tensor, in runs of its rows, in order.
        shard_bytes: Size of a file at most; a larger tensor has one of its own.
        advance: Told how many bytes more are written.
    """
    shards = _shards(tensors, shard_bytes)
    files = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    if len(shards) == 1:
        files = ["model.safetensors"]
    for file, names in zip(files, shards, strict=True):
        with (folder / file).open("wb") as out:
            out.write(_header({name: tensors[name] for name in names}))
            for name in names:
                for piece in pieces(name):
                    out.write(piece.contiguous().reshape(-1).view(torch.uint8).numpy().data)
                    advance(piece.nbytes)
    if len(shards) > 1:
        homes = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        total = sum(stored.n_bytes for stored in tensors.values())
        # Written last: without it the folder is no model.
        write_json(
            folder / INDEX,
            {
                "metadata": {"total_size": total},
                "weight_map": {name: homes[name] for name in tensors},
            },
        )


def _shards(tensors: dict[str, StoredTensor], shard_bytes: int) -> list[list[str]]:
    """Names of the tensors of each file, in the order in which they are written."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, stored in tensors.items():
        if shards[-1] and size + stored.n_bytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += stored.n_bytes
    # Wide types first, so that each tensor begins at a multiple of its own width.
    return [sorted(names, key=lambda name: -tensors[name].dtype.itemsize) for names in shards]


def _header(tensors: dict[str, StoredTensor]) -> bytes:
    entries: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, stored in tensors.items():
        end = at + stored.n_bytes
        entries[name] = {
            "dtype": stored.type_name,
            "shape": stored.shape,
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the values begin at a multiple of 8
    return struct.pack("<Q", len(text)) + text
