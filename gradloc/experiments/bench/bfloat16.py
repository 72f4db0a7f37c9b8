"""Whether bfloat16 saves time on this machine at all.

Comes in: nothing. Goes out: how long a product takes in bfloat16, against float32. It decides on
no arm.
"""

import time

import torch

# assumption: beyond this nobody trains in bfloat16.
BF16_TOO_SLOW = 2.0


def bf16_slowdown() -> float:
    """Time of a product in bfloat16 / in float32, on the device that trains.

    Processors without instructions for bfloat16 emulate it. measured on one with AVX2 alone: 9
    times, and 13 times for a training step, which would take hours in a benchmark of minutes.
    """
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(512, 512, dtype=dtype, device=device)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            float((matrix @ matrix)[0, 0])  # read, so that a GPU is waited for
            times.append(time.perf_counter() - start)
        seconds.append(min(times))
    return seconds[1] / seconds[0]
