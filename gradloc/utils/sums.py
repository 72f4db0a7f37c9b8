"""Inner products of long vectors, to the last digits of float32."""

import torch
from torch import Tensor

# measured: on a CPU, torch.dot and torch.linalg.vector_norm add up long float32 tensors in few
# partial sums: a norm over 2 million elements comes out 3e-4 too small (torch 2.13). Over this
# many it is right to 1e-6.
LONGEST = 2**15


def dot(left: Tensor, right: Tensor) -> Tensor:
    """Inner product of two float32 tensors of the same shape, a scalar.

    Example:
        >>> ones = torch.ones(5, 20_000)
        >>> int(dot(ones, ones))
        100000
    """
    left, right = left.reshape(-1), right.reshape(-1)
    if left.numel() <= LONGEST or left.is_cuda:  # a GPU adds up in many partial sums
        return torch.dot(left, right)
    pieces = zip(left.split(LONGEST), right.split(LONGEST), strict=True)
    return torch.stack([torch.dot(*pair) for pair in pieces]).sum()
