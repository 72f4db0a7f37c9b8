"""One row of a downloaded file, and what is wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gradloc.data.probes.parsing import number_as_text, plain, shown
from gradloc.utils.names import did_you_mean

MASK = "<extra_id_0>"


@dataclass(frozen=True)
class Row:
    """The values of a row, and a list in which its problems gather.

    Args:
        place: Where it stands, as messages say it: ``line 7``.
        number: 1-based number of the row: its line in JSONL, its rank in tables and arrays.
        values: Column -> value.
        problems: What is wrong with it, shared with its inner rows.
        reasons: Why it is left out, if it is; shared with its inner rows.
        within: For an inner row, the way to it: ``portability.Reasoning.``.
    """

    place: str
    number: int
    values: Mapping[str, Any]
    problems: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    within: str = ""

    def complain(self, problem: str) -> None:
        """Note a problem: the file is refused."""
        self.problems.append(f"{self.within}{problem}" if self.within else problem)

    def leave_out(self, reason: str) -> None:
        """Note that the row is sound but cannot become a probe: the others are still read."""
        self.reasons.append(reason)

    def has(self, *columns: str) -> bool:
        """Whether all these columns hold something."""
        return all(self.values.get(column) not in (None, "", [], {}) for column in columns)

    def value(self, *columns: str) -> Any:
        """What stands in the first of the columns that holds something, else ``None``."""
        return next((self.values[column] for column in columns if self.has(column)), None)

    def text(self, *columns: str) -> str:
        """The text in the first of the columns that holds something; empty, and noted, if none."""
        value = number_as_text(self.value(*columns))
        if isinstance(value, str) and value.strip():
            return value
        found = f"{columns[0]}: expected text, found {shown(value)}"
        self.complain(self._missing(columns) if value is None else found)
        return ""

    def texts(self, *columns: str) -> tuple[str, ...]:
        """The texts in the first of the columns that holds something; noted, if none or empty.

        A single text counts as a list of one; lists within lists are laid flat.
        """
        value = self.value(*columns)
        if value is None:
            self.complain(self._missing(columns))
            return ()
        flat = flatten(value)
        if any(not isinstance(item, str) for item in flat):
            self.complain(f"{columns[0]}: expected text or a list of texts, found {shown(value)}")
        elif not all(item.strip() for item in flat):
            self.complain(f"{columns[0]}: holds an empty text")
        else:
            return tuple(flat)
        return ()

    def inner(self, column: str) -> "Row":
        """The mapping in a column, as a row of its own; empty, and noted, if there is none."""
        value = self.value(column)
        if value is None:
            self.complain(self._missing((column,)))
        elif not isinstance(value, Mapping):
            self.complain(f"{column}: expected an object in braces, found {shown(value)}")
        return self.part(column, value if isinstance(value, Mapping) else {})

    def part(self, name: str, values: Mapping[str, Any]) -> "Row":
        """A part of this row that shares its problems."""
        within = f"{self.within}{name}."
        return Row(self.place, self.number, values, self.problems, self.reasons, within)

    def around_gap(self, column: str, gap: str = MASK) -> tuple[str, str]:
        """The text before the gap of a cloze sentence, without blanks at its end, and that after.

        A row whose gap stands first is left out: a model that reads from left to right has
        nothing to go on.
        """
        sentence = self.text(column)
        before, *after = sentence.split(gap)
        if len(after) != 1:
            if sentence:
                self.complain(f"{column}: expected one gap {gap}, found {len(after)}")
            return "", ""
        if not before.strip():
            self.leave_out("the gap stands first, so nothing leads up to the answer")
        return before.rstrip(), after[0]

    def _missing(self, columns: tuple[str, ...]) -> str:
        if any(column in self.values for column in columns):
            named = next(column for column in columns if column in self.values)
            return f"{named}: is empty; every row needs it"
        return f"{' or '.join(columns)}: is missing. {did_you_mean(columns[0], self.values)}"


def flatten(value: Any) -> list[Any]:
    """The items of lists within lists, whole numbers as text; a single value is a list of one."""
    if isinstance(value, list):
        return [item for part in value for item in flatten(part)]
    return [number_as_text(value)]


def outdated(old: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...]:
    """The old answers that are no longer right: those that no new answer repeats.

    Lists of aliases overlap where a fact gained or lost one of several answers.

    Example:
        >>> outdated(("Lyon", "paris"), ("Paris",))
        ('Lyon',)
    """
    right = {plain(text) for text in new}
    return tuple(text for text in old if plain(text) not in right)


def question_prompt(question: str) -> str:
    r"""A question in a form that a model can continue with the answer.

    Example:
        >>> question_prompt("Who wrote Emma?")
        'Question: Who wrote Emma?\nAnswer:'
    """
    text = question.strip()
    text = text if text.startswith("Question:") else f"Question: {text}"
    return text if text.endswith("Answer:") else f"{text}\nAnswer:"
