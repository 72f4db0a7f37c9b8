"""Edits of a benchmark as files: told once, asked three ways, no subject on both sides."""

import json

import pytest
import write_edits

from gradloc.config.recipe import CorpusConfig
from gradloc.data.corpora.readers import read_corpus
from gradloc.data.probes import load_probes


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
def written(tmp_path):
    """Documents and probes of the files that the script writes, as a recipe reads them."""
    subjects = ["Tal", "Orm", "Tal", "Ush", "Ven", "Ery"]  # the first subject has two edits
    path = tmp_path / "edits.jsonl"
    rows = [case(name, f"Ombra{i}", i) for i, name in enumerate(subjects)]
    path.write_text("\n".join(map(json.dumps, rows)))

    def write(*options):
        write_edits.main([str(path), str(tmp_path), *options])
        config = CorpusConfig(paths=(str(tmp_path / "documents.jsonl"),), cutoff="2024-01-01")
        return list(read_corpus(config, seed=0).update), load_probes(tmp_path / "probes.jsonl")

    return write


def test_each_edit_is_told_as_one_sentence_that_names_its_subject(written):
    documents, _ = written()
    assert [d.text for d in documents][:2] == [
        "The 0. river of Tal is the Ombra0.",
        "The 1. river of Orm is the Ombra1.",
    ]
    for document in documents:
        ((start, end, name, _),) = document.entities
        assert document.text[start:end] == name
        assert document.date == "2024-01-01"


def test_questions_are_of_the_depth_that_they_ask(written):
    probes = [p for p in written()[1] if p.entity == "Orm"]
    assert {(p.group, p.depth, p.prompt) for p in probes} == {
        ("updated", "verbatim", "The 1. river of Orm is the"),
        ("updated", "paraphrase", "The river of old Orm is the"),
        ("updated", "composition", "The sea that Orm's river meets is the"),
        ("invariant", "paraphrase", "The mayor of Orm is"),
    }
    # Counted like all other probes, not by the benchmark's own metrics.
    assert not any(p.task or p.kind or p.case for p in probes)


def test_every_third_subject_chooses_and_is_not_asked_what_should_stay(written):
    documents, probes = written()
    probes.check_disjoint()
    choosing = {p.entity for p in probes if p.split == "localization"}
    assert choosing == {"Tal", "Ven"}
    assert not any(p.entity in choosing for p in probes if p.group == "invariant")
    assert {p.entity for p in probes if p.split == "evaluation"} == {"Orm", "Ush", "Ery"}
    # Both edits of a subject are on its side, and all edits are told.
    assert sum(p.entity == "Tal" and p.depth == "verbatim" for p in probes) == 2
    assert len(documents) == 6


def test_n_edits_takes_the_first(written):
    documents, probes = written("--n-edits", "2")
    assert len(documents) == 2
    assert {p.entity for p in probes} == {"Tal", "Orm"}


def test_a_file_without_edits_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match="no such file|nowhere.jsonl"):
        write_edits.main([str(tmp_path / "nowhere.jsonl"), str(tmp_path)])
