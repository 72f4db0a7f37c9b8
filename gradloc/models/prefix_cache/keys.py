"""What hidden states depend on: the names under which they are kept.

What is in neither is a row's company in its batch. It can change the last bits (a relative 1e-6)
where threads divide a product among them. measured on a CPU: never with one thread; with two at
odd widths and below 16 tokens, not at multiples of 8 from 16 up.
"""

import hashlib
import json
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from gradloc.models.architecture import block_stack
from gradloc.models.wrappers import canonical_name


def prefix_digest(model: Any, lowest_block: int, dtype: str) -> str:
    """Digest of the frozen prefix: weights, configuration, library versions, device, dtype.

    Args:
        model: The plain model.
        lowest_block: The first block that is not part of the prefix.
        dtype: Dtype in which hidden states are kept.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    device = next(model.parameters()).device
    config = model.config.to_dict()
    config.pop("_name_or_path", None)  # where the weights lie does not change them
    config.pop("use_cache", None)
    described = {
        "config": config,
        "attention": getattr(model.config, "_attn_implementation", None),
        "lowest_block": lowest_block,
        "dtype": dtype,
        # How products are divided among threads can change their last bits.
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "autocast": str(torch.get_autocast_dtype(device.type))
        if torch.is_autocast_enabled(device.type)
        else None,
        "versions": [torch.__version__, transformers.__version__],
    }
    digest.update(json.dumps(described, sort_keys=True, default=str).encode())
    for name, tensor in prefix_tensors(model, lowest_block):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def prefix_tensors(model: nn.Module, lowest_block: int):
    """Names and frozen tensors that hidden states entering ``lowest_block`` may depend on.

    Outside the block stack all frozen ones are taken: too many rather than too few.
    """
    stack_name, stack = block_stack(model)
    above = {
        id(tensor)
        for block in stack[lowest_block:]
        for tensor in (*block.parameters(), *block.buffers())
    }
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if id(tensor) not in above and not tensor.requires_grad:
            yield canonical_name(name), tensor


def row_keys(ids: Tensor, mask: Tensor | None, positions: Tensor | None) -> list[str]:
    """A key for every row of a batch.

    The width of the batch is part of it, since the last bits of attention depend on it.

    Args:
        ids: Token ids, (batch, seq).
        mask: 1 for real tokens, (batch, seq); ``None``: all are real.
        positions: Position ids, (batch, seq) or (1, seq), or ``None``.

    Returns:
        32 hexadecimal digits for each row.
    """
    ids = ids.cpu()
    mask = torch.ones_like(ids) if mask is None else mask.to("cpu", ids.dtype)
    columns = [ids * mask, mask]  # what stands in padding changes no real position
    if positions is not None:
        columns.append(positions.to("cpu", ids.dtype).expand_as(ids))
    rows = torch.stack(columns, dim=1).contiguous().numpy()
    return [hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() for row in rows]
