"""A plan in words, and plans beside each other for the terminal."""

from collections.abc import Sequence

from rich import table as rich_tables
from rich.text import Text

from gradloc.localization.plan import LayerPlan
from gradloc.localization.plan_candidates import Planning
from gradloc.models.unit_info import UnitInfo
from gradloc.report.formatting import is_finite, number, percent, ranges
from gradloc.report.table import Column, Row, Table, make_row, make_table, rich_table

_NONE = "–"


def plan_words(plan: LayerPlan) -> list[tuple[str, str]]:
    """What was chosen, as pairs of a term and its words."""
    words = [("Policy", plan.policy or "a plan written by hand")]
    words += [(key, str(value)) for key, value in plan.options.items()]
    trained = describe_units(plan.units, plan.trained) if plan.units else ", ".join(plan.trained)
    words.append(("Trained", trained or "nothing"))
    words.append(("Units trained", f"{len(plan.trained)} of {len(plan.scale)}"))
    if plan.units:
        words.append(("Parameters trained", percent(plan.trainable_fraction)))
    for key, label in (("time_ratio", "Predicted time"), ("memory_ratio", "Predicted memory")):
        if isinstance(ratio := plan.predicted.get(key), (int, float)):
            words.append((label, f"{number(ratio)} × full training"))
    if (lowest := plan.predicted.get("lowest_block")) is not None:
        words.append(("Backward pass", f"down to block {lowest}"))
    if plan.reliability:
        words.append(("Reliability", reliability_text(plan.reliability.get("split_half"))))
    if warning := plan.reliability.get("warning"):
        words.append(("Warning", warning))
    return words


def reliability_text(split_half: float | None) -> str:
    """The split-half correlation in a plain sentence."""
    if not is_finite(split_half):
        return "The split-half rank correlation was not computed."
    if split_half >= 0.7:
        words = "the two halves rank the units much alike"
    elif split_half >= 0.4:
        words = "the two halves agree only in part"
    else:
        words = "the two halves hardly agree: the ranking is mostly noise"
    return (
        "Each half of the measured sequences gives a ranking of its own. Their rank correlation "
        f"is {number(split_half)} (1 is perfect agreement, 0 none): {words}."
    )


def planning_tables(planning: Planning, title: str) -> list[rich_tables.Table | Text]:
    """The plans as a table that fits into 100 columns, and what stands below it.

    Args:
        planning: What to show.
        title: Name of the profile or model.
    """
    shape = planning.step
    loss = "loss at labelled positions" if shape.label_loss else "the model's own loss"
    parts = [f"batches of {shape.batch_size} × {shape.sequence_length} tokens", shape.dtype, loss]
    parts += ["steps projected"] if shape.projected else []
    parts += [f"KL on {shape.kl_tokens:.0f} tokens"] if shape.kl_tokens else []
    heading = f"{title}: predicted cost, full training = 1\n{', '.join(parts)}"
    return [rich_table(_plan_table(planning), heading), *_notes(planning)]


def _plan_table(planning: Planning) -> Table:
    has_mass = any(row.share is not None for row in planning.candidates)
    heads = ("units", ""), ("block", "lowest"), ("time", "step"), ("time", "cached"), ("memory", "")
    heads += (("mass", "share of"),) if has_mass else ()
    columns = [Column("plan"), Column("trains", is_text=True), *(Column(*head) for head in heads)]
    # Candidates that train the same units share a row.
    rows: dict[tuple[str, ...], list[int]] = {}
    for place, row in enumerate(planning.candidates):
        rows.setdefault(row.plan.trained, []).append(place)
    return make_table(columns, [_plan_row(planning, same, has_mass) for same in rows.values()])


def _plan_row(planning: Planning, same: list[int], has_mass: bool) -> Row:
    row, is_chosen = planning.candidates[same[0]], planning.chosen in same
    lowest = row.predicted.get("lowest_block")
    cells = [
        f"{'→' if is_chosen else ' '} " + "\n= ".join(planning.candidates[i].name for i in same),
        describe_units(row.plan.units, row.plan.trained),
        str(len(row.plan.trained)),
        _NONE if lowest is None else str(lowest),
        _ratio(row.predicted.get("time_ratio")),
        _ratio(row.cached_time_ratio),
        _ratio(row.predicted.get("memory_ratio")),
    ]
    if has_mass:
        cells.append(_NONE if row.share is None else f"{row.share:.0%}")
    return make_row(cells, is_main=is_chosen)


def _notes(planning: Planning) -> list[Text]:
    lines = []
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
        if unit.block is not None:
            everywhere.setdefault(unit.block, set()).add(unit.name)
    taken = {unit.name for unit in chosen}
    whole = [block for block, members in everywhere.items() if members <= taken]
    kinds: dict[str, set[int]] = {}
    for unit in chosen:
        if unit.block is not None and unit.block not in whole:
            kinds.setdefault(unit.kind, set()).add(unit.block)
    words = {"mlp": "MLP"}
    parts = [f"{words.get(kind, kind)} {ranges(list(blocks))}" for kind, blocks in kinds.items()]
    if whole:
        parts.append(f"block{'s' * (len(whole) > 1)} {ranges(whole)}")
    parts += [unit.name for unit in chosen if not unit.in_stack]
    return "; ".join(parts) or "nothing"


def _ratio(value: float | None) -> str:
    return _NONE if value is None else f"{value:.2f}"
