"""The command ``gradloc plan``.

Comes in: arguments. Goes out: a table on the terminal or JSON, and the chosen plan as a file.
Heavy imports happen inside.
"""

import click

from gradloc.cli.commands import INPUT, SHOW_JSON, policy_options, refuse_overwrite, show
from gradloc.errors import SelectionError

_TYPES = click.Choice(["float32", "bfloat16", "float16"])


@click.command()
@click.argument("source", metavar="PROFILE_OR_MODEL")
@click.option("--plan", "plan_path", type=INPUT, help="A plan.json to stand among the others.")
@click.option(
    "--policy", help="Policy that is taken apart. Default: interference_ratio; of a MODEL, top_k."
)
@click.option(
    "-o",
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the policy, such as k=10; may be repeated.",
)
@click.option(
    "--budget",
    type=float,
    help="Largest step time, as a ratio to full training (0.5: half as long). Of the policy's "
    "units those are kept that hold most of its mass.",
)
@click.option("--memory-budget", type=float, help="Largest memory above the weights, likewise.")
@click.option(
    "--share",
    type=float,
    help="Part of the mass to keep (0.8: 80 %), at the least time. Default: 0.8 is shown.",
)
@click.option("--sequence-length", default=128, show_default=True, help="Tokens a sequence.")
@click.option("--batch-size", default=8, show_default=True, help="Sequences a step.")
@click.option("--dtype", type=_TYPES, default="float32", show_default=True)
@click.option(
    "--cached",
    is_flag=True,
    help="Let budgets and shares count time with the frozen prefix cached.",
)
@click.option(
    "--own-loss",
    is_flag=True,
    help="The model's own loss at all positions, not gradloc's at labelled positions only.",
)
@click.option(
    "--labelled-fraction",
    default=1.0,
    show_default=True,
    help="Positions with a label, of all; the rest is padding and prompts.",
)
@click.option(
    "--projected",
    is_flag=True,
    help="Steps are projected and the start is held.",
)
@click.option(
    "--protected",
    is_flag=True,
    help="As from_probes trains by default: --projected, and every fourth step holds the model to "
    "its base on eight short passages.",
)
@click.option(
    "--calibrate", is_flag=True, help="Time this machine for a second instead of stored rates."
)
@click.option("--out", type=INPUT, help="Write the plan marked → to this file.")
@click.option("--force", is_flag=True, help="Overwrite --out.")
@SHOW_JSON
def plan(
    source, plan_path, policy, options, budget, memory_budget, share, out, force, as_json, **step
) -> None:
    """Show what plans cost before training: step time, memory, depth of the backward pass.

    PROFILE_OR_MODEL is a profile.json of `gradloc measure`, or a model (folder, hub id, .gguf
    file, smollm2-135m-instruct), of which only plans of position can be shown.

    All costs are ratios to full training by the plain Trainer, predicted from the model's sizes.
    A low trained layer is dear: the backward pass has to come down to it, and no prefix is left
    to cache. The table shows what the policy's plan costs, what it would cost without its lowest
    group of layers, and the cheapest plan that keeps 80 % of the policy's mass (the sum of the
    scores of the units it trains).

    \b
      gradloc plan profile.json
      gradloc plan profile.json --budget 0.5 --out plan.json
      gradloc plan profile.json --share 0.9 --cached
      gradloc plan profile.json --memory-budget 0.3 --calibrate
      gradloc plan smollm2-135m-instruct --policy top_k -o k=6
    """
    from gradloc.localization.cost import DEFAULT_KL_TOKENS, StepShape, calibrate
    from gradloc.localization.plan import LayerPlan
    from gradloc.localization.planning.candidates import plan_candidates
    from gradloc.localization.planning.plan_table import planning_tables
    from gradloc.localization.policies import Budget

    if out is not None:
        refuse_overwrite(out, force)
    limits = Budget(budget, memory_budget, share)
    measure_rates, own_loss = step.pop("calibrate"), step.pop("own_loss")
    given = LayerPlan.load(plan_path) if plan_path is not None else None
    profile, policy = _read(source, policy, limits, given)
    if step.pop("protected"):
        step |= {"projected": True, "kl_tokens": DEFAULT_KL_TOKENS}
    shape = StepShape(**step, label_loss=not own_loss)
    if measure_rates:
        rates = calibrate(profile.shape, n_tokens=shape.n_tokens, dtype=shape.dtype)
        shape = StepShape(**step, label_loss=not own_loss, machine=rates)
    planning = plan_candidates(
        profile, policy, limits=limits, step=shape, plan=given, **policy_options(options)
    )
    if out is not None:
        planning.candidates[planning.chosen].plan.save(out)
    title = profile.model or source
    show(as_json, planning.to_dict, planning_tables(planning, title), out)


def _read(source: str, policy: str | None, limits, given):
    """The profile, or the units of a model, and the policy to take apart."""
    from gradloc.localization.policies import DEFAULT_POLICY, SCORES
    from gradloc.localization.profile import GradientProfile

    if source.endswith(".json"):
        return GradientProfile.load(source), policy or DEFAULT_POLICY
    policy = policy or "top_k"
    if limits or policy in SCORES:
        asked = ", ".join(limits.given) or f"policy {policy}"
        raise SelectionError(
            f"{asked}: needs the scores of a profile, and {source} is a model. Measure it first: "
            f"gradloc measure {source} --probes probes.jsonl, then gradloc plan profile.json"
        )
    from gradloc.localization.planning.candidates import units_only
    from gradloc.models import load_model
    from gradloc.models.units import find_units, model_shape

    model = load_model(source)
    granularity = given.granularity if given is not None else "sublayer"
    units = tuple(unit.info for unit in find_units(model, granularity))
    return units_only(units, model_shape(model), granularity, source), policy
