"""Times and memory as ratios to full training.

Comes in: steps and MiB as measured. Goes out: ratios with intervals. It measures nothing.

Within a run the median of the steps is taken, so that a step during which the machine did
something else does not count. Ratios are formed within a rotation. Their value is the geometric
mean over rotations, with the 95 % interval of Student's t on the logarithms: a ratio and its
inverse are then treated alike.
"""

import math
from collections.abc import Sequence
from statistics import mean, median

from scipy import stats

from gradloc.experiments.bench.arms import REFERENCE
from gradloc.experiments.bench.steps import PARTS, StepTime
from gradloc.experiments.bench.timing import Rotation

LEVEL = 0.95


def mean_ratio(ratios: Sequence[float]) -> dict[str, float | None]:
    """Geometric mean with its 95 % interval; without one where there is one ratio only.

    Example:
        >>> mean_ratio([0.5, 0.5])
        {'value': 0.5, 'low': 0.5, 'high': 0.5}
    """
    logs = [math.log(ratio) for ratio in ratios]
    value, n = mean(logs), len(logs)
    if n < 2:
        return {"value": math.exp(value), "low": None, "high": None}
    error = math.sqrt(sum((log - value) ** 2 for log in logs) / (n - 1) / n)
    reach = stats.t.ppf((1 + LEVEL) / 2, n - 1) * error
    return {name: math.exp(end) for name, end in
            (("value", value), ("low", value - reach), ("high", value + reach))}  # fmt: skip


def range_ratio(mine: Sequence[float], full: Sequence[float]) -> dict[str, float | None]:
    """Ratio of the means, and the lowest and highest of any two repeats.

    Peaks hardly vary, and there are few repeats: the whole range is shown, not an interval.

    Example:
        >>> range_ratio([1.0, 3.0], [4.0, 4.0])
        {'value': 0.5, 'low': 0.25, 'high': 0.75}
    """
    ends = (None, None)
    if min(len(mine), len(full)) > 1:
        ends = min(mine) / max(full), max(mine) / min(full)
    return {"value": mean(mine) / mean(full), "low": ends[0], "high": ends[1]}


def step_seconds(rotation: Rotation, arm: str) -> float:
    """Seconds of an arm's step in a rotation: the median of a run, the mean over its runs."""
    return mean(median(step.total for step in run) for run in rotation.runs[arm])


def time_ratios(rotations: Sequence[Rotation], arm: str) -> list[float]:
    """An arm's step time / that of full training, one value a rotation."""
    return [step_seconds(r, arm) / step_seconds(r, REFERENCE) for r in rotations]


def shares(rotations: Sequence[Rotation], arm: str) -> dict[str, float]:
    """What part of an arm's step goes where, 0-1, summing to one."""
    steps: list[StepTime] = [s for r in rotations for run in r.runs[arm] for s in run]
    total = sum(step.total for step in steps)
    return {part: sum(getattr(step, part) for step in steps) / total for part in PARTS}


def drift(rotations: Sequence[Rotation]) -> float:
    """How much full training changed between its two runs of a rotation: the median, 0-1."""
    return median(
        abs(math.log(last / first))
        for r in rotations
        for first, last in [[median(s.total for s in run) for run in r.runs[REFERENCE]]]
    )
