"""Per-sequence gradients of matrices that are products or look-ups, without forming them.

The gradient of sequence s in a linear layer is ``sum_t g_t a_t^T`` over its tokens t. Its
squared norm is ``sum_{t,u} (g_t . g_u) (a_t . a_u)``, the product of two Gram matrices, and its
inner product with a direction D is ``sum_t g_t . (D a_t)``: neither needs the gradient itself.

References:
    Goodfellow 2015, arXiv:1510.01799; Li et al. 2022, arXiv:2110.05679 section 4 (cost of both
    ways).
"""

import torch
from torch import Tensor

from gradloc.utils.sums import dot

# One element of a weight gradient is written once and read twice where it is formed.
# measured: that takes as long as this many multiply-adds of a matrix product (CPU, float32).
ELEMENT_COST = 15

# Elements of a gradient that are formed and read at a time. measured: 1 MiB stays in the cache of
# a CPU, and a whole matrix of 900,000 takes 1.5 times as long.
BLOCK = 2**18

# Elements of a direction in float32 at a time. measured: 16 MiB stay in reused memory.
PIECE = 2**22


class Rows:
    """Rows of a layer's input, (n_rows, d) in float32, with the rows of each sequence.

    Layers that share an input share this object, and so its Gram matrices.
    """

    def __init__(self, values: Tensor, slices: list[slice]):
        self.values = values
        self.slices = slices
        self._grams: dict[int, Tensor] = {}

    def of(self, sequence: int) -> Tensor:
        """The rows of one sequence."""
        return self.values[self.slices[sequence]].float()

    def gram(self, sequence: int) -> Tensor:
        """Inner products of the rows of one sequence with each other."""
        if sequence not in self._grams:
            rows = self.of(sequence)
            self._grams[sequence] = rows @ rows.T
        return self._grams[sequence]


class Products:
    """``left^T right`` over the rows of each sequence, summed over calls.

    Args:
        calls: (left, right) of every call; the parameter has shape (d_left, d_right).
    """

    def __init__(self, calls: list[tuple[Rows, Rows]]):
        self.calls = calls
        self.n = len(calls[0][0].slices)

    def joined(self, sequence: int) -> tuple[Tensor, Tensor]:
        """All rows of one sequence, of one call after the other."""
        pairs = [(left.of(sequence), right.of(sequence)) for left, right in self.calls]
        lefts, rights = zip(*pairs, strict=True)
        if len(pairs) == 1:
            return lefts[0], rights[0]
        return torch.cat(lefts), torch.cat(rights)

    def squared(self) -> Tensor:  # noqa: D102 - see parts.Part
        return torch.stack([self._squared(i) for i in range(self.n)])

    def _squared(self, i: int) -> Tensor:
        if not self._gram_is_cheaper(i):
            return self._formed([i], None)[0][0]
        if len(self.calls) == 1:
            left, right = self.calls[0]
            return dot(left.gram(i), right.gram(i))
        left, right = self.joined(i)
        return dot(left @ left.T, right @ right.T)

    def _gram_is_cheaper(self, i: int) -> bool:
        (d_left, d_right), rows = self._shape, self._n_rows(i)
        return rows**2 * (d_left + d_right) < (rows + ELEMENT_COST) * d_left * d_right

    @property
    def _shape(self) -> tuple[int, int]:
        left, right = self.calls[0]
        return left.values.shape[1], right.values.shape[1]

    def _n_rows(self, i: int) -> int:
        return sum(left.slices[i].stop - left.slices[i].start for left, _ in self.calls)

    def inner(self, direction: Tensor) -> Tensor:  # noqa: D102
        total = torch.zeros(self.n, device=direction.device)
        for left, right in self.calls:
            # The product that leaves fewer columns.
            if direction.shape[0] <= direction.shape[1]:
                by_row = _by_row(right.values.float(), direction.T, left.values.float())
            else:
                by_row = _by_row(left.values.float(), direction, right.values.float())
            total += torch.stack([by_row[s].sum() for s in left.slices])
        return total

    def both(self, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Squared norms and inner products, from the gradients themselves where cheaper."""
        d_left, d_right = self._shape
        gram = sum(self._n_rows(i) ** 2 for i in range(self.n)) * (d_left + d_right)
        if gram <= self.n * d_left * d_right * ELEMENT_COST:
            return self.squared(), self.inner(direction)
        return self._formed(list(range(self.n)), direction)

    def _formed(self, sequences: list[int], direction: Tensor | None) -> tuple[Tensor, Tensor]:
        """Squared norms and inner products of gradients formed block by block, in the cache."""
        pairs = [self.joined(i) for i in sequences]
        (d_left, d_right), device = self._shape, pairs[0][0].device
        size = d_left if device.type == "cuda" else max(1, BLOCK // d_right)
        room = torch.empty(min(size, d_left), d_right, device=device)
        squared, inner = (torch.zeros(len(pairs), device=device) for _ in range(2))
        for start in range(0, d_left, size):
            columns = slice(start, start + size)
            piece = None if direction is None else direction[columns].float()
            for place, (left, right) in enumerate(pairs):
                block = room[: min(size, d_left - start)]
                torch.mm(left[:, columns].T, right, out=block)
                squared[place] += dot(block, block)
                if piece is not None:
                    inner[place] += dot(block, piece)
        return squared, inner

    def add_sum(self, total: Tensor) -> None:  # noqa: D102
        for left, right in self.calls:
            total.addmm_(left.values.float().T, right.values.float())


class Lookups:
    """Rows of an embedding matrix that each sequence looked up, summed over calls.

    Args:
        calls: (ids of shape (n_rows,), gradients of the looked-up rows) of every call.
    """

    def __init__(self, calls: list[tuple[Tensor, Rows]]):
        self.calls = calls
        self.n = len(calls[0][1].slices)

    def joined(self, sequence: int) -> tuple[Tensor, Tensor]:
        """All ids of one sequence and the gradients of their rows."""
        return (
            torch.cat([ids[rows.slices[sequence]] for ids, rows in self.calls]),
            torch.cat([rows.of(sequence) for _, rows in self.calls]),
        )

    def squared(self) -> Tensor:  # noqa: D102 - see parts.Part
        result = []
        for i in range(self.n):
            ids, gradients = self.joined(i)
            distinct, place = ids.unique(return_inverse=True)
            summed = gradients.new_zeros(len(distinct), gradients.shape[1])
            result.append(summed.index_add_(0, place, gradients).square_().sum())
        return torch.stack(result)

    def inner(self, direction: Tensor) -> Tensor:  # noqa: D102
        result = []
        for i in range(self.n):
            ids, gradients = self.joined(i)
            result.append((direction[ids].float() * gradients).sum())
        return torch.stack(result)

    def add_sum(self, total: Tensor) -> None:  # noqa: D102
        for i in range(self.n):
            ids, gradients = self.joined(i)
            total.index_add_(0, ids, gradients)


class Tied:
    """An embedding matrix that is a linear layer's weight too: its gradients add up."""

    def __init__(self, lookups: Lookups, products: Products):
        self.lookups, self.products = lookups, products

    def squared(self) -> Tensor:  # noqa: D102 - see parts.Part
        cross = []
        for i in range(self.lookups.n):
            ids, gradients = self.lookups.joined(i)
            left, right = self.products.joined(i)
            cross.append(((gradients @ right.T) * left[:, ids].T).sum())
        return self.lookups.squared() + self.products.squared() + 2 * torch.stack(cross)

    def inner(self, direction: Tensor) -> Tensor:  # noqa: D102
        return self.lookups.inner(direction) + self.products.inner(direction)

    def add_sum(self, total: Tensor) -> None:  # noqa: D102
        self.lookups.add_sum(total)
        self.products.add_sum(total)


def _by_row(left: Tensor, direction: Tensor, right: Tensor) -> Tensor:
    """``sum_ij left_i direction_ij right_j`` of every row, (n_rows,)."""
    # A direction of one byte an element becomes float32 piece by piece.
    size = max(1, PIECE // direction.shape[1])
    product = torch.zeros_like(right)
    for start in range(0, len(direction), size):
        piece = direction[start : start + size].float()
        product.addmm_(left[:, start : start + size], piece)
    return product.mul_(right).sum(1)
