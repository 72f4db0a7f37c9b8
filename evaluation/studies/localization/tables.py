"""The analysis as tables for the terminal, and in sentences."""

import math

from rich import box
from rich.table import Table
from rich.text import Text

from gradloc.report.formatting import MISSING, number, percent, ranges, span
from localization.analysis import LocalizationAnalysis
from localization.figures import VARIANTS, Contrast, DepthProfile

SHORT = {"norm": "norm", "rgn": "RGN", "rgn_matched": "RGN, matched", "rgn_whole": "RGN, whole"}
GROUPS = {
    "new": "new", "updated": "updated", "invariant": "known", "missed": "old, not known",
    "text": "text",
}  # fmt: skip

FACT_COLUMNS = ("Facts", "Probes", "Entities", "Answer, tokens", "Sequence, tokens",
                "NLL, nats per token", "Right")  # fmt: skip
PROFILE_COLUMNS = ("Facts", "Measure", "Max ÷ mean", "Split-half ρ", "95 % interval",
                   "Highest units")  # fmt: skip
CONTRAST_COLUMNS = ("Compared", "Measure", "Mean factor", "95 % interval", "Units above",
                    "Units below", "Above their mean", "Below their mean",
                    "Units above their mean")  # fmt: skip


def answer(analysis: LocalizationAnalysis) -> list[str]:
    """The paper's claim, answered: where each group lies above known facts."""
    n = len(analysis.units)
    lines = []
    for group in ("updated", "new"):
        if group not in analysis.facts:
            continue
        text = analysis.contrast(group, "text")
        matched = analysis.contrast(group, "text", "rgn_matched")
        lines.append(
            f"The gradient norm of {group} facts is higher than that of ordinary text in "
            f"{int(text.above.sum())} of {n} units, and than that of random spans of text as long "
            f"as the answers in {int(matched.above.sum())}."
        )
        level = analysis.contrast(group)
        shape = analysis.contrast(group, centred=True)
        lines.append(
            f"RGN is higher for {group} than for known facts in {int(level.above.sum())} of {n} "
            f"units and lower in {int(level.below.sum())}; on average by a factor of "
            f"{number(math.exp(level.mean))}. Beyond that common factor it is higher in "
            f"{int(shape.above.sum())} and lower in {int(shape.below.sum())}."
        )
        if "missed" in analysis.facts:
            control = analysis.contrast(group, "missed")
            lines.append(
                f"Against old facts that the model does not know, RGN of {group} facts is higher "
                f"in {int(control.above.sum())} and lower in {int(control.below.sum())}."
            )
    return lines


def fact_rows(analysis: LocalizationAnalysis) -> list[tuple[str, ...]]:
    """What each group consists of."""
    return [
        (
            GROUPS[name],
            str(found.n),
            str(found.n_entities),
            number(found.answer_tokens, 2),
            number(found.sequence_tokens, 2),
            number(found.nll),
            percent(found.right),
        )
        for name, found in analysis.facts.items()
    ]


def profile_rows(analysis: LocalizationAnalysis) -> list[tuple[str, ...]]:
    """Every group's profiles: how flat, how far they can be trusted, where they are highest."""
    return [
        (GROUPS[group], SHORT[variant], *_profile(analysis, found))
        for group, variants in analysis.figures.profiles.items()
        for variant, found in variants.items()
    ]


def contrast_rows(analysis: LocalizationAnalysis) -> list[tuple[str, ...]]:
    """Every contrast: level over all units, then the shape that is left."""
    rows = []
    for level in analysis.figures.contrasts:
        if level.centred:
            continue
        shape = analysis.contrast(level.group, level.control, level.variant, centred=True)
        ends = MISSING
        if level.mean_low is not None and level.mean_high is not None:
            ends = span(math.exp(level.mean_low), math.exp(level.mean_high))
        rows.append(
            (
                f"{GROUPS[level.group]} / {GROUPS[level.control]}",
                SHORT[level.variant],
                number(math.exp(level.mean)),
                ends,
                *(str(int(mark.sum())) for mark in (level.above, level.below)),
                *(str(int(mark.sum())) for mark in (shape.above, shape.below)),
                units_in_words(analysis, shape) or MISSING,
            )
        )
    return rows


def localization_tables(analysis: LocalizationAnalysis) -> list[Table | Text]:
    """What the terminal shows: groups, profiles, contrasts, and the answer."""
    n = len(analysis.units)
    return [
        _table("groups of facts", FACT_COLUMNS, fact_rows(analysis), None),
        _table(
            f"profiles over {n} units",
            PROFILE_COLUMNS,
            profile_rows(analysis),
            "; ".join(f"{SHORT[key]}: {text}" for key, text in VARIANTS.items()),
        ),
        _table(
            f"differences, unit by unit, of {n}",
            CONTRAST_COLUMNS,
            contrast_rows(analysis),
            "above, below: 95 % intervals that hold for all units at once exclude no difference; "
            "their mean: the mean factor over all units",
        ),
        *(Text(line, style="bold") for line in answer(analysis)),
    ]


def units_in_words(analysis: LocalizationAnalysis, contrast: Contrast) -> str:
    """The units above, by kind: ``mlp 3–6, attention 20``."""
    found: dict[str, list[int]] = {}
    for unit, is_above in zip(analysis.units, contrast.above, strict=True):
        if is_above:
            found.setdefault(unit.kind, []).append(unit.block)
    return ", ".join(f"{kind} {ranges(blocks)}" for kind, blocks in sorted(found.items()))


def _profile(analysis: LocalizationAnalysis, found: DepthProfile) -> tuple[str, ...]:
    best = sorted(range(len(found.values)), key=lambda place: -found.values[place])[:4]
    named = [f"{analysis.units[place].kind} {analysis.units[place].block}" for place in best]
    has_ends = found.low is not None and found.high is not None
    return (
        number(found.max_over_mean),
        number(found.split_half, 2),
        span(found.low, found.high) if has_ends else MISSING,
        ", ".join(named),
    )


def _table(title: str, columns: tuple[str, ...], rows: list[tuple], caption: str | None) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title, caption=caption, title_justify="left")
    for column in columns:
        is_text = column in ("Facts", "Measure", "Compared") or column.startswith("Units above t")
        table.add_column(column, justify="left" if is_text or "Highest" in column else "right")
    for row in rows:
        table.add_row(*row)
    return table
