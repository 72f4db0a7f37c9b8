"""The plans that the arms train under.

Comes in: the units of a model and a number of blocks. Goes out: layer plans by the name of their
arm. It measures nothing: these plans are chosen by place alone, to show what place costs.
"""

from collections.abc import Sequence

from torch import nn

from gradloc.errors import SelectionError
from gradloc.localization.plan import LayerPlan
from gradloc.models.unit_info import UnitInfo
from gradloc.models.units import find_units


def block_choices(n_blocks: int, k: int) -> dict[str, tuple[int, ...]]:
    """Which blocks each arm trains, by name.

    Raises:
        SelectionError: The model has no room for k blocks beside frozen ones.

    Example:
        >>> block_choices(30, 4)["scattered4"], block_choices(30, 4)["middle4"]
        ((3, 11, 18, 26), (13, 14, 15, 16))
    """
    if k >= n_blocks:
        raise SelectionError(
            f"the model has {n_blocks} blocks: no room for {k} trained ones beside frozen ones. "
            f"Choose --k {n_blocks - 1} or less."
        )
    middle = (n_blocks - k) // 2
    return {
        f"top{k}": tuple(range(n_blocks - k, n_blocks)),
        f"middle{k}": tuple(range(middle, middle + k)),
        f"scattered{k}": tuple(int((i + 0.5) * n_blocks / k) for i in range(k)),
        f"bottom{k}": tuple(range(k)),
    }


def ten_mlp_blocks(n_blocks: int) -> tuple[int, ...]:
    """Blocks whose MLPs have the shape that the default policy chose in a model of 30 blocks.

    measured on SmolLM2-135M: the MLPs of blocks 3-6 and 22-27. In other models both groups keep
    their size and their share of the depth.

    Raises:
        SelectionError: The model has fewer than twelve blocks.

    Example:
        >>> ten_mlp_blocks(30)
        (3, 4, 5, 6, 22, 23, 24, 25, 26, 27)
    """
    if n_blocks < 12:
        raise SelectionError(
            f"ten_mlps: the model has {n_blocks} blocks, and ten MLPs in two groups need 12."
        )
    low = round(n_blocks * 3 / 30)
    end = n_blocks - round(n_blocks * 2 / 30)
    return (*range(low, low + 4), *range(end - 6, end))


def blocks_plan(model: nn.Module, name: str, blocks: Sequence[int]) -> LayerPlan:
    """Train whole blocks."""
    units = tuple(unit.info for unit in find_units(model, "block"))
    return _plan(name, units, "block", {u.name for u in units if u.block in blocks})


def mlps_plan(model: nn.Module, name: str, blocks: Sequence[int]) -> LayerPlan:
    """Train the MLPs of some blocks."""
    units = tuple(unit.info for unit in find_units(model))
    wanted = {u.name for u in units if u.block in blocks and u.kind == "mlp"}
    return _plan(name, units, "sublayer", wanted)


def everything_plan(model: nn.Module, name: str) -> LayerPlan:
    """Train everything."""
    units = tuple(unit.info for unit in find_units(model, "block"))
    return _plan(name, units, "block", {u.name for u in units})


def _plan(name: str, units: tuple[UnitInfo, ...], granularity: str, trained: set[str]) -> LayerPlan:
    scale = {unit.name: float(unit.name in trained) for unit in units}
    return LayerPlan(scale, units, policy=name, granularity=granularity)
