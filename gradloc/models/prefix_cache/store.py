"""Hidden states of single sequences on disk, by key.

Shards are safetensors files, written whole or not at all. Every tensor carries a checksum that is
compared whenever it is read. One shard is buffered and none stays mapped: all that grows in memory
is the index, by 0.2 kB a row.
"""

import json
import logging
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

logger = logging.getLogger(__name__)

# Hidden states held before a shard is written. assumption: 64 MiB is there wherever one trains.
SHARD_BYTES = 64 * 2**20
# Rows of a shard at most: to read one, the names of all are parsed. measured: 1.3 ms with 2,000
# rows, 0.2 with 256, where reading 32 KiB of hidden states takes 0.02.
SHARD_ROWS = 256

_CHECKSUMS = "crc32"


class HiddenStateStore:
    """Tensors of one model prefix in one folder; several processes may share it.

    Args:
        folder: The folder; made if missing.
        rank: Number of this process, which names its shards.
        max_bytes: Nothing more is kept once the folder's shards are as large.

    Attributes:
        n_bytes: Size of the shards known to this process, and of what it buffers.
        full: Why nothing more is kept, "" while there is room.
    """

    def __init__(self, folder: Path, rank: int = 0, max_bytes: float = float("inf")):
        self.folder, self.rank, self.max_bytes = folder, rank, max_bytes
        self.n_bytes = 0
        self.full = ""
        self._place: dict[str, Path] = {}
        self._known: set[Path] = set()
        self._buffer: dict[str, Tensor] = {}
        self._buffer_bytes = 0
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f".{rank}-*.tmp"):  # a run was killed while it wrote
            leftover.unlink(missing_ok=True)
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._buffer or key in self._place

    def __len__(self) -> int:
        return len(self._place) + len(self._buffer)

    def refresh(self) -> None:
        """Take note of shards that other processes have written since."""
        for path in sorted(self.folder.glob("*.safetensors")):
            if path in self._known:
                continue
            try:
                with safe_open(path, framework="pt") as shard:
                    keys = list(shard.keys())
                    json.loads((shard.metadata() or {})[_CHECKSUMS])
            except (SafetensorError, OSError, KeyError, ValueError) as error:
                self._discard(path, str(error))
                continue
            self._known.add(path)
            self.n_bytes += path.stat().st_size
            self._place.update(dict.fromkeys(keys, path))

    def get(self, keys: Sequence[str]) -> list[Tensor] | None:
        """Tensors of all keys, in order; ``None`` if any is absent or damaged."""
        found: dict[str, Tensor] = {key: self._buffer[key] for key in keys if key in self._buffer}
        by_shard: dict[Path, list[str]] = {}
        for key in set(keys) - set(found):
            if key not in self._place:
                return None
            by_shard.setdefault(self._place[key], []).append(key)
        for path, members in by_shard.items():
            try:
                found |= _read(path, members)
            except (SafetensorError, OSError, KeyError, ValueError) as error:
                self._discard(path, str(error))
                return None
        return [found[key] for key in keys]

    def put(self, key: str, tensor: Tensor) -> None:
        """Keep a tensor (seq, hidden), unless the store is full or has the key."""
        size = tensor.numel() * tensor.element_size()
        if self.full or key in self:
            return
        if self.n_bytes + size > self.max_bytes:
            self._stop(f"it has reached its limit of {self.max_bytes / 2**30:.1f} GiB")
            return
        self._buffer[key] = tensor.detach().cpu().clone()
        self._buffer_bytes += size
        self.n_bytes += size
        if self._buffer_bytes >= SHARD_BYTES or len(self._buffer) >= SHARD_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what is buffered as one shard."""
        if not self._buffer:
            return
        number = 1 + max(
            (int(p.stem.split("-")[1]) for p in self.folder.glob(f"{self.rank}-*.safetensors")),
            default=-1,
        )
        path = self.folder / f"{self.rank}-{number:05d}.safetensors"
        part = self.folder / f".{path.stem}.tmp"
        checksums = {key: _checksum(tensor) for key, tensor in self._buffer.items()}
        try:
            save_file(self._buffer, part, metadata={_CHECKSUMS: json.dumps(checksums)})
            os.replace(part, path)
        except (OSError, SafetensorError) as error:
            part.unlink(missing_ok=True)
            self.n_bytes -= self._buffer_bytes
            self._stop(f"a shard cannot be written ({error})")
        else:
            self._known.add(path)
            self._place.update(dict.fromkeys(self._buffer, path))
        self._buffer, self._buffer_bytes = {}, 0

    def _stop(self, why: str) -> None:
        self.full = why
        logger.warning(
            "prefix cache %s keeps nothing more: %s. Training goes on; hidden states that are "
            "not in it are computed as without a cache.",
            self.folder,
            why,
        )

    def _discard(self, path: Path, why: str) -> None:
        logger.warning(
            "prefix cache: %s is damaged (%s); it is removed and its hidden states are computed "
            "anew.",
            path,
            why,
        )
        if path in self._known and path.exists():
            self.n_bytes -= path.stat().st_size
        self._place = {key: place for key, place in self._place.items() if place != path}
        self._known.discard(path)
        path.unlink(missing_ok=True)


def _read(path: Path, keys: list[str]) -> dict[str, Tensor]:
    # Opened for each read: pages that stay mapped would count as this process's memory.
    with safe_open(path, framework="pt") as shard:
        checksums = json.loads(shard.metadata()[_CHECKSUMS])
        found = {key: shard.get_tensor(key).clone() for key in keys}
    for key, tensor in found.items():
        if _checksum(tensor) != checksums[key]:
            raise ValueError(f"the checksum of {key} is wrong")
    return found


def _checksum(tensor: Tensor) -> int:
    return zlib.crc32(tensor.contiguous().view(torch.uint8).numpy().data)
