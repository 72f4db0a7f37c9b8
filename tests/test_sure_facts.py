"""Facts are divided by the base model's own lead, and each is counted once."""

import numpy as np
import pytest
import sure_facts
import torch
from conftest import build_model

from gradloc.evaluation.score_record import ItemScores
from gradloc.experiments.sweep.frontiers import find_frontier
from gradloc.experiments.sweep.sweep_record import RunRecord, SweepRecord

LEADS = np.array([0.1, 0.5, 2.0, 0.9, 1.0, 0.49])


def run(arm, rate, lost, uptake):
    metrics = {
        "new_paraphrase_nll": ItemScores("uptake", "nats", (uptake,) * 4, (0, 0, 1, 1)),
        "known_facts": ItemScores("forgetting", "fraction", lost, tuple(range(6))),
    }
    return RunRecord("c", arm, "all", {}, rate, 0, metrics=metrics)


def test_each_fact_is_counted_in_the_range_of_its_lead():
    divided = sure_facts.by_lead(run("full", 1e-4, (1, 2, 3, 4, 5, 6), 1.0), LEADS, (0.5, 1.0))
    found = {n: (m.values, m.clusters) for n, m in divided.metrics.items() if "nll" not in n}
    assert found == {
        "below 0.5": ((1, 6), (0, 5)),
        "0.5 to 1": ((2, 4), (1, 3)),
        "from 1": ((3, 5), (2, 4)),
    }
    assert sure_facts.counts(LEADS, (0.5, 1.0)) == {"below 0.5": 2, "0.5 to 1": 2, "from 1": 2}


def test_facts_of_another_corpus_are_refused():
    with pytest.raises(ValueError, match="6 known facts, and 3 have a lead"):
        sure_facts.by_lead(run("full", 1e-4, (0,) * 6, 1.0), LEADS[:3], (0.5, 1.0))


def test_ratios_are_those_of_each_range():
    """The arm loses half as many of the unsure facts, and none of the sure ones."""
    runs = [
        run("full", 1e-4, (1, 1, 1, 1, 1, 1), 2.0),
        run("ours", 1e-4, (1, 1, 0, 0, 0, 0), 2.0),
    ]
    runs = tuple(sure_facts.by_lead(c, LEADS, (0.5, 1.0)) for c in runs)
    record = SweepRecord("s", "full", "new_paraphrase_nll", runs)
    found = sure_facts.summary(find_frontier(record, n_bootstrap=20).corpora["c"])["ours"]
    assert [found[name]["lost"]["0.0001"] for name in found] == [0.5, 0.5, 0.0]
    assert [found[name]["ratio"]["0.9"][0] for name in found] == pytest.approx([0.5, 0.5, 0.0])


def test_a_lead_is_that_of_the_two_most_likely_tokens(character_tokenizer):
    model = build_model("llama").eval()
    ids = torch.tensor([character_tokenizer("Tal is")["input_ids"]])
    ranked = model(ids).logits[0, -1].log_softmax(-1).sort(descending=True).values.tolist()
    found = sure_facts.lead(model, character_tokenizer, "Tal is")
    assert found == pytest.approx(ranked[0] - ranked[1], abs=1e-5)
