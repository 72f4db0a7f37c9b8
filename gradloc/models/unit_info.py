"""What is known of a unit without the model: name, kind, block and size. It needs no torch."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt
from typing_extensions import TypedDict

Granularity = Literal["sublayer", "block"]
UnitKind = Literal["attention", "mlp", "block", "embedding", "head", "norm"]
# Bounded, so that no product of sizes leaves the range of 64-bit numbers.
Size = Annotated[int, Gt(0), Lt(2**31)]
Count = Annotated[int, Ge(0), Lt(2**48)]


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
    kind: UnitKind
    block: Count | None
    n_parameters: Count
    members: tuple[str, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "members", tuple(self.members))  # a list, from JSON

    @property
    def in_stack(self) -> bool:
        """Whether the unit is part of a block; policies choose among these."""
        return self.block is not None


class ModelShape(TypedDict, total=False):
    """Sizes of a model that its training cost depends on; see ``models.units.model_shape``."""

    n_blocks: Size
    hidden_size: Size
    vocab_size: Size
    n_heads: Size
    query_size: Size
    kv_size: Size
    ffn_size: Size
    tied: Count
    n_parameters: Count
    n_experts: Size
    n_experts_per_token: Size
    expert_parameters: list[Count]


def unit_problems(units: tuple[UnitInfo, ...]) -> list[str]:
    """What is wrong with the units of a file, one line each; nothing where they are sound."""
    names = [unit.name for unit in units]
    problems = [f"units: {name!r} is named twice" for name in names if names.count(name) > 1]
    if not any(unit.in_stack for unit in units):
        problems.append("units: none is part of a block")
    if not sum(unit.n_parameters for unit in units):
        problems.append("units: they have no parameters")
    return list(dict.fromkeys(problems))


def lowest_block(trained: Iterable[UnitInfo]) -> int | None:
    """The lowest block that the backward pass has to come down to.

    Args:
        trained: The units that train.

    Returns:
        Its index; 0 where embeddings train; ``None`` where neither they nor any block does.
    """
    reaching = [unit for unit in trained if unit.in_stack or unit.kind == "embedding"]
    return min((unit.block or 0 for unit in reaching), default=None)
