"""Token weights against losses computed one prefix at a time."""

import math

import numpy as np
import pytest
import torch
from hand_training import (
    context_for,
    token_rows,
)

from gradloc.data.batches import collate
from gradloc.errors import MethodError
from gradloc.training.methods.token_weights import TokenWeights, token_losses, weighted_loss

ROWS = token_rows(5, 9, 2, 7)


def labelled_rows():
    rows = [{"input_ids": list(row), "labels": list(row)} for row in ROWS]
    rows[1]["labels"][4] = -100
    return rows


def hand_losses(model, row):
    found = [math.nan]
    for place in range(1, len(row["input_ids"])):
        with torch.no_grad():
            ids = torch.tensor([row["input_ids"][:place]])
            log_probs = model(input_ids=ids).logits[0, -1].log_softmax(-1)
        known = row["labels"][place] != -100
        found.append(-log_probs[row["input_ids"][place]].item() if known else math.nan)
    return found


def test_the_tokens_that_surprise_most_get_the_weight(tmp_path, character_tokenizer):
    context = context_for(tmp_path, character_tokenizer)
    rows = labelled_rows()
    losses = [hand_losses(context.model, row) for row in rows]
    for found, expected in zip(token_losses(context.model, rows), losses, strict=True):
        assert found.tolist() == pytest.approx(expected, rel=1e-4, nan_ok=True)
    weighted = TokenWeights(fraction=0.25, weight=5.0).rows(rows, context)
    known = sorted((x for row in losses for x in row if not math.isnan(x)), reverse=True)
    assert len(known) == 18  # 19 tokens have one before them, one of these has no label
    threshold = known[4 - 1]  # a quarter of 18, rounded to even
    for row, before, loss in zip(weighted, rows, losses, strict=True):
        assert {k: v for k, v in row.items() if k != "weights"} == before
        assert row["weights"] == [5.0 if x >= threshold - 1e-5 else 1.0 for x in loss]
    assert sum(w == 5.0 for row in weighted for w in row["weights"]) == 4


def test_the_loss_is_the_weighted_mean_and_ordinary_at_equal_weights(llama):
    rows = labelled_rows()
    weights = np.random.default_rng(0).uniform(0.5, 4.0, (len(rows), 9)).astype("float32")
    batch = collate(rows, 0)
    batch["weights"] = torch.tensor(weights) * batch["attention_mask"]
    losses = [hand_losses(llama, row) for row in rows]
    pairs = [
        (w, x)
        for row_weights, row in zip(weights.tolist(), losses, strict=True)
        for w, x in zip(row_weights, row, strict=False)
        if not math.isnan(x)
    ]
    expected = sum(w * x for w, x in pairs) / sum(w for w, _ in pairs)
    loss = TokenWeights().loss(None)(llama, batch)
    assert math.isclose(loss.item(), expected, rel_tol=1e-5)
    equal = {**batch, "weights": 7.0 * batch["attention_mask"]}
    labelled = {k: batch[k] for k in ("input_ids", "attention_mask", "labels")}
    torch.testing.assert_close(weighted_loss(llama, equal), llama(**labelled).loss)


def test_missing_weights_and_options_out_of_range_are_refused(tmp_path, llama, character_tokenizer):
    with pytest.raises(MethodError, match="remove_unused_columns"):
        weighted_loss(llama, collate(labelled_rows(), 0))
    with pytest.raises(MethodError, match="no token of the training rows"):
        TokenWeights().rows([], context_for(tmp_path, character_tokenizer, llama))
    for wrong in ({"fraction": 0.0}, {"fraction": 1.0}, {"weight": 0}):
        with pytest.raises(MethodError, match=next(iter(wrong))):
            TokenWeights(**wrong).check()
