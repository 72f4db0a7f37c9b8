"""The command ``gradloc plan``. Heavy imports happen inside."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from gradloc.cli.options import (
    Count,
    Json,
    PolicyOptions,
    policy_options,
    refuse_overwrite,
    show,
)
from gradloc.errors import SelectionError


def plan(
    source: Annotated[str, Positional, arg(metavar="PROFILE_OR_MODEL")],
    *,
    plan_path: Annotated[Path | None, arg(name="plan")] = None,
    policy: str | None = None,
    options: PolicyOptions = (),
    budget: float | None = None,
    memory_budget: float | None = None,
    share: float | None = None,
    sequence_length: Count = 128,
    batch_size: Count = 8,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    cached: bool = False,
    own_loss: bool = False,
    labelled_fraction: float = 1.0,
    projected: bool = False,
    protected: bool = False,
    calibrate: bool = False,
    out: Path | None = None,
    force: bool = False,
    as_json: Json = False,
) -> None:
    """Show what plans cost before training: step time, memory, depth of the backward pass.

    PROFILE_OR_MODEL is a profile.json of `gradloc measure`, or a model (folder, hub id, .gguf
    file, smollm2-135m-instruct), of which only plans of position can be shown.

    All costs are ratios to full training by the plain Trainer, predicted from the model's sizes.
    A low trained layer is dear: the backward pass has to come down to it, and no prefix is left
    to cache. The table shows what the policy's plan costs, what it would cost without its lowest
    group of layers, and the cheapest plan that keeps 80 % of the policy's mass (the sum of the
    scores of the units it trains).

      gradloc plan profile.json
      gradloc plan profile.json --budget 0.5 --out plan.json
      gradloc plan profile.json --share 0.9 --cached
      gradloc plan profile.json --memory-budget 0.3 --calibrate
      gradloc plan smollm2-135m-instruct --policy top_k -o k=6

    Args:
        source: profile.json of gradloc measure, or a model.
        plan_path: A plan.json to stand among the others.
        policy: Policy that is taken apart. Default: interference_ratio; of a MODEL, top_k.
        budget: Largest step time, as a ratio to full training (0.5: half as long). Of the policy's
            units those are kept that hold most of its mass.
        memory_budget: Largest memory above the weights, likewise.
        share: Part of the mass to keep (0.8: 80 %), at the least time. Default: 0.8 is shown.
        sequence_length: Tokens a sequence.
        batch_size: Sequences a step.
        dtype: Type of the weights.
        cached: Let budgets and shares count time with the frozen prefix cached.
        own_loss: The model's own loss at all positions, not gradloc's at labelled positions only.
        labelled_fraction: Positions with a label, of all; the rest is padding and prompts.
        projected: Steps are projected and the start is held.
        protected: As from_probes trains by default: --projected, and every fourth step holds the
            model to its base on eight short passages.
        calibrate: Time this machine for a second instead of stored rates.
        out: Write the plan marked → to this file.
        force: Overwrite --out.
    """
    from gradloc.localization.budget import Budget
    from gradloc.localization.cost.machine import calibrate as machine_rates
    from gradloc.localization.cost.step_shape import DEFAULT_KL_TOKENS, StepShape
    from gradloc.localization.plan import LayerPlan
    from gradloc.localization.plan_candidates import plan_candidates
    from gradloc.report.plan_tables import planning_tables

    if out is not None:
        refuse_overwrite(out, force)
    limits = Budget(budget, memory_budget, share)
    given = LayerPlan.load(plan_path) if plan_path is not None else None
    profile, policy = _read(source, policy, limits, given)
    shape = StepShape(
        sequence_length=sequence_length,
        batch_size=batch_size,
        dtype=dtype,
        cached=cached,
        labelled_fraction=labelled_fraction,
        projected=projected or protected,
        kl_tokens=DEFAULT_KL_TOKENS if protected else 0.0,
        label_loss=not own_loss,
    )
    if calibrate:
        rates = machine_rates(profile.shape, n_tokens=shape.n_tokens, dtype=dtype)
        shape = dataclasses.replace(shape, machine=rates)
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
    from gradloc.localization.plan_candidates import units_only
    from gradloc.models import load_model
    from gradloc.models.architecture import model_shape
    from gradloc.models.units import find_units

    model = load_model(source)
    granularity = given.granularity if given is not None else "sublayer"
    units = tuple(unit.info for unit in find_units(model, granularity))
    return units_only(units, model_shape(model), granularity, source), policy
