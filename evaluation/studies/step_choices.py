"""What two choices about a step change: bfloat16 by part, and how rows are laid out.

Comes in: a model and a plan. Goes out, as JSON: how far loss and trained gradients lie from those
in float32 if frozen prefix, trained suffix or head compute in bfloat16, and what a step costs if
rows are padded in the order they come, grouped by length, or put end to end.

    python evaluation/studies/step_choices.py smollm2-135m-instruct --plan plan.json --batches 6

The text is the shipped general passages. Times are of forward and backward passes, processor time,
in turns; ratios are over the sums of all batches.
"""

import argparse
import functools
import json
import random
import time

import torch
from transformers import DataCollatorWithFlattening

from gradloc.data.batches import collate, pad_token_id, training_rows
from gradloc.localization.plan import LayerPlan
from gradloc.localization.probe_profile import reference_texts
from gradloc.models import load_model, load_tokenizer
from gradloc.models.label_loss import score_labels_only
from gradloc.models.mixed_precision import PARTS, compute_in_bfloat16
from gradloc.training.freezing import freeze_layers

BATCH = 8


def step(model, batch) -> tuple[float, torch.Tensor, float]:
    """Loss, all trained gradients as one vector, and seconds of processor time."""
    start = time.process_time()
    loss = model(**batch, use_cache=False).loss
    loss.backward()
    seconds = time.process_time() - start
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    model.zero_grad(set_to_none=True)
    return float(loss.detach()), torch.cat(grads), seconds


def errors(model, batches, lowest_block) -> dict[str, dict[str, float]]:
    """Largest errors over the batches, by parts in bfloat16."""
    exact = [step(model, batch) for batch in batches]
    found = {}
    for parts in ((PARTS[0],), (PARTS[1],), (PARTS[2],), ("prefix", "head"), PARTS):
        if "prefix" in parts and not lowest_block:
            continue
        handle = compute_in_bfloat16(model, parts, lowest_block)
        rough = [step(model, batch) for batch in batches]
        handle.remove()
        found[" ".join(parts)] = {
            "loss_nats": max(abs(r[0] - e[0]) for r, e in zip(rough, exact, strict=True)),
            "gradient_relative": max(
                float((r[1] - e[1]).norm() / e[1].norm()) for r, e in zip(rough, exact, strict=True)
            ),
            "time_ratio": sum(r[2] for r in rough) / sum(e[2] for e in exact),
        }
    return found


def layouts(rows, n_batches: int, pad_id: int) -> dict[str, list[dict]]:
    """The same rows in three layouts."""
    pad = functools.partial(collate, pad_token_id=pad_id)
    flat = DataCollatorWithFlattening()

    def cut(order):
        return [order[start : start + BATCH] for start in range(0, len(order), BATCH)]

    by_length = sorted(rows[: n_batches * BATCH], key=lambda row: len(row["input_ids"]))
    ordinary = cut(rows[: n_batches * BATCH])
    return {
        "padded": [pad(part) for part in ordinary],
        "grouped_by_length": [pad(part) for part in cut(by_length)],
        "end_to_end": [flat([dict(row) for row in part]) for part in ordinary],
    }


def main() -> None:
    """Read the arguments, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--plan", required=True, help="plan.json")
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--max-length", type=int, default=96)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    model, tokenizer = load_model(given.model, dtype="float32").train(), load_tokenizer(given.model)
    texts = list(reference_texts(None))
    random.Random(given.seed).shuffle(texts)
    rows = list(training_rows(tokenizer, texts, max_length=given.max_length, packing=False))
    by_layout = layouts(rows, given.batches, pad_token_id(tokenizer))
    frozen = freeze_layers(model, LayerPlan.load(given.plan))
    score_labels_only(model)
    seconds = dict.fromkeys(by_layout, 0.0)
    for turn in range(given.turns + 1):
        for name, batches in by_layout.items():
            taken = sum(step(model, batch)[2] for batch in batches)
            seconds[name] += taken if turn else 0.0  # the first is a warm-up
    n_tokens = {
        name: sum(batch["input_ids"].numel() for batch in batches)
        for name, batches in by_layout.items()
    }
    found = {
        "bfloat16": errors(model, by_layout["padded"], frozen.lowest_block),
        "tokens_to_padded": {n: k / n_tokens["padded"] for n, k in n_tokens.items()},
        "time_to_padded": {n: s / seconds["padded"] for n, s in seconds.items()},
        "loss_difference_end_to_end": max(
            abs(step(model, a)[0] - step(model, b)[0])
            for a, b in zip(by_layout["padded"], by_layout["end_to_end"], strict=True)
        ),
        "batches": given.batches,
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
