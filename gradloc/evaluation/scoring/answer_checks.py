"""Whether the answers of a probe can be told apart."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from gradloc.data.probes import Probe
from gradloc.data.probes.parsing import first_problems
from gradloc.errors import ProbeError
from gradloc.evaluation.scoring.items import probe_span


def distinguishable(
    tokenizer: Any, probes: Sequence[Probe], action: str = "refuse"
) -> tuple[Probe, ...]:
    """The probes whose answers can be told apart.

    Two candidates, or an old and a new answer, cannot be told apart where they are the same
    tokens. Where one begins with the other, the shorter is never less likely as a whole, and what
    the model writes may be either.

    Args:
        tokenizer: A fast tokenizer.
        probes: The probes.
        action: What to do with the others: ``refuse`` all, ``leave_out`` them, or ``keep`` them.

    Raises:
        ProbeError: There are such probes and ``action`` is ``refuse``; all are named.
    """
    if action == "keep":
        return tuple(probes)
    problems = {probe.id: _problem(tokenizer, probe) for probe in probes}
    found = [f"probe {name!r}: {problem}" for name, problem in problems.items() if problem]
    if found and action == "refuse":
        cure = "change them, or set 'ambiguous: leave_out' (or 'keep') in the suite"
        raise ProbeError(f"answers that cannot be told apart ({cure})", first_problems(found))
    return tuple(probe for probe in probes if not problems[probe.id])


def _problem(tokenizer: Any, probe: Probe) -> str:
    """What is wrong with the first two answers that cannot be told apart, or nothing."""
    pairs = [*combinations(probe.candidates, 2)]
    pairs += [(new, old) for new in probe.targets for old in probe.old_targets]
    if not pairs:
        return ""
    ids = {
        answer: probe_span(tokenizer, probe, answer).input_ids
        for answer in {answer for pair in pairs for answer in pair}
    }
    for one, other in pairs:
        short, long = sorted((ids[one], ids[other]), key=len)
        if one == other or short == long:
            return f"{one!r} and {other!r} are the same tokens"
        if long[: len(short)] == short:
            begins, goes_on = (one, other) if ids[one] == short else (other, one)
            return f"{goes_on!r} begins with {begins!r}"
    return ""
