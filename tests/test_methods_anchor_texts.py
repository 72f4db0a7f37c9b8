"""Where the texts come from that keep a model near its base."""

from hand_training import context_for

from gradloc.data.corpora import fact_passages
from gradloc.training.methods.anchor_texts import anchor_rows


def test_facts_are_shipped_passages_drawn_by_the_seed(tmp_path, character_tokenizer):
    context = context_for(tmp_path, character_tokenizer, max_length=400)
    shipped = {tuple(character_tokenizer(p.text)["input_ids"][:400]) for p in fact_passages()}
    few = anchor_rows(context, "facts", 5)
    assert len(set(few)) == 5 and set(few) < shipped
    assert few == anchor_rows(context, "facts", 5)
    assert set(anchor_rows(context, "facts", 1000)) == shipped
