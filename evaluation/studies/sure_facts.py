"""How sure the base model was of the facts that training makes it lose.

Comes in: the record of a sweep, and the start of one of its seeds. Goes out, as JSON: for facts
that the base model has right by a small, a middle and a large lead, the share that each arm lost,
and its ratio to full training's at the same uptake.

    python evaluation/studies/sure_facts.py runs/frontier/sweep.json \
        runs/frontier/unseen/seed-3/start --corpus unseen

The lead is the log-probability of the answer's first token less that of the next best token, in
nats. A fact with a small one is lost to any change of the model, whatever the change is about.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from gradloc.data.probes import ProbeSet
from gradloc.evaluation.scoring import score_probes
from gradloc.experiments.recipes import load_recipe
from gradloc.experiments.sweep.frontiers import find_frontier
from gradloc.experiments.sweep.sweep_record import RunRecord, SweepRecord
from gradloc.models import load_model, load_tokenizer

MEASURE = "known_facts"
EDGES = (0.5, 1.0)  # nats


def known_leads(start: Path) -> np.ndarray:
    """Lead of each fact that the base model has right, in the order of the sweep's items."""
    recipe = load_recipe(start / "recipe.yaml")
    model, tokenizer = load_model(recipe.model, dtype="float32"), load_tokenizer(recipe.model)
    probes = ProbeSet.load(start / "probes.jsonl")
    asked = [p for p in probes if p.group == "invariant" and p.split == "evaluation"]
    right = score_probes(model, tokenizer, asked)["exact"]
    known = [probe for probe, is_right in zip(asked, right, strict=True) if is_right]
    return np.array([lead(model, tokenizer, probe.prompt) for probe in known])


def lead(model, tokenizer, prompt: str) -> float:
    """Log-probability of the most likely next token less that of the second, nats."""
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer(prompt)["input_ids"]])).logits[0, -1]
    best, second = logits.log_softmax(dim=-1).topk(2).values.tolist()
    return best - second


def by_lead(run: RunRecord, leads: np.ndarray, edges: Sequence[float]) -> RunRecord:
    """The run with its known facts as one measure for each range of leads.

    Raises:
        ValueError: It was measured on other facts.
    """
    whole = run.metrics[MEASURE]
    if len(whole.values) != len(leads):
        raise ValueError(
            f"{run.arm}, seed {run.seed}: {len(whole.values)} known facts, and {len(leads)} have "
            "a lead. Give the start of the same corpus."
        )
    measures = {name: m for name, m in run.metrics.items() if m.kind == "uptake"}
    for number, name in enumerate(range_names(edges)):
        chosen = np.flatnonzero(np.digitize(leads, edges) == number)
        measures[name] = replace(
            whole,
            values=tuple(whole.values[i] for i in chosen),
            clusters=whole.clusters and tuple(whole.clusters[i] for i in chosen),
        )
    return replace(run, metrics=measures)


def range_names(edges: Sequence[float]) -> list[str]:
    """``below 0.5``, ``0.5 to 1``, ``from 1``."""
    inner = [f"{low:g} to {high:g}" for low, high in zip(edges, edges[1:], strict=False)]
    return [f"below {edges[0]:g}", *inner, f"from {edges[-1]:g}"]


def main() -> None:
    """Read the arguments, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("record", help="sweep.json")
    parser.add_argument("start", type=Path, help="the start folder of one seed of the corpus")
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--arm", action="append", help="only this arm; may be repeated")
    given = parser.parse_args()
    record, leads = SweepRecord.load(given.record), known_leads(given.start)
    arms = {record.line, *(given.arm or (run.arm for run in record.runs))}
    runs = tuple(
        by_lead(run, leads, EDGES)
        for run in record.runs
        if run.corpus == given.corpus and run.arm in arms
    )
    frontier = find_frontier(replace(record, runs=runs)).corpora[given.corpus]
    print(json.dumps({"n": counts(leads, EDGES), "arms": summary(frontier)}, indent=1))


def counts(leads: np.ndarray, edges: Sequence[float]) -> dict[str, int]:
    """Facts in each range."""
    found = np.bincount(np.digitize(leads, edges), minlength=len(edges) + 1)
    return dict(zip(range_names(edges), found.tolist(), strict=True))


def summary(frontier) -> dict:
    """Of each arm and range: the share lost at each rate, and ratios at equal uptake."""
    return {
        arm: {
            name: {
                "lost": {
                    f"{point.learning_rate:g}": round(point.metrics[name].value, 4)
                    for point in found.points
                },
                "ratio": {
                    f"{at.share:g}": [at.ratio.value, at.ratio.low, at.ratio.high]
                    for at in comparison.at_uptake
                },
            }
            for name, comparison in found.forgetting.items()
        }
        for arm, found in frontier.arms.items()
    }


if __name__ == "__main__":
    main()
