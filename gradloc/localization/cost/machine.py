"""How fast a machine computes and moves bytes.

A ratio of two step times depends on the balance of the four rates only, not on how fast the
machine is.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Machine:
    """Four rates of a machine.

    Args:
        products_per_second: Multiplications and additions of matrix products (two for each pair
            of numbers that meet), a second.
        fresh_bytes_per_second: Bytes read and written by elementwise work whose result is a new
            tensor (norms, activations, softmax).
        stream_bytes_per_second: Bytes read and written in place (the optimizer's step, clipping).
        new_bytes_per_second: Bytes of memory that a step takes and gives back (kept activations,
            logits, gradients). On a CPU the system clears their pages each time.
        origin: Where the rates come from, for the record.
    """

    products_per_second: float
    fresh_bytes_per_second: float
    stream_bytes_per_second: float
    new_bytes_per_second: float
    origin: str = ""


# measured: one core of an AMD EPYC (Zen 3), float32, torch 2.13, 512 tokens: matrix products in
# the shapes of SmolLM2-135M; silu of (512, 1536); AdamW (fused) with clipping over 135 M numbers;
# 100 MB written to a new tensor.
MACHINE = Machine(75e9, 6e9, 20e9, 2.4e9, "measured on one core of an AMD EPYC, float32")

# Larger than what an allocator keeps for itself (glibc: at most 32 MiB).
NEW_BYTES = 128 * 2**20


def calibrate(shape: Mapping[str, Any], *, n_tokens: int = 512, dtype: str = "float32") -> Machine:
    """Time this machine for one to two seconds, in the model's own shapes.

    Args:
        shape: ``gradloc.models.units.model_shape``.
        n_tokens: Tokens a step; rows of the matrices.
        dtype: Type of the numbers.

    Returns:
        Its rates, on an accelerator where torch has one.
    """
    import torch

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else 0
    kind = {"dtype": getattr(torch, dtype), "device": accelerator or "cpu"}

    def wait() -> None:
        if accelerator:
            torch.accelerator.synchronize()

    hidden, width = shape["hidden_size"], shape.get("ffn_size") or 4 * shape["hidden_size"]
    rows, wide = torch.randn(n_tokens, hidden, **kind), torch.randn(n_tokens, width, **kind)
    weight = torch.randn(width, hidden, **kind)
    # As many numbers as a dozen projections, so that caches do not hold them.
    trained = torch.nn.Parameter(torch.randn(12 * width * hidden, **kind))
    trained.grad = torch.randn_like(trained)
    optimizer = torch.optim.AdamW([trained], fused=True)
    each = wide.element_size()
    products = 2 * n_tokens * hidden * width
    with torch.no_grad():
        products_rate = _rate(lambda: rows @ weight.T, products, wait)
        fresh_rate = _rate(lambda: torch.nn.functional.silu(wide), 2 * each * wide.numel(), wait)
    # Gradient, weight and two moments are read; the last three are written.
    stream_rate = _rate(optimizer.step, 7 * each * trained.numel(), wait)
    new_rate = _rate(
        lambda: torch.empty(NEW_BYTES, dtype=torch.uint8, device=kind["device"]).fill_(1),
        NEW_BYTES,
        wait,
    )
    return Machine(
        products_rate, fresh_rate, stream_rate, new_rate, "measured on this machine just now"
    )


def _rate(work: Callable[[], object], amount: float, wait: Callable[[], None]) -> float:
    """Amount a second of the quickest of many runs: what else the machine does only slows."""
    work()  # the first run allocates
    wait()
    best, n_runs, end = float("inf"), 0, time.perf_counter() + 0.3
    while n_runs < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        wait()
        best, n_runs = min(best, time.perf_counter() - start), n_runs + 1
    return amount / best
