"""Plans beside each other, for the terminal.

Comes in: a ``Planning``. Goes out: rich renderables that fit into 100 columns. It computes no
cost and prints nothing.
"""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from gradloc.localization.planning.candidates import Candidate, Planning
from gradloc.models.unit_info import UnitInfo


def planning_tables(planning: Planning, title: str) -> list[Table | Text]:
    """The plans as a table, and what stands below it.

    Args:
        planning: What to show.
        title: Name of the profile or model.
    """
    return [_table(planning, title), *_notes(planning)]


def _table(planning: Planning, title: str) -> Table:
    step = planning.step
    loss = "loss at labelled positions" if step.label_loss else "the model's own loss"
    projection = ", steps projected" * step.projected
    if step.kl_tokens:
        projection += f", KL on {step.kl_tokens:.0f} tokens"
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{title}: predicted cost, full training = 1\n[dim]batches of {step.batch_size} × "
        f"{step.sequence_length} tokens, {step.dtype}, {loss}{projection}[/dim]",
        title_justify="left",
        caption_justify="left",
    )
    has_mass = any(row.share is not None for row in planning.candidates)
    table.add_column("plan", no_wrap=True)
    table.add_column("trains")
    heads = ("units", "lowest\nblock", "step\ntime", "prefix\ncached", "memory")
    for head in (*heads, *(["share\nof mass"] if has_mass else [])):
        table.add_column(head, justify="right")
    for is_chosen, names, row in _without_repeats(planning):
        lowest = row.predicted["lowest_block"]
        table.add_row(
            f"{'→' if is_chosen else ' '} " + "\n= ".join(names),
            describe_units(row.plan.units, row.plan.trained),
            str(len(row.plan.trained)),
            "–" if lowest is None else str(lowest),
            _ratio(row.predicted["time_ratio"]),
            _ratio(row.cached_time_ratio),
            _ratio(row.predicted["memory_ratio"]),
            *([_share(row.share)] if has_mass else []),
            style="bold" if is_chosen else None,
        )
    return table


def _without_repeats(planning: Planning) -> list[tuple[bool, list[str], Candidate]]:
    """Whether each row is the chosen one, the names of its plan, and the plan."""
    places: dict[tuple[str, ...], list[int]] = {}
    for place, row in enumerate(planning.candidates):
        places.setdefault(row.plan.trained, []).append(place)
    return [
        (
            planning.chosen in same,
            [planning.candidates[place].name for place in same],
            planning.candidates[same[0]],
        )
        for same in places.values()
    ]


def _notes(planning: Planning) -> list[Text]:
    lines = []
    if island := planning.island:
        units = planning.candidates[planning.chosen].plan.units
        held = island["share_of_mass"]
        lines.append(
            f"Early island ({describe_units(units, island['units'])}): "
            + ("" if held is None else f"buys {held:.0%} of the mass, ")
            + f"costs {island['time_ratio']:.2f} of the step time "
            f"({island['cached_time_ratio']:.2f} with a cached prefix) and "
            f"{island['memory_ratio']:.2f} of the memory."
        )
    for name, added in planning.added.items():
        lines.append(
            f"Training {name} as well: {added['time_ratio']:+.2f} time, "
            f"{added['memory_ratio']:+.2f} memory on the plan marked →"
            + (", and no prefix to cache." if added["lowest_block"] == 0 else ".")
        )
    if planning.kept_share is not None:
        lines.append(
            "Mass: the sum of the scores of the units that the policy trains. It says what a plan "
            "keeps of the policy's choice, not what will be learned."
        )
    elif not any(row.share is not None for row in planning.candidates):
        lines.append("No scores: what a plan buys is known after gradloc measure.")
    lines.append(
        f"Memory: peak above the weights. Rates: {planning.step.machine.origin or 'given'} "
        "(--calibrate times yours)."
    )
    return [
        Text(line, style="dim" if line.startswith(("Mass", "Memory")) else "") for line in lines
    ]


def describe_units(units: Sequence[UnitInfo], names: Sequence[str]) -> str:
    """Units in few words: kinds with ranges of blocks.

    Example:
        >>> units = [UnitInfo(f"{i}.{k}", k, i, 1) for i in range(4) for k in ("attention", "mlp")]
        >>> describe_units(units, ["0.mlp", "2.attention", "2.mlp", "3.attention", "3.mlp"])
        'MLP 0; blocks 2–3'
    """
    chosen = [unit for unit in units if unit.name in set(names)]
    if units and len(chosen) == len(units):
        return "everything"
    everywhere: dict[int, set[str]] = {}
    for unit in units:
        if unit.in_stack:
            everywhere.setdefault(unit.block, set()).add(unit.name)
    taken = {unit.name for unit in chosen}
    whole = [block for block, members in everywhere.items() if members <= taken]
    kinds: dict[str, list[int]] = {}
    for unit in chosen:
        if unit.in_stack and unit.block not in whole:
            kinds.setdefault(unit.kind, []).append(unit.block)
    words = {"mlp": "MLP"}
    parts = [f"{words.get(kind, kind)} {_ranges(blocks)}" for kind, blocks in kinds.items()]
    if whole:
        parts.append(f"block{'s' * (len(whole) > 1)} {_ranges(whole)}")
    parts += [unit.name for unit in chosen if not unit.in_stack]
    return "; ".join(parts) or "nothing"


def _ranges(blocks: Sequence[int]) -> str:
    """Numbers with runs drawn together: ``3–6, 16``."""
    runs: list[list[int]] = []
    for block in sorted(set(blocks)):
        if runs and runs[-1][-1] == block - 1:
            runs[-1].append(block)
        else:
            runs.append([block])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
