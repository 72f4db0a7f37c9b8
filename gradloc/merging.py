"""Keep, scale or undo a fine-tuned model's change, unit by unit.

Comes in: two checkpoints of one architecture and a plan. Goes out: a checkpoint whose weights
are base + scale * (tuned - base). Tensors are read and written one by one, so memory does not
grow with the model.
"""

import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from gradloc.artifacts import write_json
from gradloc.errors import ModelError, PlanMismatchError
from gradloc.layers import canonical_name
from gradloc.plan import LayerPlan, as_plan

# Weights go to disk in files of at most so many bytes, as the hub likes them.
SHARD_BYTES = 2 * 2**30
_INDEX = "model.safetensors.index.json"


def merge_checkpoints(
    base: str | Path, tuned: str | Path, plan: LayerPlan | str | Path, out: str | Path
) -> Path:
    """Write base + scale * (tuned - base), with the plan's scale for each unit.

    Scale 0 undoes a unit's change exactly, 1 keeps it exactly. Task arithmetic by unit
    (arXiv:2212.04089); undoing attention's change after full training costs no training.

    Args:
        base: Folder of the base model's safetensors weights.
        tuned: Folder of the tuned model's; its configuration and tokenizer are kept.
        plan: Unit -> scale, as object or path.
        out: Folder to write, which must not exist or be empty.

    Returns:
        ``out``.

    Raises:
        ModelError: No safetensors weights, tensors that differ in name or shape, or an ``out``
            that holds something.
        PlanMismatchError: A tensor belongs to no unit of the plan.
    """
    plan, out = as_plan(plan), Path(out)
    if out.exists() and any(out.iterdir()):
        raise ModelError(f"{out}: holds files already; choose a new folder for the merge.")
    before, after = _tensor_files(Path(base)), _tensor_files(Path(tuned))
    if before.keys() != after.keys():
        only = sorted(before.keys() ^ after.keys())
        raise ModelError(
            f"{base} and {tuned} hold different tensors ({', '.join(only[:4])}, "
            f"{len(only)} in all); merge two checkpoints of one architecture."
        )
    scales = {name: _scale_of(name, plan) for name in after}
    out.mkdir(parents=True, exist_ok=True)
    shard, size, homes = {}, 0, {}
    shards: list[Path] = []

    def flush():
        nonlocal shard, size
        path = out / f"shard-{len(shards):05d}.safetensors"
        save_file(shard, path, metadata={"format": "pt"})
        shards.append(path)
        shard, size = {}, 0

    for name in after:
        tensor = _merged(name, before[name], after[name], scales[name])
        n_bytes = tensor.numel() * tensor.element_size()
        if shard and size + n_bytes > SHARD_BYTES:
            flush()
        shard[name] = tensor
        size += n_bytes
        homes[name] = len(shards)
    flush()
    _name_shards(out, shards, homes)
    for path in Path(tuned).iterdir():
        if (
            path.is_file()
            and path.suffix != ".safetensors"
            and path.name not in (_INDEX, "README.md", "training.json", "scores.json")
        ):
            shutil.copy2(path, out / path.name)
    plan.save(out / "plan.json")
    return out


def _tensor_files(folder: Path) -> dict[str, Path]:
    """Tensor name -> file that holds it."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder}: no safetensors weights. Save the model with save_pretrained.")
    homes = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            homes |= dict.fromkeys(opened.keys(), file)
    return homes


def _scale_of(name: str, plan: LayerPlan) -> float:
    """Scale of the unit a tensor belongs to, by path components."""
    parts = canonical_name(name).split(".")
    for unit, scale in plan.scale.items():
        for prefix in _prefixes(unit, plan):
            if parts[: len(prefix)] == prefix:
                return scale
    raise PlanMismatchError(
        f"tensor {name} belongs to no unit of the plan (made for {plan.model or 'another model'})."
    )


def _prefixes(unit: str, plan: LayerPlan) -> list[list[str]]:
    """Paths of a unit's members, from the plan or, in one written by hand, from its name."""
    members = next((u.members for u in plan.units if u.name == unit), ()) or (unit,)
    return [member.split(".") for member in members]


def _merged(name: str, before: Path, after: Path, scale: float) -> torch.Tensor:
    old, new = (_read(path, name) for path in (before, after))
    if old.shape != new.shape:
        raise ModelError(
            f"tensor {name} is {tuple(old.shape)} in the base, {tuple(new.shape)} "
            "in the tuned checkpoint; merge two checkpoints of one architecture."
        )
    if scale in (0, 1):
        return (new if scale else old.to(new.dtype)).contiguous()
    return (old.float() + scale * (new.float() - old.float())).to(new.dtype)


def _read(path: Path, name: str) -> torch.Tensor:
    with safe_open(path, framework="pt") as opened:
        return opened.get_tensor(name)


def _name_shards(out: Path, shards: list[Path], homes: dict[str, int]) -> None:
    """Give the files the names that Transformers looks for."""
    if len(shards) == 1:
        shards[0].rename(out / "model.safetensors")
        return
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for path, name in zip(shards, names, strict=True):
        path.rename(out / name)
    total = sum((out / name).stat().st_size for name in names)
    write_json(
        out / _INDEX,
        {
            "metadata": {"total_size": total},
            "weight_map": {name: names[shard] for name, shard in homes.items()},
        },
    )
