"""Edits of a benchmark as a corpus: told once, asked three ways, no subject on both sides."""

import json
from dataclasses import replace

import pytest

from gradloc.config.recipe import CorpusConfig
from gradloc.data.corpora.readers import read_corpus
from gradloc.data.probes import ProbeSet
from gradloc.errors import CorpusError


def case(subject, answer, number):
    return {
        "subject": subject,
        "prompt": f"The {number}. river of {subject} is the",
        "target_new": answer,
        "portability": {
            "Subject_Aliasing": {"prompt": [f"The river of old {subject} is the"],
                                 "ground_truth": [answer]},
            "Reasoning": {"prompt": [f"The sea that {subject}'s river meets is the"],
                          "ground_truth": ["Sill"]},
        },
        "locality": {"Relation_Specificity": {"prompt": [f"The mayor of {subject} is"],
                                              "ground_truth": ["Mera Voss"]}},
    }  # fmt: skip


@pytest.fixture
def config(tmp_path):
    subjects = ["Tal", "Orm", "Tal", "Ush", "Ven", "Ery"]  # the first subject has two edits
    path = tmp_path / "edits.jsonl"
    rows = [case(name, f"Ombra{i}", i) for i, name in enumerate(subjects)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return CorpusConfig(source="knowedit", paths=(str(path),), cutoff="2024-01-01")


def test_each_edit_is_told_as_one_sentence_that_names_its_subject(config):
    documents = list(read_corpus(config, seed=0).update)
    assert [d.text for d in documents][:2] == [
        "The 0. river of Tal is the Ombra0.",
        "The 1. river of Orm is the Ombra1.",
    ]
    for document in documents:
        ((start, end, name, _),) = document.entities
        assert document.text[start:end] == name
        assert document.date == "2024-01-01"


def test_questions_are_of_the_depth_that_they_ask(config):
    probes = [p for p in read_corpus(config, seed=0).probes if p.entity == "Orm"]
    assert {(p.group, p.depth, p.prompt) for p in probes} == {
        ("updated", "verbatim", "The 1. river of Orm is the"),
        ("updated", "paraphrase", "The river of old Orm is the"),
        ("updated", "composition", "The sea that Orm's river meets is the"),
        ("invariant", "paraphrase", "The mayor of Orm is"),
    }
    # Counted like all other probes, not by the benchmark's own metrics.
    assert not any(p.task or p.kind or p.case for p in probes)


def test_every_third_subject_chooses_and_is_not_asked_what_should_stay(config):
    probes = ProbeSet(tuple(read_corpus(config, seed=0).probes))
    probes.check_disjoint()
    choosing = {p.entity for p in probes if p.split == "localization"}
    assert choosing == {"Tal", "Ven"}
    assert not any(p.entity in choosing for p in probes if p.group == "invariant")
    assert {p.entity for p in probes if p.split == "evaluation"} == {"Orm", "Ush", "Ery"}
    # Both edits of a subject are on its side, and all edits are told.
    assert sum(p.entity == "Tal" and p.depth == "verbatim" for p in probes) == 2
    assert len(list(read_corpus(config, seed=0).update)) == 6


def test_n_edits_takes_the_first(config):
    few = read_corpus(replace(config, options={"n_edits": 2}), seed=0)
    assert len(list(few.update)) == 2
    assert {p.entity for p in few.probes} == {"Tal", "Orm"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"paths": ()}, "needs at least one path"),
        ({"options": {"n_edit": 2}}, "one option, n_edits.*found n_edit"),
        ({"options": {"n_edits": 0}}, "n_edits must be a whole number from 1 up; found 0"),
        ({"fields": {"text": "body"}}, "takes no fields; found text"),
    ],
)
def test_bad_requests_are_explained(config, changes, message):
    with pytest.raises(CorpusError, match=message):
        read_corpus(replace(config, **changes), seed=0)
