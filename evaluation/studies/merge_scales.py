"""What a tuned model keeps and forgets at one interpolation for all weights, and under merge plans.

    python evaluation/studies/merge_scales.py runs/quickstart \
        --tuned runs/quickstart/checkpoint/arms/full --interpolations 0.4 0.6 0.8 0.9 1 \
        --plans solved=plan.json

Uniform interpolations and the base form the reference line. Each plan's forgetting is divided by
that of the line at the same uptake, paired by resampling entities. Scored are the run's paraphrased
probes of new facts, its invariant facts that the base has right, and its general text.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from gradloc.evaluation.compare import summarize
from gradloc.evaluation.evaluate import score_checkpoint
from gradloc.evaluation.results import UPTAKE_AXIS
from gradloc.evaluation.scoring.answer_checks import distinguishable
from gradloc.evaluation.suites import load_suite
from gradloc.localization.plan import LayerPlan
from gradloc.models import load_model, load_tokenizer
from gradloc.models.units import find_units
from gradloc.utils.io import to_jsonable, write_json


def main(arguments: Sequence[str]) -> None:
    """Score the base, every interpolation and every plan; write ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="finished run folder: its probes and texts")
    parser.add_argument("--base", default="smollm2-135m-instruct")
    parser.add_argument("--tuned", type=Path, required=True)
    parser.add_argument("--interpolations", type=float, nargs="+", required=True)
    parser.add_argument("--plans", nargs="*", default=[], metavar="NAME=PLAN.JSON")
    parser.add_argument("--out", type=Path, default=Path("merge_scales.json"))
    options = parser.parse_args(arguments)
    plans = {name: LayerPlan.load(path) for name, path in (p.split("=", 1) for p in options.plans)}

    model, tuned = load_model(options.base), load_model(options.tuned)
    tokenizer = load_tokenizer(options.base)
    base = {name: p.detach().clone() for name, p in model.named_parameters()}
    change = {name: p.detach() - base[name] for name, p in tuned.named_parameters()}
    del tuned

    def mixed(scale_of: dict[str, float]) -> None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(base[name] + scale_of[name] * change[name])

    suite = load_suite(options.run)
    asked = [
        probe
        for probe in suite.probes
        if probe.group == "invariant" or (probe.group, probe.depth) == ("new", "paraphrase")
    ]
    texts = {"general": suite.texts["general"]}
    suite = replace(suite, probes=tuple(asked), texts=texts, example_ids=())
    suite = replace(suite, probes=distinguishable(tokenizer, suite.probes, suite.ambiguous))
    before = score_checkpoint(model, tokenizer, suite)
    suite = suite.screened(before)
    uniform = {f"{value:g}": dict.fromkeys(base, value) for value in options.interpolations}
    points = uniform | {
        name: {
            parameter: plan.scale[unit.name]
            for unit in find_units(model, plan.granularity)
            for parameter in unit.parameters
        }
        for name, plan in plans.items()
    }
    scored = {}
    for name, scale_of in points.items():
        mixed(scale_of)
        scored[name] = score_checkpoint(model, tokenizer, suite)
        result = summarize(
            suite, before, scored, reference_arms=[n for n in uniform if n in scored]
        )
        write_json(options.out, summary(result, options, plans))  # kept if it is broken off


def summary(result, options: argparse.Namespace, plans: dict[str, LayerPlan]) -> dict:
    """Uptake, forgetting and the ratio to the line at equal uptake, of every point."""
    arms = {
        name: {
            "uptake": {UPTAKE_AXIS: arm.uptake[UPTAKE_AXIS]},
            "forgetting": arm.forgetting,
            "versus_uniform": arm.versus_full,
        }
        for name, arm in result.arms.items()
    }
    return to_jsonable(
        {
            "kind": "merge scales",
            "tuned": str(options.tuned),
            "interpolations": options.interpolations,
            "plans": {name: plan.scale for name, plan in plans.items()},
            "arms": arms,
        }
    )


if __name__ == "__main__":
    main(sys.argv[1:])
