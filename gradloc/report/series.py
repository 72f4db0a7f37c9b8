"""Which arms are checkpoints of one training run.

Comes in: an ``EvalResult``. Goes out: names of arms, by run and in the order of their steps. The
last checkpoint of a run stands for it wherever there is no room for all.
"""

from gradloc.evaluation.results import ArmResult, EvalResult


def checkpoint_series(results: EvalResult) -> dict[str, list[str]]:
    """Training run -> its checkpoints among the arms, where there are at least two.

    One whose step is unknown is the final model, and comes last.
    """
    found: dict[str, list[str]] = {}
    for name, arm in results.arms.items():
        if arm.series:
            found.setdefault(arm.series, []).append(name)
    return {
        series: sorted(names, key=lambda name: _order(results.arms[name]))
        for series, names in found.items()
        if len(names) > 1
    }


def earlier_checkpoints(results: EvalResult) -> set[str]:
    """The checkpoints that a later one of the same run stands for."""
    return {name for names in checkpoint_series(results).values() for name in names[:-1]}


def leading_arms(results: EvalResult) -> list[str]:
    """The arms without the earlier checkpoints."""
    earlier = earlier_checkpoints(results)
    return [name for name in results.arms if name not in earlier]


def _order(arm: ArmResult) -> float:
    return float("inf") if arm.step is None else arm.step
