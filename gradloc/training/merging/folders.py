"""The weights of a checkpoint folder, read in pieces."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gradloc.errors import ModelError
from gradloc.models import load_model, load_tokenizer

INDEX = "model.safetensors.index.json"

# Elements that are read, computed with and written at a time. measured: merging 300 MB of float32
# takes 50 MiB with it; 120 MiB and no less time with four times as many.
PIECE_ELEMENTS = 2**21


@dataclass(frozen=True)
class StoredTensor:
    """What a safetensors file says of one tensor.

    Args:
        file: The file that holds it.
        shape: Its shape.
        type_name: Its type as the format spells it (``F32``, ``BF16``).
        dtype: The same as torch has it.
    """

    file: Path
    shape: tuple[int, ...]
    type_name: str
    dtype: torch.dtype

    @property
    def n_elements(self) -> int:
        """Number of elements; 1 for a tensor without dimensions."""
        return torch.Size(self.shape).numel()

    @property
    def n_bytes(self) -> int:
        """Bytes on disk."""
        return self.n_elements * self.dtype.itemsize

    @property
    def spans(self) -> list[slice]:
        """Runs of its rows of at most ``PIECE_ELEMENTS`` (one row, where a row is longer)."""
        if not self.shape:
            return [slice(None)]
        rows = max(1, PIECE_ELEMENTS * self.shape[0] // max(1, self.n_elements))
        return [slice(at, at + rows) for at in range(0, self.shape[0], rows)]


class Checkpoint(Mapping):
    """The tensors of a folder, read anew whenever one is asked for.

    Args:
        folder: Folder with ``model.safetensors``, the shards of an index, or any other
            ``.safetensors`` files.

    Raises:
        ModelError: There are none, or one of them cannot be read.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.tensors: dict[str, StoredTensor] = {}
        for file in weight_files(folder):
            try:
                self.tensors |= _tensors_of(file)
            except (SafetensorError, OSError) as error:
                raise ModelError(
                    f"{file}: cannot be read as safetensors ({error}). Is the download whole?"
                ) from error
        if not self.tensors:
            raise ModelError(
                f"{folder}: no safetensors weights. Save the model with save_pretrained."
            )

    def __getitem__(self, name: str) -> Tensor:
        return self.rows(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def rows(self, name: str, rows: slice = slice(None)) -> Tensor:
        """Rows of a tensor, or all of it.

        The file is opened anew each time: what safetensors has read of an open file counts as
        memory of this process until the file is closed.
        """
        stored = self.tensors[name]
        with safe_open(stored.file, framework="pt") as opened:
            if not stored.shape:
                return opened.get_tensor(name)
            return opened.get_slice(name)[rows]

    def is_copy(self, name: str) -> bool:
        """Whether another tensor is equal bit for bit: a tied head that was stored as well."""
        mine = self.tensors[name]
        return len(mine.shape) > 1 and any(
            all(torch.equal(self.rows(name, rows), self.rows(other, rows)) for rows in stored.spans)
            for other, stored in self.tensors.items()
            if other != name and (stored.shape, stored.dtype) == (mine.shape, mine.dtype)
        )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: those of its index, its one file, or all there are."""
    if (folder / INDEX).is_file():
        names = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        return [folder / name for name in sorted(names)]
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if (folder / "adapter_config.json").is_file():
        return []
    return sorted(folder.glob("*.safetensors"))


@contextmanager
def weights_folder(
    name: str | Path, near: Path, dtype: str = "float32", tokenizer: bool = False
) -> Iterator[Path]:
    """A folder with the safetensors weights of a model.

    A folder that has them is given as it is. Any other model (hub id, ``.gguf``, adapter, a name
    of ``gradloc.models``) is loaded whole into memory, saved for the time of the block, and
    forgotten.

    Args:
        name: Folder or name of the model.
        near: Folder in which to make the temporary one, where its size has room.
        dtype: Type in which such a model is loaded and saved.
        tokenizer: Save its tokenizer as well.

    Raises:
        ModelError: There is no such model, or a folder without weights.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if weight_files(folder):
            yield folder
            return
        if not any((folder / file).is_file() for file in ("config.json", "adapter_config.json")):
            raise ModelError(
                f"{folder}: no safetensors weights. Save the model with save_pretrained."
            )
    near.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=near, prefix=".merge-") as temporary:
        load_model(name, dtype=dtype).save_pretrained(temporary)
        if tokenizer:
            load_tokenizer(name).save_pretrained(temporary)
        yield Path(temporary)


def _tensors_of(file: Path) -> dict[str, StoredTensor]:
    found = {}
    with safe_open(file, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118 - it is no dictionary
            entry = opened.get_slice(name)
            shape = tuple(entry.get_shape())
            sample = entry[0:0] if shape else opened.get_tensor(name)
            found[name] = StoredTensor(file, shape, entry.get_dtype(), sample.dtype)
    return found
