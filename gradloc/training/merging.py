"""Keep, scale or undo a fine-tuned model's change, unit by unit: base + scale * (tuned - base).

One file of the result is in memory at a time, so memory does not grow with the model.
"""

import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from gradloc.errors import ModelError, PlanMismatchError
from gradloc.localization.plan import LayerPlan, as_plan
from gradloc.models import DTYPES, load_model, load_tokenizer
from gradloc.models.wrappers import canonical_name
from gradloc.utils.io import PLAN_FILE, SCORES_FILE, TRAINING_FILE, write_json

INDEX = "model.safetensors.index.json"

# What lies beside the tuned weights and says nothing true of the merged ones.
_LEFT_BEHIND = (INDEX, "README.md", "trainer_state.json", PLAN_FILE, TRAINING_FILE, SCORES_FILE)
# Weights, and the optimizer's state of a Trainer checkpoint.
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".ckpt")


def merge_checkpoints(
    base: str | Path,
    tuned: str | Path,
    plan: LayerPlan | str | Path | float,
    out: str | Path,
    *,
    default_scale: float | None = None,
    shard_bytes: int = 2 * 2**30,
    progress: bool | None = None,
) -> Path:
    """Write base + scale * (tuned - base), with the plan's scale for each unit.

    Scale 0 undoes a unit's change bit for bit, 1 keeps it bit for bit; between them the sum is
    taken in float32 and rounded to the tuned tensor's type. ``out`` appears whole or not at all.

    A head that is tied to the embeddings but stored as a tensor of its own is left out: loading
    ties it again.

    Args:
        base: Folder of the base model's safetensors weights. Another name of a model (hub id,
            ``.gguf``, ``smollm2-135m-instruct``) is loaded whole into memory first and saved
            beside ``out`` until the merge is done.
        tuned: The tuned model, likewise; a PEFT adapter is merged into its own base first. Its
            configuration and tokenizer are kept.
        plan: Unit -> scale, as object or path; or one number, the scale of every tensor. From
            0 to 1 a number walks the line from base to tuned (WiSE-FT).
        out: Folder to write, which must not exist or be empty.
        default_scale: Scale of tensors of which the plan says nothing, >= 0. ``None``: refused.
        shard_bytes: Size of a weight file at most, or of its one tensor; as much is in memory.
        progress: Show a progress bar; ``None``: when on a terminal.

    Returns:
        ``out``.

    Raises:
        ModelError: No weights, tensors that differ in name or shape, a scale that is negative or
            not finite, or an ``out`` that holds something.
        PlanMismatchError: A tensor belongs to no unit of the plan.

    References:
        Task arithmetic, by unit: Ilharco et al. 2023, arXiv:2212.04089. One number: Wortsman et
        al. 2022 (WiSE-FT), arXiv:2109.01903.

    Example:
        >>> merge_checkpoints("base", "tuned", 0.7, "merged")  # doctest: +SKIP
    """
    out = Path(out)
    for scale in (plan, default_scale):
        if isinstance(scale, (int, float)) and not (scale >= 0 and math.isfinite(scale)):
            raise ModelError(f"scale {scale}: give a finite number from 0 (base) up; 1 is tuned.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError(f"{out}: holds files already; choose a new folder for the merge.")
    plan = plan if isinstance(plan, (int, float)) else as_plan(plan)
    with ExitStack() as stack:
        after = Checkpoint(stack.enter_context(_weights_folder(tuned, out.parent, tokenizer=True)))
        before = Checkpoint(
            stack.enter_context(_weights_folder(base, out.parent, _dtype_to_load(after)))
        )
        scales = _scales(before, after, plan, default_scale)
        partial = out.with_name(f".{out.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # of a merge that was killed
        partial.mkdir(parents=True)
        stack.callback(shutil.rmtree, partial, ignore_errors=True)
        _write(partial, before, after, scales, shard_bytes, progress)
        for path in after.folder.iterdir():
            if _is_kept(path):
                shutil.copy2(path, partial / path.name)
        if isinstance(plan, LayerPlan):
            plan.save(partial / PLAN_FILE)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    return out


class Checkpoint(Mapping):
    """The tensors of a folder of safetensors files, read from disk when one is asked for.

    Args:
        folder: Folder with ``model.safetensors``, the shards of an index, or any other
            ``.safetensors`` files.

    Raises:
        ModelError: There are none, or one of them cannot be read.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.files: dict[str, Path] = {}
        self.layout: dict[str, Tensor] = {}  # shape and type of each, without values
        for path in _weight_files(folder):
            try:
                with safe_open(path, framework="pt") as opened:
                    for name in opened.keys():  # noqa: SIM118 - it is no dictionary
                        entry = opened.get_slice(name)
                        shape = entry.get_shape()
                        sample = entry[0:0] if shape else opened.get_tensor(name)
                        self.layout[name] = torch.empty(shape, dtype=sample.dtype, device="meta")
                        self.files[name] = path
            except (SafetensorError, OSError) as error:
                raise ModelError(
                    f"{path}: cannot be read as safetensors ({error}). Is the download whole?"
                ) from error
        if not self.files:
            raise ModelError(
                f"{folder}: no safetensors weights. Save the model with save_pretrained."
            )

    def __getitem__(self, name: str) -> Tensor:
        # Opened each time: what was read of an open file counts as memory of this process.
        with safe_open(self.files[name], framework="pt") as opened:
            return opened.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def is_copy(self, name: str) -> bool:
        """Whether another tensor is equal bit for bit: a tied head that was stored as well."""
        mine = self.layout[name]
        return mine.dim() > 1 and any(
            torch.equal(self[name], self[other])
            for other, tensor in self.layout.items()
            if other != name and (tensor.shape, tensor.dtype) == (mine.shape, mine.dtype)
        )


def _weight_files(folder: Path) -> list[Path]:
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
def _weights_folder(
    name: str | Path, near: Path, dtype: str = "float32", tokenizer: bool = False
) -> Iterator[Path]:
    """A folder with the safetensors weights of a model.

    A folder that has them is given as it is. Any other model is loaded whole, and saved beside
    the result (``near``), where its size has room, for the time of the block.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if _weight_files(folder):
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


def _dtype_to_load(checkpoint: Checkpoint) -> str:
    """Type in which a base that is no folder is loaded: that of the largest tuned tensor.

    A merged tensor is rounded to it in any case, and half the width is half the memory.
    """
    largest = max(checkpoint.layout.values(), key=lambda tensor: tensor.nbytes)
    return next((name for name, dtype in DTYPES.items() if dtype == largest.dtype), "float32")


def _scales(
    before: Checkpoint,
    after: Checkpoint,
    plan: LayerPlan | float,
    default_scale: float | None,
) -> dict[str, float]:
    """Tensor -> scale, for all tensors that are to be written."""
    found = {
        name: _scale_of(name, plan) if isinstance(plan, LayerPlan) else plan
        for name in (*after, *before)
    }
    differing = before.keys() ^ after.keys()
    for name in list(found):
        if name in differing or found[name] is None:
            holders = [side for side in (before, after) if name in side]
            # A tied head: it is in one checkpoint only, or the plan knows it by its other name.
            if all(holder.is_copy(name) for holder in holders):
                del found[name]
    if only := sorted(differing & found.keys()):
        raise ModelError(
            f"{before.folder} and {after.folder} hold different tensors ({', '.join(only[:4])}, "
            f"{len(only)} in all); merge two checkpoints of one architecture."
        )
    scales: dict[str, float] = {}
    for name, scale in found.items():
        old, new = tuple(before.layout[name].shape), tuple(after.layout[name].shape)
        if old != new:
            raise ModelError(
                f"tensor {name} is {old} in the base, {new} in the tuned checkpoint; merge two "
                "checkpoints of one architecture."
            )
        scale = default_scale if scale is None else scale
        if scale is None:
            model = getattr(plan, "model", "")
            raise PlanMismatchError(
                f"the plan{f' (made for {model})' if model else ''} says nothing of "
                f"tensor {name}. Add its unit, or give a default scale (--default-scale)."
            )
        scales[name] = scale
    return scales


def _scale_of(name: str, plan: LayerPlan) -> float | None:
    """Scale of the unit a tensor belongs to, by path components."""
    parts = canonical_name(name).split(".")
    members = {unit.name: unit.members for unit in plan.units}
    for unit, scale in plan.scale.items():
        # A plan written by hand names units, and no members of theirs.
        for member in members.get(unit) or (unit,):
            prefix = member.split(".")
            if parts[: len(prefix)] == prefix:
                return scale
    return None


def _write(
    folder: Path,
    before: Checkpoint,
    after: Checkpoint,
    scales: dict[str, float],
    shard_bytes: int,
    progress: bool | None,
) -> None:
    """Write the merged tensors as Transformers reads them, one file after another."""
    split = split_state_dict_into_shards_factory(
        {name: after.layout[name] for name in scales},
        get_storage_size=lambda tensor: tensor.nbytes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=shard_bytes,
    )
    disable = None if progress is None else not progress
    with tqdm(total=len(scales), desc="merge", unit="tensor", disable=disable) as bar:
        for file, names in split.filename_to_tensors.items():
            tensors = {}
            for name in names:
                tensors[name] = _merged(before, after, name, scales[name])
                bar.update()
            save_file(tensors, folder / file, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_json(folder / INDEX, index)


def _merged(before: Checkpoint, after: Checkpoint, name: str, scale: float) -> Tensor:
    new = after[name]
    # A mask or a counter has nothing between.
    if scale == 1 or (scale and not new.is_floating_point()):
        return new
    old = before[name]
    if scale == 0:
        return old.to(new.dtype)
    wide = torch.promote_types(new.dtype, torch.float32)
    return torch.lerp(old.to(wide), new.to(wide), scale).to(new.dtype)


def _is_kept(path: Path) -> bool:
    return path.is_file() and path.suffix not in _WEIGHT_SUFFIXES and path.name not in _LEFT_BEHIND
