"""Colors and signs of pages and pictures, by name.

The colors themselves are variables of ``templates/page.css`` (``var(--ink)``).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

N_COLORS = 6
# Colors of a map: of a quantity from low to high, and of a change with zero in the middle.
LEVELS = tuple(f"var(--level-{i})" for i in range(9))
SHADES = tuple(f"var(--shade-{i})" for i in range(13))

# Outlines in a 16 x 16 box, for the legends; Vega draws the same shapes by name.
SHAPES = {
    "circle": "M8 3a5 5 0 1 0 0 10a5 5 0 1 0 0-10z",
    "square": "M3.5 3.5h9v9h-9z",
    "diamond": "M8 2l5 6l-5 6l-5-6z",
    "triangle-up": "M8 3l5.5 10h-11z",
    "triangle-down": "M8 13l5.5-10h-11z",
    "triangle-right": "M3.5 2.5l10 5.5l-10 5.5z",
    "cross": "M6.2 3h3.6v3.2h3.2v3.6h-3.2v3.2h-3.6v-3.2h-3.2v-3.6h3.2z",
}
_REFERENCE_SHAPES = ("square", "cross", "triangle-right")
_REFERENCE_DASHES = ((5, 4), (2, 3), (8, 3, 2, 3))
_DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3), (4, 2), (1, 3))


@dataclass(frozen=True)
class ArmStyle:
    """How an arm looks in every table and picture.

    Args:
        name: The arm.
        color: A CSS color.
        shape: Key of ``SHAPES``.
        dash: Stroke dash pattern of its lines.
        is_reference: Whether it belongs to full training.
        is_quiet: Whether it stays in the background.
    """

    name: str
    color: str
    shape: str = "circle"
    dash: tuple[int, ...] = (1, 0)
    is_reference: bool = False
    is_quiet: bool = False

    @property
    def outline(self) -> str:
        """SVG path of its sign in a 16 x 16 box."""
        return SHAPES[self.shape]


def assign_styles(
    names: Sequence[str],
    *,
    references: Collection[str] = (),
    main: str | None = None,
    quiet: Collection[str] = (),
) -> dict[str, ArmStyle]:
    """Give each arm a look.

    Args:
        names: The arms, in the order of the result.
        references: Arms of full training: gray with dashed lines, the first a square.
        main: The arm with the accent color.
        quiet: Arms that stay in the background: gray, small and thin.
    """
    gray = [name for name in names if name in references]
    colored = [name for name in names if name not in references and name not in quiet]
    if main in colored:
        colored = [main, *(name for name in colored if name != main)]
    styles = {
        name: ArmStyle(name, "var(--muted)", "circle", (1, 0), is_quiet=True) for name in quiet
    }
    for i, name in enumerate(gray):
        dash = _REFERENCE_DASHES[i % len(_REFERENCE_DASHES)]
        shape = _REFERENCE_SHAPES[i % len(_REFERENCE_SHAPES)]
        styles[name] = ArmStyle(name, "var(--reference)", shape, dash, is_reference=True)
    shapes = [shape for shape in SHAPES if shape not in _REFERENCE_SHAPES]
    for i, name in enumerate(colored):
        # Where a color comes again, its sign is another one.
        shape = shapes[(i + i // N_COLORS) % len(shapes)]
        dash = _DASHES[(i // N_COLORS) % len(_DASHES)]
        styles[name] = ArmStyle(name, f"var(--arm-{i % N_COLORS})", shape, dash)
    return {name: styles[name] for name in names}
