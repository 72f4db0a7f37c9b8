"""Colors, signs and fonts of pages and pictures.

Pictures name colors by CSS variable (``var(--ink)``), which the browser resolves inside the SVG:
dark mode and print need no second drawing.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
N_LEVELS = 9
N_COLORS = 6
# Shades of a gain or loss on each side of zero.
N_SHADES = 6

# Series colors are those of Okabe and Ito (2008), told apart by color-blind readers; yellow is
# left out (too pale on white), and dark mode lightens the darker ones.
_LIGHT = {
    "paper": "#ffffff", "panel": "#f6f7f8", "ink": "#1a1e23", "muted": "#5a646e",
    "line": "#dfe3e7", "accent": "#0072b2", "good": "#00704f", "bad": "#b04500",
    "unclear": "#6b5300", "good-soft": "#e6f4ef", "bad-soft": "#fceee4",
    "unclear-soft": "#fbf4dc",
    "arm-0": "#0072b2", "arm-1": "#d55e00", "arm-2": "#009e73", "arm-3": "#b8578f",
    "arm-4": "#c98a00", "arm-5": "#2f97cf",
    "reference": "#6f7882", "missing": "#f0f1f3", "dot": "#ffffff", "dot-edge": "#1a1e23",
    "level-0": "#e4edf4", "level-1": "#d5e4ef", "level-2": "#c0d8e8", "level-3": "#a8cae0",
    "level-4": "#84b5d4", "level-5": "#5c9cc6", "level-6": "#3581b3", "level-7": "#15669a",
    "level-8": "#064b78",
}  # fmt: skip
_DARK = {
    "paper": "#14171a", "panel": "#1c2024", "ink": "#e9ecef", "muted": "#a0aab4",
    "line": "#323940", "accent": "#62b8ec", "good": "#4fcfa4", "bad": "#ff9a5c",
    "unclear": "#e8c65a", "good-soft": "#12302a", "bad-soft": "#3a2417",
    "unclear-soft": "#33290f",
    "arm-0": "#62b8ec", "arm-1": "#ff8a3d", "arm-2": "#2fc79a", "arm-3": "#e08fbd",
    "arm-4": "#f0b429", "arm-5": "#9fb7ff",
    "reference": "#a3acb5", "missing": "#23282d", "dot": "#14171a", "dot-edge": "#ffffff",
    "level-0": "#222c34", "level-1": "#1f3646", "level-2": "#1a425b", "level-3": "#185374",
    "level-4": "#1b688f", "level-5": "#2b80ab", "level-6": "#4a9bc6", "level-7": "#77b9de",
    "level-8": "#b3dcf5",
}  # fmt: skip

LEVELS = tuple(f"var(--level-{i})" for i in range(N_LEVELS))
# From the paper to blue for gains and to orange for losses. The strongest keep a third of the
# paper, so that numbers stay readable on them.
_SHADES = {
    f"shade-{i}": (0 if i > 0 else 1, round(66 * abs(i) / N_SHADES))
    for i in range(-N_SHADES, N_SHADES + 1)
}
SHADES = tuple(f"var(--{name})" for name in _SHADES)

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

CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": FONT,
    "aria": False,  # the box around the picture carries one description for all of it
    "view": {"stroke": None},
    "axis": {
        "domainColor": "var(--line)", "gridColor": "var(--line)", "gridOpacity": 0.7,
        "tickColor": "var(--line)", "labelColor": "var(--muted)", "titleColor": "var(--muted)",
        "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal",
        "labelPadding": 6, "titlePadding": 10, "ticks": False,
    },
    "legend": {
        "labelColor": "var(--ink)", "labelFontSize": 12, "labelLimit": 125,
        "titleColor": "var(--muted)", "titleFontWeight": "normal", "symbolStrokeWidth": 2,
        "columnPadding": 18, "rowPadding": 3, "offset": 10,
    },
}  # fmt: skip


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


def css_variables(dark: bool) -> str:
    """The colors as CSS declarations."""
    colors = _DARK if dark else _LIGHT
    mixed = {
        name: f"color-mix(in srgb, var(--arm-{arm}) {share}%, var(--panel))"
        for name, (arm, share) in _SHADES.items()
    }
    return "".join(f"--{key}:{value};" for key, value in (colors | mixed).items())


def resolve(text: str) -> str:
    """Replace CSS variables by the light colors, for pictures outside the page."""
    mixed = {name: _mix(_LIGHT[f"arm-{arm}"], share) for name, (arm, share) in _SHADES.items()}
    colors = _LIGHT | mixed
    return re.sub(r"var\(--([a-z0-9-]+)\)", lambda match: colors[match[1]], text)


def _mix(color: str, share: int) -> str:
    """A color over the panel, its share in percent."""
    channels = (
        round(
            (
                int(color[i : i + 2], 16) * share
                + int(_LIGHT["panel"][i : i + 2], 16) * (100 - share)
            )
            / 100
        )
        for i in (1, 3, 5)
    )
    return "#" + "".join(f"{channel:02x}" for channel in channels)
