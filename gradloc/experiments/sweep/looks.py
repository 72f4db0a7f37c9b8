"""How arms look on the page of a sweep.

A handful of colors can be told apart, so a rule says who gets one: of the arms that are no controls
those with the lowest ratios to the line, median over corpora and measures. The colors are dealt in
the order of the record, so that a change of rank repaints as little as it can. The line is gray and
dashed; controls and the rest are gray and thin.
"""

from statistics import median

from gradloc.experiments.sweep.frontier_values import ArmFrontier, Frontier
from gradloc.report.formatting import THIN
from gradloc.report.style import SHAPES, ArmStyle

# Colors that can be told apart: of the report's two blues one, and the color of the text.
COLORS = ("arm-0", "arm-1", "arm-2", "arm-3", "arm-4", "ink")
N_STRONG = len(COLORS)
# Policies that say what a selection is worth: chance, depth alone, the opposite.
CONTROLS = ("random_k", "last_third_mlp", "top_k", "bottom_k", "inverse", "none")
RANKED_AT = 0.75  # share of the line's best uptake
_QUIET = "var(--muted)"


def arm_looks(frontier: Frontier) -> dict[str, ArmStyle]:
    """Arm -> its look, in the order in which the arms first appear."""
    names = arm_names(frontier)
    strong = strong_arms(frontier)
    shapes = [shape for shape in SHAPES if shape != "square"]
    looks = {}
    for name in names:
        if name == frontier.line:
            looks[name] = ArmStyle(name, "var(--reference)", "square", (5, 4), True)
        elif name in strong:
            place = strong.index(name)
            looks[name] = ArmStyle(
                name, f"var(--{COLORS[place]})", shapes[place % len(shapes)], (1, 0), False
            )
        else:
            looks[name] = ArmStyle(name, _QUIET, "circle", (1, 0), False)
    return looks


def share_text(share: float) -> str:
    """A round share as a percentage: ``75 %``."""
    return f"{100 * share:g}{THIN}%"


def is_background(style: ArmStyle) -> bool:
    """Whether the arm is drawn as background."""
    return style.color == _QUIET


def arm_names(frontier: Frontier) -> list[str]:
    """Every arm of any corpus, the line first."""
    names = dict.fromkeys(name for corpus in frontier.corpora.values() for name in corpus.arms)
    return sorted(names, key=lambda name: name != frontier.line)


def strong_arms(frontier: Frontier) -> list[str]:
    """Arms with a color of their own, in the order of the record."""
    rank = {}
    for name in arm_names(frontier):
        found = [c.arms[name] for c in frontier.corpora.values() if name in c.arms]
        if name == frontier.line or any(is_control(arm) for arm in found):
            continue
        rank[name] = _typical_ratio(found)
    best = sorted(rank, key=rank.get)[:N_STRONG]
    return [name for name in rank if name in best]


def is_control(arm: ArmFrontier) -> bool:
    """A selection that stands for chance or habit, without a method of its own."""
    return arm.policy in CONTROLS and not arm.methods


def _typical_ratio(found: list[ArmFrontier]) -> float:
    """Median ratio to the line; an arm without any ranks last."""
    ratios = [
        at.ratio.value
        for arm in found
        for comparison in arm.forgetting.values()
        for at in comparison.at_uptake
        if at.share == RANKED_AT and at.ratio.value is not None
    ]
    return median(ratios) if ratios else float("inf")
