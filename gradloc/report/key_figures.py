"""The main arm in a few large numbers, and its plan in words.

Comes in: a ``Run``. Goes out: pairs of text, those that exist, ready for a template. It escapes
nothing: the template does.
"""

from dataclasses import replace

from gradloc.evaluation.results import ArmResult, MetricValue
from gradloc.models.unit_info import UnitInfo
from gradloc.report import formatting
from gradloc.report.run_folder import Run
from gradloc.report.verdict import FACTS, FORGETTING, RATIO, uptake_metric


def key_figures(run: Run, main: str) -> list[dict[str, str]]:
    """The main arm in four numbers: against full training, else against the base model."""
    arm = run.results.arms[main]
    found = []
    share = arm.versus_full.get("uptake_share")
    if share is not None and share.value is not None:
        found.append({
            "value": formatting.percent(share.value),
            "label": "of full training’s uptake",
            "interval": _percent_interval(share),
        })  # fmt: skip
    ratio = arm.versus_full.get(f"{RATIO}{FORGETTING}")
    if ratio is not None and ratio.value is not None:
        found.append({
            "value": f"{formatting.number(ratio.value)} ×",
            "label": "full training’s forgetting of general text, at equal uptake",
            "interval": formatting.interval(ratio),
        })  # fmt: skip
    if not found:
        found = _changes(arm, uptake_metric(run.results))
    if arm.trainable_fraction is not None:
        found.append({
            "value": formatting.percent(arm.trainable_fraction),
            "label": "of the parameters trained",
        })  # fmt: skip
    if arm.train_seconds is not None:
        found.append({"value": formatting.duration(arm.train_seconds), "label": "of training"})
    return found


def plan_words(run: Run) -> list[tuple[str, str]]:
    """What was chosen, as pairs of a term and its words."""
    plan, units = run.plan, _units(run)
    if plan is None:
        return []
    words = [("Policy", plan.policy or "a plan written by hand")]
    words += [(key, str(value)) for key, value in plan.options.items()]
    trained = [unit for unit in units if plan.scale.get(unit.name, 0) > 0]
    for kind, label in (("mlp", "MLP"), ("attention", "Attention"), ("block", "Blocks")):
        if any(unit.kind == kind for unit in units):
            blocks = [unit.block for unit in trained if unit.kind == kind]
            words.append((f"{label} trained", formatting.ranges(blocks) or "none"))
    if not units:
        words.append(("Units trained", ", ".join(plan.trained) or "none"))
    else:
        n_stack = sum(unit.in_stack for unit in units)
        words.append(("Units", f"{sum(u.in_stack for u in trained)} of {n_stack} in the blocks"))
        words.append(("Parameters", f"{formatting.percent(plan.trainable_fraction)} trained"))
    for key, label in (("time_ratio", "Predicted time"), ("memory_ratio", "Predicted memory")):
        if isinstance(plan.predicted.get(key), (int, float)):
            words.append((label, f"{formatting.number(plan.predicted[key])} × full training"))
    return words


def outside_units(run: Run) -> list[tuple[str, str, str]]:
    """Units outside the blocks: name, size, and what the plan does with them."""
    scale = run.plan.scale if run.plan else {}
    return [
        (unit.name, f"{unit.n_parameters:,}", "trained" if scale.get(unit.name) else "frozen")
        for unit in _units(run)
        if not unit.in_stack
    ]


def _changes(arm: ArmResult, uptake: str | None) -> list[dict[str, str]]:
    wanted = [(arm.uptake, uptake, "gained")] if uptake else []
    wanted += [(arm.forgetting, key, "lost") for key in (FACTS, FORGETTING)]
    found = []
    for figures, key, verb in wanted:
        figure = figures.get(key)
        if figure is not None and figure.value is not None:
            unit = formatting.unit_name(figure.unit, difference=True)
            found.append({
                "value": formatting.by_unit(figure.value, figure.unit),
                "label": f"{unit} {verb}: {formatting.metric_label(key)}",
                "interval": formatting.interval(figure),
            })  # fmt: skip
    return found


def _percent_interval(share: MetricValue) -> str:
    text = formatting.interval(replace(share, unit="fraction"))
    return f"{text}{formatting.THIN}%" if text else ""


def _units(run: Run) -> tuple[UnitInfo, ...]:
    return (run.plan.units if run.plan else ()) or (run.profile.units if run.profile else ())
