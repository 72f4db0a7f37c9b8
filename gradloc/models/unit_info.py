"""What is known of a unit without the model: name, kind, block and size. It needs no torch."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class UnitInfo:
    """What the rest of the line needs to know of a unit.

    Args:
        name: The unit's parameter prefix (``model.layers.7.mlp``).
        kind: ``attention``, ``mlp``, ``block``, ``embedding``, ``head`` or ``norm``.
        block: Index of its block, ``None`` outside the stack.
        n_parameters: Number of parameters.
        members: Paths of the modules whose parameters it holds (the MLP and the norm that feeds
            it, say), for tools that see tensors by name only.
    """

    name: str
    kind: str
    block: int | None
    n_parameters: int
    members: tuple[str, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "members", tuple(self.members))  # a list, from JSON

    @property
    def in_stack(self) -> bool:
        """Whether the unit is part of a block; policies choose among these."""
        return self.block is not None


def lowest_block(trained: Iterable[UnitInfo]) -> int | None:
    """The lowest block that the backward pass has to come down to.

    Args:
        trained: The units that train.

    Returns:
        Its index; 0 where embeddings train; ``None`` where neither they nor any block does.
    """
    reaching = [unit for unit in trained if unit.in_stack or unit.kind == "embedding"]
    return min((unit.block or 0 for unit in reaching), default=None)
