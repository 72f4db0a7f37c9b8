"""Conditions under which an evaluation fails, for pipelines."""

import operator
import re
from collections.abc import Iterable
from typing import NamedTuple

from gradloc.errors import GradlocError
from gradloc.evaluation.results import EvalResult, MetricValue
from gradloc.utils.names import did_you_mean

KINDS = ("uptake", "forgetting", "scores", "versus_full")
PARTS = ("value", "low", "high")
_SIGNS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
_CONDITION = re.compile(
    r"\s*(?P<kind>\w+)\.(?P<metric>[\w@-]+)(?:\.(?P<part>\w+))?\s*(?P<sign>[<>]=?)\s*(?P<limit>\S+)\s*"
)
_FORM = 'write it like "forgetting.known_facts > 0.05" or "uptake.new_paraphrase_nll.low < 1"'


class Threshold(NamedTuple):
    """One condition.

    Args:
        text: As the user wrote it.
        kind: ``uptake``, ``forgetting``, ``scores`` or ``versus_full``.
        metric: Name of the metric.
        part: ``value``, or the ``low`` or ``high`` end of its 95 % interval.
        sign: ``>``, ``>=``, ``<`` or ``<=``.
        limit: Number to compare with, in the metric's own unit (fractions from 0 to 1).
    """

    text: str
    kind: str
    metric: str
    part: str
    sign: str
    limit: float

    def caught(self, result: EvalResult) -> list[str]:
        """What the condition is true of, one line an arm; a missing number counts as caught.

        Raises:
            GradlocError: No arm has such a metric.
        """
        having = {name: getattr(arm, self.kind) for name, arm in result.arms.items()}
        if not any(self.metric in figures for figures in having.values()):
            raise GradlocError(
                f"--fail-if {self.text!r}: there is no {self.kind}.{self.metric}. "
                + _hint(self.kind, self.metric, result)
            )
        return [
            line
            for name, figures in having.items()
            if self.metric in figures and (line := self._judge(name, figures[self.metric]))
        ]

    def _judge(self, arm: str, figure: MetricValue) -> str:
        found = getattr(figure, self.part)
        part = "" if self.part == "value" else f".{self.part}"
        name = f"{arm}: {self.kind}.{self.metric}{part}"
        if found is None:
            why = f" ({figure.note})" if figure.note else ""
            return f"{name} has no number{why}, so {self.text!r} cannot be ruled out"
        if _SIGNS[self.sign](found, self.limit):
            return f"{name} is {found:.4g} {figure.unit}, which is {self.sign} {self.limit:g}"
        return ""


def parse_threshold(text: str) -> Threshold:
    """Read a condition.

    Raises:
        GradlocError: It is not of the form ``kind.metric[.low|.high] > number``.

    Example:
        >>> parse_threshold("forgetting.known_facts.low > 0.05").part
        'low'
    """
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise GradlocError(f"--fail-if {text!r} cannot be read; {_FORM}.")
    kind, part = match["kind"], match["part"] or "value"
    for word, known in ((kind, KINDS), (part, PARTS)):
        if word not in known:
            raise GradlocError(
                f"--fail-if {text!r}: {word!r} is unknown. {did_you_mean(word, known)}"
            )
    try:
        limit = float(match["limit"])
    except ValueError:
        raise GradlocError(
            f"--fail-if {text!r}: {match['limit']!r} is no number; {_FORM}."
        ) from None
    return Threshold(text, kind, match["metric"], part, match["sign"], limit)


def require_baseline(thresholds: Iterable[Threshold]) -> None:
    """Refuse, before anything is scored, conditions on what only a comparison gives.

    Raises:
        GradlocError: A condition on anything but ``scores``.
    """
    for threshold in thresholds:
        if threshold.kind != "scores":
            raise GradlocError(
                f"--fail-if {threshold.text!r}: without --baseline there is no {threshold.kind}. "
                "Add --baseline MODEL, or set a condition on scores."
            )


def _hint(kind: str, metric: str, result: EvalResult) -> str:
    """What may have been meant; of the same kind, since a score is no loss."""
    names = dict.fromkeys(name for arm in result.arms.values() for name in getattr(arm, kind))
    if names:
        return did_you_mean(f"{kind}.{metric}", [f"{kind}.{name}" for name in names])
    why = "" if result.baseline else " without --baseline"
    return f"This evaluation{why} has no {kind} at all."
