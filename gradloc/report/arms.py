"""Which arms lead a page: the main one, those of full training, the last of each training run."""

from gradloc.evaluation.results import ArmResult, EvalResult, MetricValue, uptake_axis
from gradloc.report.formatting import is_finite
from gradloc.report.measures import keys_of
from gradloc.report.styles import ArmStyle, assign_styles


def checkpoint_series(results: EvalResult) -> dict[str, list[str]]:
    """Training run -> its checkpoints among the arms, where there are at least two.

    One whose step is unknown is the final model, and comes last.
    """
    found: dict[str, list[str]] = {}
    for name, arm in results.arms.items():
        if arm.series:
            found.setdefault(arm.series, []).append(name)

    def order(name: str) -> float:
        step = results.arms[name].step
        return float("inf") if step is None else step

    return {series: sorted(names, key=order) for series, names in found.items() if len(names) > 1}


def leading_arms(results: EvalResult) -> list[str]:
    """The arms without checkpoints that a later one of the same run stands for."""
    earlier = {name for names in checkpoint_series(results).values() for name in names[:-1]}
    return [name for name in results.arms if name not in earlier]


def main_arm(results: EvalResult, arm_order: list[str]) -> str:
    """The arm that the page speaks of first.

    Args:
        results: The evaluation, of at least one arm.
        arm_order: Arms in the recipe's order; the first that is no full training is the main one.
    """
    leading = leading_arms(results)
    ordered = [name for name in arm_order if name in leading]
    ordered += [name for name in leading if name not in ordered]
    return next((name for name in ordered if name not in results.reference_arms), ordered[0])


def uptake_metric(results: EvalResult) -> str | None:
    """The metric that stands for uptake: likelihood of paraphrased new facts, where it exists."""
    keys = keys_of(results, "uptake")
    return uptake_axis(keys) or next(iter(keys), None)


def best_reference(results: EvalResult) -> ArmResult | None:
    """The arm of full training that learned most; ``None`` without one."""
    key = uptake_metric(results)
    found = [
        (figure.value, arm)
        for name in results.reference_arms
        if (arm := results.arms.get(name)) is not None
        if (figure := arm.uptake.get(key or "")) is not None and is_finite(figure.value)
    ]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def has_diverged(arm: ArmResult) -> bool:
    """Whether a score of the arm is not finite, so that it is best at nothing."""
    groups = (arm.uptake, arm.forgetting, arm.scores)
    return any(_is_broken(figure) for group in groups for figure in group.values())


def arm_styles(results: EvalResult, main: str | None = None) -> dict[str, ArmStyle]:
    """The look of each arm; the checkpoints of one run share that of the last."""
    styles = assign_styles(leading_arms(results), references=results.reference_arms, main=main)
    for names in checkpoint_series(results).values():
        styles |= dict.fromkeys(names[:-1], styles[names[-1]])
    return {name: styles[name] for name in results.arms}


def _is_broken(figure: MetricValue) -> bool:
    if figure.value is None:
        return "not finite" in figure.note
    return not is_finite(figure.value)
