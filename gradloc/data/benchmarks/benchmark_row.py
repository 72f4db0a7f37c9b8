"""One row of a downloaded file, and what is wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gradloc.data.probes.parsing import number_as_text, plain, shown
from gradloc.utils.names import did_you_mean

MASK = "<extra_id_0>"


@dataclass(frozen=True)
class Row:
    """The values of a row, and lists in which its problems gather; its parts share them.

    Args:
        place: Where it stands, as messages say it: ``line 7``.
        number: 1-based number of the row: its line in JSONL, its rank in tables and arrays.
        values: Column -> value.
        problems: What is wrong with it: the file is refused.
        reasons: Why it is sound but cannot become a probe: the others are still read.
        within: For a part of a row, the way to it: ``portability.Reasoning.``.
    """

    place: str
    number: int
    values: Mapping[str, Any]
    problems: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    within: str = ""

    def complain(self, problem: str) -> None:
        """Note a problem, once."""
        if self.within + problem not in self.problems:
            self.problems.append(self.within + problem)

    def has(self, column: str) -> bool:
        """Whether a column holds something."""
        return self.values.get(column) not in (None, "", [], {})

    def value(self, *columns: str) -> Any:
        """What stands in the first of the columns that holds something, else ``None``."""
        return next((self.values[column] for column in columns if self.has(column)), None)

    def text(self, *columns: str) -> str:
        """The text in the first of the columns that holds something; empty, and noted, if none."""
        value = number_as_text(self._needed(columns))
        if isinstance(value, str) and value.strip():
            return value
        if value is not None:
            self.complain(f"{columns[0]}: expected text, found {shown(value)}")
        return ""

    def texts(self, *columns: str) -> tuple[str, ...]:
        """The texts in the first of the columns that holds something; noted, if none or empty.

        A single text counts as a list of one; lists within lists are laid flat.
        """
        value = self._needed(columns)
        flat = [] if value is None else flatten(value)
        if any(not isinstance(item, str) for item in flat):
            self.complain(f"{columns[0]}: expected text or a list of texts, found {shown(value)}")
        elif not all(item.strip() for item in flat):
            self.complain(f"{columns[0]}: holds an empty text")
        else:
            return tuple(flat)
        return ()

    def inner(self, column: str) -> "Row":
        """The mapping in a column, as a part of this row; empty, and noted, if there is none."""
        value = self._needed((column,))
        if value is not None and not isinstance(value, Mapping):
            self.complain(f"{column}: expected an object in braces, found {shown(value)}")
        return self.part(column, value if isinstance(value, Mapping) else {})

    def part(self, name: str, values: Mapping[str, Any]) -> "Row":
        """A part of this row."""
        return replace(self, values=values, within=f"{self.within}{name}.")

    def around_gap(self, *columns: str, gap: str = MASK) -> dict[str, str]:
        """``prompt`` and ``suffix``: what stands before and after the gap of a cloze sentence.

        A row whose gap stands first is left out: a model that reads from left to right has
        nothing to go on.
        """
        sentence = self.text(*columns)
        before, *after = sentence.split(gap)
        if len(after) != 1:
            if sentence:
                column = next(column for column in columns if self.has(column))
                self.complain(f"{column}: expected one gap {gap}, found {len(after)}")
            return {}
        if not before.strip():
            self.reasons.append("the gap stands first, so nothing leads up to the answer")
        return {"prompt": before.rstrip(), "suffix": after[0]}

    def _needed(self, columns: tuple[str, ...]) -> Any:
        """The value, whose absence is a problem."""
        value = self.value(*columns)
        empty = next((column for column in columns if column in self.values), "")
        if value is None and empty:
            self.complain(f"{empty}: is empty; every row needs it")
        elif value is None:
            hint = did_you_mean(columns[0], self.values)
            self.complain(f"{' or '.join(columns)}: is missing. {hint}")
        return value


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
