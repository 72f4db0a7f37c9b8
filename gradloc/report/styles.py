"""Colors and signs of pages and pictures, by name.

The colors themselves are variables of ``templates/page.css`` (``var(--ink)``).
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

N_COLORS = 6
# Colors of a map: of a quantity from low to high, and of a change with zero in the middle.
LEVELS = tuple(f"var(--level-{i})" for i in range(9))
SHADES = tuple(f"var(--shade-{i})" for i in range(13))

# Vega draws them by name; the page's legends have their outlines.
_SHAPES = ("circle", "diamond", "triangle-up", "triangle-down")
_REFERENCE_SHAPES = ("square", "cross", "triangle-right")
_REFERENCE_DASHES = ((5, 4), (2, 3), (8, 3, 2, 3))
_DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3), (4, 2), (1, 3))


class ArmStyle(NamedTuple):
    """How an arm looks in every table and picture.

    Args:
        name: The arm.
        color: A CSS color.
        shape: Its sign, as Vega names it.
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
    styles = {name: ArmStyle(name, "var(--muted)", is_quiet=True) for name in quiet}
    for i, name in enumerate(gray):
        dash = _REFERENCE_DASHES[i % len(_REFERENCE_DASHES)]
        shape = _REFERENCE_SHAPES[i % len(_REFERENCE_SHAPES)]
        styles[name] = ArmStyle(name, "var(--reference)", shape, dash, is_reference=True)
    for i, name in enumerate(colored):
        # Where a color comes again, its sign is another one.
        shape = _SHAPES[(i + i // N_COLORS) % len(_SHAPES)]
        dash = _DASHES[(i // N_COLORS) % len(_DASHES)]
        styles[name] = ArmStyle(name, f"var(--arm-{i % N_COLORS})", shape, dash)
    return {name: styles[name] for name in names}
