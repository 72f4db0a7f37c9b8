"""The pictures of "What was learned, what was lost", ready for the template.

Comes in: an ``EvalResult`` and the looks of its arms. Goes out: ``PanelView``: axes, a tally of
each arm, and the same figures as a table. It escapes nothing: the template does.
"""

from dataclasses import dataclass

from gradloc.evaluation.results import EvalResult
from gradloc.report import forest
from gradloc.report.changes import Kinds, Panel, Row, change_panels
from gradloc.report.formatting import by_unit, interval, metric_label, unit_name
from gradloc.report.metric_names import TEXT
from gradloc.report.series import leading_arms
from gradloc.report.style import ArmStyle

# Lines of one row: with more arms than that nobody tells them apart.
MAX_ARMS = 8
# With more arms a word at each mark would be a wall of text; the signs stay.
_WORDED_ARMS = 2
# From so many intervals on one of them misses by chance.
_MANY = 20

_TITLES = {
    "learned": ("Learned", "gained over the base model on what is new"),
    "lost": ("Lost", "lost of what the base model had"),
    "higher": ("Higher is better", "each checkpoint’s own score"),
    "lower": ("Lower is better", "each checkpoint’s own score"),
}
_EMPTY = {
    "learned": "Nothing in this suite asks for new or updated facts.",
    "lost": "Nothing in this suite asks for what the base model had.",
}
# The figures of "lost" are losses: a gain is a negative number there, so it is called better.
_STATES = {
    "learned": {"better": "gained", "worse": "lost", "unclear": "no clear change"},
    "lost": {"better": "better", "worse": "lost", "unclear": "no clear change"},
}


@dataclass(frozen=True)
class Tally:
    """How many measures of a panel an arm changed clearly: state, sign, number and word."""

    style: ArmStyle
    counts: tuple[tuple[str, str, int, str], ...]


@dataclass(frozen=True)
class KindsView:
    """The kinds of one set, as axes; none where they are too many to be drawn."""

    label: str
    n_kinds: int
    axes: list[forest.Axis]


@dataclass(frozen=True)
class PanelView:
    """One panel.

    Args:
        key: As ``Panel``.
        title: Its heading.
        lead: What its figures are.
        empty: Words where there is nothing to draw.
        good: Side on which better lies: ``right`` or ``left``.
        is_change: Whether zero is the base model.
        states: State -> word beside the sign; empty where signs alone are shown.
        line: Height of an arm's line in pixels.
        n_arms: Lines of each row.
        axes: What is seen at once.
        more: What is behind a click.
        n_more: How many measures that is.
        kinds: By kind.
        tallies: One an arm.
        notes: What the evaluation said of its figures.
        columns: Heads of the table.
        rows: Its rows.
    """

    key: str
    title: str
    lead: str
    empty: str
    good: str
    is_change: bool
    states: dict[str, str]
    line: int
    n_arms: int
    axes: list[forest.Axis]
    more: list[forest.Axis]
    n_more: int
    kinds: list[KindsView]
    tallies: list[Tally]
    notes: list[str]
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]

    @property
    def way(self) -> str:
        """Where better lies, in words."""
        return "better →" if self.good == "right" else "← better"


def panel_views(results: EvalResult, styles: dict[str, ArmStyle], main: str) -> list[PanelView]:
    """Both panels, with the same arms in the same order."""
    arms = drawn_arms(results, main)
    return [_view(panel, styles, arms) for panel in change_panels(results)]


def drawn_arms(results: EvalResult, main: str) -> list[str]:
    """The arms that the panels have room for: the main one, those of full training, then others."""
    leading = leading_arms(results)
    first = [main, *(name for name in leading if name in results.reference_arms)]
    chosen = dict.fromkeys([*(name for name in first if name in leading), *leading])
    kept = set(list(chosen)[:MAX_ARMS])
    return [name for name in leading if name in kept]


def _view(panel: Panel, styles: dict[str, ArmStyle], arms: list[str]) -> PanelView:
    verb = {"learned": "gained", "lost": "lost"}.get(panel.key, "")

    def axes(rows: tuple[Row, ...]) -> list[forest.Axis]:
        return forest.axes(rows, styles, arms, verb=verb)

    title, lead = _TITLES[panel.key]
    n_arms = len(arms)
    return PanelView(
        key=panel.key,
        title=title,
        lead=lead,
        empty="" if panel.rows else _EMPTY.get(panel.key, ""),
        good="right" if panel.higher_is_better else "left",
        is_change=panel.is_change,
        states=_STATES.get(panel.key, {}) if n_arms <= _WORDED_ARMS else {},
        line=18 if n_arms <= _WORDED_ARMS else 15 if n_arms <= 5 else 13,
        n_arms=n_arms,
        axes=axes(panel.rows),
        more=axes(panel.more),
        n_more=len(panel.more),
        kinds=[_kinds_view(kinds, axes(kinds.rows)) for kinds in panel.kinds],
        tallies=_tallies(panel, styles, arms),
        notes=_notes(panel, arms),
        columns=_columns(panel),
        rows=_table(panel, arms),
    )


def _kinds_view(kinds: Kinds, axes: list[forest.Axis]) -> KindsView:
    label = f"{kinds.label}, by {'domain' if kinds.items == TEXT else 'kind'}"
    return KindsView(label[0].upper() + label[1:], kinds.n_kinds, axes)


def _tallies(panel: Panel, styles: dict[str, ArmStyle], arms: list[str]) -> list[Tally]:
    words = _STATES.get(panel.key, {})
    measures = (*panel.rows, *panel.more)
    tallies = []
    for arm in arms:
        states = [forest.state(row.figures.get(arm), panel.is_change) for row in measures]
        counts = [(key, forest.SIGNS[key], states.count(key), word) for key, word in words.items()]
        tallies.append(Tally(styles[arm], tuple(counts)))
    return tallies


def _notes(panel: Panel, arms: list[str]) -> list[str]:
    """What the evaluation noted, each note once with the measures that it is about."""
    about: dict[str, list[str]] = {}
    for row in (*panel.rows, *panel.more):
        for note in dict.fromkeys(row.figures[arm].note for arm in arms if arm in row.figures):
            if note:
                about.setdefault(note, []).append(metric_label(row.key))
    written = [f"{'; '.join(labels)}: {note}." for note, labels in about.items()]
    if panel.is_change and len(panel.rows) + len(panel.more) >= _MANY:
        written.append("Of 95 % intervals one in twenty is expected to miss by chance alone.")
    return written


def _columns(panel: Panel) -> tuple[str, ...]:
    value = {"learned": "Gained", "lost": "Lost"}.get(panel.key, "Score")
    return ("Measure", "Arm", value, "95 % interval", "n", "Unit", "What it shows")


def _table(panel: Panel, arms: list[str]) -> list[tuple[str, ...]]:
    words = _STATES.get(panel.key, {})
    rows = []
    for row in panel.every_row:
        for arm in arms:
            figure = row.figures.get(arm)
            if figure is None:
                continue
            found = forest.state(figure, panel.is_change)
            rows.append((
                metric_label(row.key), arm, by_unit(figure.value, figure.unit),
                interval(figure) or (figure.note if figure.value is None else ""),
                f"{figure.n:,}", unit_name(figure.unit, difference=panel.is_change),
                f"{forest.SIGNS[found]} {words.get(found, '')}".strip(),
            ))  # fmt: skip
    return rows
