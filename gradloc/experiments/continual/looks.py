"""How arms look in the pictures of continual training."""

from gradloc.experiments.continual.continual_figures import ContinualFigures
from gradloc.report.style import SHAPES, ArmStyle

# The name of the model before any stage.
BEFORE = "before"
# The policy that trains everything; without a method it is what the others are compared with.
FULL_POLICY = "all"
_DASHES = ((5, 4), (2, 3), (8, 3, 2, 3))
_FULL_SHAPES = ("square", "cross")


def arm_looks(figures: ContinualFigures) -> dict[str, ArmStyle]:
    """Arm -> its look; ordinary full training is gray and dashed."""
    full = [n for n, arm in figures.arms.items() if arm.policy == FULL_POLICY and not arm.methods]
    others = [name for name in figures.arms if name not in full]
    shapes = [shape for shape in SHAPES if shape not in _FULL_SHAPES]
    looks = {
        name: ArmStyle(
            name, "var(--reference)", _FULL_SHAPES[i % 2], _DASHES[i % len(_DASHES)], True
        )
        for i, name in enumerate(full)
    }
    for i, name in enumerate(others):
        # Where a color comes again, from the seventh arm on, it has another sign.
        shape = shapes[(i + i // 6) % len(shapes)]
        looks[name] = ArmStyle(name, f"var(--arm-{i % 6})", shape, (1, 0), False)
    return {name: looks[name] for name in figures.arms}
