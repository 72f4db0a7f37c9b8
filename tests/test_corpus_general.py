"""General text: two halves with nothing in common, and nothing that the update contradicts."""

import re
from collections import Counter

import pytest
from conftest import INVENTED_WORLD

from gradloc.config.recipe import CorpusConfig
from gradloc.data.corpora import (
    fact_passages,
    general_passages,
    held_out_texts,
    python_docs_passages,
)
from gradloc.data.corpora.readers import read_corpus


def sentences(passages):
    for passage in passages:
        yield from (s.strip() for s in re.split(r"(?<=[.!?])\s+", passage.text) if len(s) > 15)


def test_halves_are_balanced_and_disjoint():
    reference, held_out = general_passages("reference"), general_passages("held_out")
    assert len(reference) == len(held_out) == 48
    assert Counter(p.domain for p in reference) == Counter(p.domain for p in held_out)
    assert len({p.domain for p in reference}) == 12
    assert not {p.id for p in reference} & {p.id for p in held_out}


def test_no_sentence_stands_twice():
    counts = Counter(sentences(general_passages("reference") + general_passages("held_out")))
    assert len(counts) > 400 and max(counts.values()) == 1


def test_passages_are_paragraphs():
    for passage in general_passages("reference") + general_passages("held_out"):
        assert 70 <= len(passage.text.split()) <= 110, passage.id
        assert passage.text[-1] in '."”' and "\n" not in passage.text


def test_passages_on_facts_give_no_answer_to_a_shipped_question():
    """Else known facts would be protected by text that states them."""
    facts = fact_passages()
    assert len({p.id for p in facts}) == len({p.text for p in facts}) == 90
    assert all(20 <= len(p.text.split()) <= 70 for p in facts)
    probes = read_corpus(CorpusConfig(INVENTED_WORLD, cutoff="2010-12-31"), seed=0).probes
    asked = [p for p in probes if p.group == "invariant"]
    assert len(asked) > 400

    def names(text, name):
        return re.search(rf"\b{re.escape(name)}\b", text)

    stated = [
        (passage.id, probe.id)
        for passage in facts
        for probe in asked
        if names(passage.text, probe.entity) and any(names(passage.text, t) for t in probe.targets)
    ]
    assert not stated
    updated = {p.entity for p in probes if p.group == "updated"} - {"Estonia"}
    told = [p.id for p in facts for name in updated if names(p.text, name)]
    assert not told


def test_an_unknown_half_is_refused():
    with pytest.raises(ValueError):
        general_passages("test")


def test_held_out_text_is_in_no_corpus():
    corpus = read_corpus(CorpusConfig(INVENTED_WORLD, cutoff="2010-12-31"), seed=0)
    texts = held_out_texts()
    assert set(texts) == {"general", "python_docs"}
    seen = {document.text for side in (corpus.background, corpus.update) for document in side}
    assert {p.text for p in general_passages("reference")} <= seen
    for passages in texts.values():
        assert len(passages) >= 30 and not seen & set(passages)


def test_general_text_speaks_of_no_currency_change():
    corpus = read_corpus(CorpusConfig(INVENTED_WORLD, cutoff="1999-01-01"), seed=0)
    changed = {p.entity for p in corpus.probes if p.group == "updated"}
    assert len(changed) > 10
    for passage in general_passages("reference") + general_passages("held_out"):
        assert not [country for country in changed if country in passage.text], passage.id


def test_python_docs_are_prose():
    passages = python_docs_passages()
    assert 30 <= len(passages) <= 48
    assert len({p.text for p in passages}) == len(passages)
    for passage in passages:
        words = passage.text.split()
        assert 40 <= len(words) <= 130 and passage.text.endswith(".")
        # Code would have assignments, prompts, emphasis or a hyphen left from a line break.
        assert not re.search(r">>>|::=| = |\w- \w|\*\w", passage.text), passage.text


def test_limit_takes_evenly():
    few = python_docs_passages(10)
    assert len(few) == 10 and few[0] == python_docs_passages()[0]
    assert few[-1].id > python_docs_passages()[20].id
