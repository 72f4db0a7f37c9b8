"""Where the texts come from that keep a model near its base."""

import pytest
from hand_training import context_for

from gradloc.data.corpora import fact_passages
from gradloc.errors import MethodError
from gradloc.training.methods.anchor_texts import anchor_rows, written_texts

NEW = ["Zembla pays in crowns now.", "The queen of Zembla is Charlotte.", "abc"]


def test_continued_texts_begin_as_the_new_documents_do_and_go_on_in_the_models_words(
    tmp_path, character_tokenizer
):
    context = context_for(tmp_path, character_tokenizer, new_texts=NEW, max_length=64)
    texts = written_texts(context, "continued", 12)
    assert len(texts) == 12 and {len(text) for text in texts} == {28}
    # "abc" is too short to begin with, and what it is cut to at most is what trains.
    assert all(any(text[:4] in new for new in NEW[:2]) for text in texts)
    assert {text[:4] for text in texts[1::2]} == {new[:4] for new in NEW[:2]}
    assert {text[:4] for text in texts[::2]} - {new[:4] for new in NEW}, "the others from within"
    assert not any(text in new for text in texts for new in NEW)
    assert texts == written_texts(context, "continued", 12)
    assert [len(row) for row in anchor_rows(context, "continued", 12)] == [28] * 12


def test_beginnings_come_from_what_is_trained_on_and_not_from_the_rest(
    tmp_path, character_tokenizer
):
    context = context_for(
        tmp_path, character_tokenizer, new_texts=["abcdefgh" + "#" * 40], max_length=8
    )
    assert not any("#" in text[:4] for text in written_texts(context, "continued", 20))


def test_facts_are_shipped_passages_drawn_by_the_seed(tmp_path, character_tokenizer):
    context = context_for(tmp_path, character_tokenizer, max_length=400)
    shipped = {tuple(character_tokenizer(p.text)["input_ids"][:400]) for p in fact_passages()}
    few = anchor_rows(context, "facts", 5)
    assert len(set(few)) == 5 and set(few) < shipped
    assert few == anchor_rows(context, "facts", 5)
    assert set(anchor_rows(context, "facts", 1000)) == shipped


def test_without_new_documents_nothing_can_be_continued(tmp_path, character_tokenizer):
    context = context_for(tmp_path, character_tokenizer, new_texts=["abc"])
    with pytest.raises(MethodError, match="beginnings of 4 tokens"):
        anchor_rows(context, "continued", 4)
