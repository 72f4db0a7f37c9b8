"""Keep, scale or undo a fine-tuned model's change, unit by unit.

The result is base + scale * (tuned - base). Tensors are read, merged and written in pieces of a few
MiB, so memory does not grow with the model.
"""

import math
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from gradloc.errors import ModelError, PlanMismatchError
from gradloc.localization.plan import LayerPlan, as_plan
from gradloc.models import DTYPES
from gradloc.models.wrappers import canonical_name
from gradloc.training.merging.folders import INDEX, Checkpoint, weights_folder
from gradloc.training.merging.shards import SHARD_BYTES, write_shards
from gradloc.utils.io import PLAN_FILE, SCORES_FILE, TRAINING_FILE

MERGE_FILE = "merge.json"

# What lies beside the tuned weights and says nothing true of the merged ones.
_LEFT_BEHIND = (
    INDEX,
    "README.md",
    "trainer_state.json",
    PLAN_FILE,
    TRAINING_FILE,
    SCORES_FILE,
    MERGE_FILE,
)
# Weights, and the optimizer's state of a Trainer checkpoint.
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".ckpt")


def merge_checkpoints(
    base: str | Path,
    tuned: str | Path,
    plan: LayerPlan | str | Path | float,
    out: str | Path,
    *,
    default_scale: float | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: bool | None = None,
) -> Path:
    """Write base + scale * (tuned - base), with the plan's scale for each unit.

    Scale 0 undoes a unit's change bit for bit, 1 keeps it bit for bit; between them the sum is
    taken in float32 and rounded to the tuned tensor's type. Tensors are read and written piece by
    piece, so a model of any size needs a few hundred MiB. ``out`` appears whole or not at all.

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
        shard_bytes: Size of a weight file at most; memory does not depend on it.
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
    refuse_used(out)
    plan = plan if isinstance(plan, (int, float)) else as_plan(plan)
    with ExitStack() as stack:
        after = Checkpoint(stack.enter_context(weights_folder(tuned, out.parent, tokenizer=True)))
        dtype = _loaded_as(after)
        before = Checkpoint(stack.enter_context(weights_folder(base, out.parent, dtype)))
        scales = _scales(before, after, plan, default_scale)
        partial = out.with_name(f".{out.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # of a merge that was killed
        partial.mkdir(parents=True)
        stack.callback(shutil.rmtree, partial, ignore_errors=True)
        tensors = {name: after.tensors[name] for name in scales}
        total = sum(stored.n_bytes for stored in tensors.values())
        disable = None if progress is None else not progress
        with tqdm(total=total, desc="merge", unit="B", unit_scale=True, disable=disable) as bar:
            write_shards(
                partial,
                tensors,
                lambda name: _merged(name, before, after, scales[name]),
                shard_bytes,
                bar.update,
            )
        for path in after.folder.iterdir():
            if _is_kept(path):
                shutil.copy2(path, partial / path.name)
        if isinstance(plan, LayerPlan):
            plan.save(partial / PLAN_FILE)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    return out


def refuse_used(out: Path) -> None:
    """Stop before work whose result has no place.

    Raises:
        ModelError: ``out`` is a file, or a folder that holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError(f"{out}: holds files already; choose a new folder for the merge.")


def _is_kept(path: Path) -> bool:
    return path.is_file() and path.suffix not in _WEIGHT_SUFFIXES and path.name not in _LEFT_BEHIND


def _loaded_as(checkpoint: Checkpoint) -> str:
    """Type in which a base that is no folder is loaded: that of the largest tuned tensor.

    A merged tensor is rounded to it in any case, and half the width is half the memory.
    """
    largest = max(checkpoint.tensors.values(), key=lambda stored: stored.n_bytes)
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
        for name in (*after.tensors, *before.tensors)
    }
    differing = before.tensors.keys() ^ after.tensors.keys()
    for name in list(found):
        if name in differing or found[name] is None:
            holders = [side for side in (before, after) if name in side.tensors]
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
        old, new = before.tensors[name].shape, after.tensors[name].shape
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
    for unit, scale in plan.scale.items():
        for prefix in _prefixes(unit, plan):
            if parts[: len(prefix)] == prefix:
                return scale
    return None


def _prefixes(unit: str, plan: LayerPlan) -> list[list[str]]:
    """Paths of a unit's members, from the plan or, in one written by hand, from its name."""
    members = next((u.members for u in plan.units if u.name == unit), ()) or (unit,)
    return [member.split(".") for member in members]


def _merged(name: str, before: Checkpoint, after: Checkpoint, scale: float) -> Iterator[Tensor]:
    """The values of a merged tensor, in runs of its rows."""
    stored = after.tensors[name]
    for rows in stored.spans:
        if scale == 1:
            yield after.rows(name, rows)
        elif scale == 0:
            yield before.rows(name, rows).to(stored.dtype)
        elif not stored.dtype.is_floating_point:  # a mask or a counter has no way between
            yield after.rows(name, rows)
        else:
            wide = torch.promote_types(stored.dtype, torch.float32)
            old, new = before.rows(name, rows).to(wide), after.rows(name, rows).to(wide)
            yield torch.lerp(old, new, scale).to(stored.dtype)
