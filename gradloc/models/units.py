"""Which parameters belong to which unit."""

from dataclasses import dataclass

import torch
from torch import nn

from gradloc.errors import UnitsError
from gradloc.models.architecture import block_stack
from gradloc.models.unit_info import Granularity, UnitInfo, UnitKind
from gradloc.models.wrappers import (
    canonical_name,
    evaluation_mode,
    input_embedding,
    unwrap,
)

GRANULARITIES = ("sublayer", "block")

# Unit name, kind and block.
Home = tuple[str, UnitKind, int]

# Words in the class or attribute name of sublayers that mix tokens.
_MIXER_WORDS = ("attention", "attn", "mixer", "mamba", "ssm", "recurrent")


@dataclass(frozen=True)
class Unit:
    """A unit of the model with its parameters.

    Args:
        info: Name, kind, block and size.
        parameters: Canonical name -> parameter of the model proper.
        adapters: Canonical name -> parameter that PEFT added inside the unit; not measured and
            not counted in ``info.n_parameters``.
    """

    info: UnitInfo
    parameters: dict[str, nn.Parameter]
    adapters: dict[str, nn.Parameter]

    @property
    def name(self) -> str:
        """The unit's parameter prefix."""
        return self.info.name


def parameters_of(units: tuple[Unit, ...]) -> dict[str, nn.Parameter]:
    """Name -> parameter of all units."""
    return {name: p for unit in units for name, p in unit.parameters.items()}


def unit_by_parameter(units: tuple[Unit, ...]) -> dict[str, int]:
    """Name of a parameter -> index of its unit."""
    return {name: index for index, unit in enumerate(units) for name in unit.parameters}


def find_units(model: nn.Module, granularity: Granularity = "sublayer") -> tuple[Unit, ...]:
    """Divide all parameters of a model into units.

    A sublayer unit is the attention or the MLP of one block with the norm that feeds it (and the
    norm on its own output, where there is one). Modules outside the block stack (embeddings,
    final norm, head) are units of their own. A tied head belongs to the embedding.

    Args:
        model: The model; it is run once on two tokens, without gradients, to see in which order
            a block calls its parts. Nothing of it changes.
        granularity: ``sublayer`` or ``block``.

    Returns:
        Units in the order of the model's parameters. Every parameter is in exactly one.

    Raises:
        UnitsError: No unique block stack, or blocks whose parts cannot be told apart.
    """
    if granularity not in GRANULARITIES:
        raise UnitsError(
            f"granularity {granularity!r} is unknown; choose one of {', '.join(GRANULARITIES)}."
        )
    model = unwrap(model)
    stack_name, stack = block_stack(model)
    if granularity == "block":
        sublayers = None
    else:
        sublayers = _trace_sublayers(model, stack, canonical_name(stack_name))
    return _assemble(model, canonical_name(stack_name), sublayers)


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()


def _mixes_tokens(name: str, module: nn.Module) -> bool:
    described = f"{type(module).__name__} {name}".lower()
    return any(word in described for word in _MIXER_WORDS)


@dataclass
class _Call:
    """One call of a direct child of a block, as the trace saw it."""

    name: str
    module: nn.Module
    given: object
    returned: object = None


def _trace_sublayers(model: nn.Module, stack: nn.ModuleList, stack_name: str) -> dict[str, Home]:
    """Child path (``<stack>.3.ln_1``) -> (unit name, kind, block)."""
    calls: list[list[_Call]] = [[] for _ in stack]
    handles = []

    def before(block, name):
        def hook(module, args, kwargs):
            given = args[0] if args else next(iter(kwargs.values()), None)
            calls[block].append(_Call(name, module, given))

        return hook

    def after(block):
        def hook(module, args, kwargs, output):
            call = next(c for c in reversed(calls[block]) if c.module is module)
            call.returned = output[0] if isinstance(output, tuple) else output

        return hook

    for index, block in enumerate(stack):
        for name, child in block.named_children():
            if next(child.parameters(), None) is not None:
                handles.append(
                    child.register_forward_pre_hook(before(index, name), with_kwargs=True)
                )
                handles.append(child.register_forward_hook(after(index), with_kwargs=True))
    device = next(model.parameters()).device
    try:
        with evaluation_mode(model), torch.no_grad():
            model(input_ids=torch.tensor([[0, 1]], device=device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()

    homes = {}
    for index, block_calls in enumerate(calls):
        prefix = f"{stack_name}.{index}"
        homes |= _group_calls(block_calls, prefix, index)
        # A child that a two-token pass does not reach goes with the block's last sublayer.
        last = list(homes.values())[-1]
        for name, child in stack[index].named_children():
            if next(child.parameters(), None) is not None:
                homes.setdefault(f"{prefix}.{name}", last)
    return homes


def _group_calls(calls: list[_Call], prefix: str, block: int) -> dict[str, Home]:
    groups: list[tuple[UnitKind, list[str], list[str]]] = []  # kind, sublayers, norms
    waiting: list[str] = []
    previous: _Call | None = None
    for call in calls:
        if _is_norm(call.module):
            # A norm on a sublayer's own output is part of it; any other feeds the next one.
            if previous is not None and call.given is previous.returned:
                groups[-1][2].append(call.name)
            else:
                waiting.append(call.name)
            continue
        kind: UnitKind = "attention" if _mixes_tokens(call.name, call.module) else "mlp"
        if not groups or groups[-1][0] != kind:
            groups.append((kind, [], []))
        if call.name not in groups[-1][1]:
            groups[-1][1].append(call.name)
        groups[-1][2].extend(waiting)
        waiting, previous = [], call
    if not groups:
        raise UnitsError(
            f"{prefix}: its parts are not called one by one, so attention and MLP cannot be told "
            "apart. Use granularity='block'."
        )
    groups[-1][2].extend(waiting)
    homes = {}
    for kind, names, norms in groups:
        unit = f"{prefix}.{'+'.join(names)}"
        homes |= {f"{prefix}.{child}": (unit, kind, block) for child in (*norms, *names)}
    return homes


def _assemble(
    model: nn.Module, stack_name: str, sublayers: dict[str, Home] | None
) -> tuple[Unit, ...]:
    depth = len(stack_name.split("."))
    adapter_prefix = getattr(getattr(model, "base_model", None), "prefix", None)
    embedding = input_embedding(model)
    embeddings = set() if embedding is None else {id(p) for p in embedding.parameters()}
    homes: dict[str, tuple[UnitKind, int | None]] = {}
    parameters: dict[str, tuple[dict, dict]] = {}
    members: dict[str, dict[str, None]] = {}  # ordered sets
    for raw_name, parameter in model.named_parameters():
        name = canonical_name(raw_name)
        parts = name.split(".")
        if parts[:depth] == stack_name.split("."):
            block = int(parts[depth])
            child = ".".join(parts[: depth + 2])
            if sublayers is None:
                unit, kind = ".".join(parts[: depth + 1]), "block"
            else:
                # A parameter that hangs on the block itself goes with the block's last sublayer.
                last = [home for home in sublayers.values() if home[2] == block][-1]
                unit, kind, _ = sublayers.get(child, last)
        else:
            unit, block = _outer_unit(parts), None
            child = unit
            kind = "embedding" if id(parameter) in embeddings else _outer_kind(unit)
        homes.setdefault(unit, (kind, block))
        is_adapter = "modules_to_save" in parts or (
            isinstance(adapter_prefix, str) and any(p.startswith(adapter_prefix) for p in parts)
        )
        parameters.setdefault(unit, ({}, {}))[is_adapter][name] = parameter
        members.setdefault(unit, {})[child] = None
    return tuple(
        Unit(
            UnitInfo(
                unit,
                kind,
                block,
                sum(p.numel() for p in parameters[unit][0].values()),
                tuple(members[unit]),
            ),
            *parameters[unit],
        )
        for unit, (kind, block) in homes.items()
    )


def _outer_unit(parts: list[str]) -> str:
    """Name of the module that holds a parameter outside the stack, adapters left out."""
    kept = []
    for part in parts[:-1]:
        if part == "modules_to_save" or part.startswith("lora_"):
            break
        kept.append(part)
    return ".".join(kept) or parts[0]


def _outer_kind(unit: str) -> UnitKind:
    last = unit.split(".")[-1].lower()
    if "norm" in last or last.startswith("ln"):
        return "norm"
    return "head" if "head" in last or "embed_out" in last or "output" in last else "embedding"
