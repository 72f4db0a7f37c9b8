"""Colors, signs and fonts of the page and its pictures.

Comes in: the arms of a run. Goes out: CSS variables for light and dark, one look for each arm,
and the Vega-Lite configuration. Pictures name colors by CSS variable (``var(--ink)``), which the
browser resolves inside the SVG: dark mode and print then need no second drawing.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

from gradloc.evaluation.results import EvalResult
from gradloc.report.series import checkpoint_series

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
N_LEVELS = 9

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

# Outlines in a 16 x 16 box, for the legends; Vega draws the same shapes by name.
SHAPES = {
    "circle": "M8 3a5 5 0 1 0 0 10a5 5 0 1 0 0-10z",
    "square": "M3.5 3.5h9v9h-9z",
    "diamond": "M8 2l5 6l-5 6l-5-6z",
    "triangle-up": "M8 3l5.5 10h-11z",
    "triangle-down": "M8 13l5.5-10h-11z",
    "cross": "M6.2 3h3.6v3.2h3.2v3.6h-3.2v3.2h-3.6v-3.2h-3.2v-3.6h3.2z",
}
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
}  # fmt: skip


@dataclass(frozen=True)
class ArmStyle:
    """How an arm looks in every table and picture.

    Args:
        name: The arm.
        color: A CSS color.
        shape: Key of ``SHAPES``.
        dash: Stroke dash pattern of its lines.
        is_reference: Whether it belongs to the line of full training.
    """

    name: str
    color: str
    shape: str
    dash: tuple[int, ...]
    is_reference: bool

    @property
    def outline(self) -> str:
        """SVG path of its sign in a 16 x 16 box."""
        return SHAPES[self.shape]

    @property
    def dash_text(self) -> str:
        """Its dash pattern as SVG writes it."""
        return " ".join(map(str, self.dash))


def arm_styles(results: EvalResult, main: str | None) -> dict[str, ArmStyle]:
    """Give each arm a look; reference arms are gray squares, the main arm has the accent color.

    The checkpoints of one training run look alike: what tells them apart is their step.
    """
    last = {name: names[-1] for names in checkpoint_series(results).values() for name in names[:-1]}
    leading = [name for name in results.arms if name not in last]
    references = [name for name in leading if name in results.reference_arms]
    others = [name for name in leading if name not in results.reference_arms]
    if main in others:
        others = [main, *(name for name in others if name != main)]
    styles = {}
    for i, name in enumerate(references):
        styles[name] = ArmStyle(name, "var(--reference)", "square", _DASHES[i % len(_DASHES)], True)
    shapes = [shape for shape in SHAPES if shape not in ("circle", "square")]
    for i, name in enumerate(others):
        shape = "circle" if name == main else shapes[i % len(shapes)]
        styles[name] = ArmStyle(
            name, f"var(--arm-{i % 6})", shape, _DASHES[(i // 6) % len(_DASHES)], False
        )
    for name, of_run in last.items():
        styles[name] = replace(styles[of_run], name=name)
    return {name: styles[name] for name in results.arms}


def css_variables(dark: bool) -> str:
    """The colors as CSS declarations."""
    return "".join(f"--{key}:{value};" for key, value in (_DARK if dark else _LIGHT).items())


def resolve(text: str) -> str:
    """Replace CSS variables by the light colors, for pictures outside the page."""
    return re.sub(r"var\(--([a-z0-9-]+)\)", lambda match: _LIGHT[match[1]], text)
