import functools
from collections import Counter

import pytest
from conftest import build_model, training_arguments
from transformers import Trainer

from gradloc import LayerPlan
from gradloc.data.batches import collate, training_rows
from gradloc.data.corpora import fact_passages
from gradloc.errors import MethodError
from gradloc.models.units import find_units
from gradloc.training.methods.base import TrainContext
from gradloc.training.methods.method_table import build_method
from gradloc.training.methods.replay import Replay

REFERENCE = [f"Old text number {i}." for i in range(7)]


arguments = functools.partial(
    training_arguments,
    per_device_train_batch_size=4,
    max_steps=6,
    learning_rate=1e-3,
    seed=5,
)


@pytest.fixture
def context(tmp_path, character_tokenizer):
    model = build_model("llama")
    units = tuple(unit.info for unit in find_units(model))
    plan = LayerPlan(scale={u.name: 1.0 for u in units}, units=units)
    return TrainContext(
        model, character_tokenizer, plan, arguments(tmp_path), REFERENCE, max_length=24
    )


def new_rows(tokenizer, n):
    texts = [f"New fact {i}." for i in range(n)]
    return list(training_rows(tokenizer, texts, max_length=24, packing=False))


def texts_of(tokenizer, rows):
    return [tokenizer.decode(row["input_ids"]).removesuffix("~") for row in rows]


def is_old(text):
    return text.startswith("Old")


@pytest.mark.parametrize(("ratio", "n_old"), [(0.5, 12), (0.25, 4), (0.8, 48), (0.0, 0)])
def test_the_ratio_is_the_share_of_replayed_rows(context, ratio, n_old):
    rows = new_rows(context.tokenizer, 12)
    mixed = Replay(ratio=ratio).rows(rows, context)
    found = texts_of(context.tokenizer, mixed)
    old = [text for text in found if is_old(text)]
    assert len(old) == n_old
    assert Counter(t for t in found if not is_old(t)) == Counter(texts_of(context.tokenizer, rows))
    # Each old text comes as often as any other, but for one.
    counts = [old.count(text) for text in REFERENCE]
    assert sum(counts) == n_old
    assert max(counts) - min(counts) <= 1
    assert all(row["labels"] == row["input_ids"] for row in mixed)


def test_old_and_new_rows_are_shuffled_by_the_seed(context, tmp_path):
    rows = new_rows(context.tokenizer, 12)
    first, again = (Replay().rows(rows, context) for _ in range(2))
    assert first == again
    context.arguments = arguments(tmp_path, seed=6)
    assert Replay().rows(rows, context) != first
    places = [i for i, text in enumerate(texts_of(context.tokenizer, first)) if is_old(text)]
    assert places != list(range(12)) and places != list(range(12, 24))


def test_replayed_facts_are_shipped_passages_to_their_end(context):
    context.reference, context.max_length = (), 600
    rows = new_rows(context.tokenizer, 6)
    old = [
        row["input_ids"] for row in Replay(source="facts").rows(rows, context) if row not in rows
    ]
    end = context.tokenizer.eos_token_id
    shipped = [context.tokenizer(passage.text)["input_ids"] + [end] for passage in fact_passages()]
    assert len(old) == 6 and all(row in shipped for row in old)


def test_packed_replay_fills_its_rows(context):
    rows = new_rows(context.tokenizer, 6)
    mixed = Replay(packing=True).rows(rows, context)
    old = [row for row in mixed if row not in rows]
    assert len(old) == 6
    assert sum(len(row["input_ids"]) == 24 for row in old) >= 4


@pytest.mark.parametrize(
    ("ratio", "extra", "given", "expected"),
    [
        (0.5, True, {"max_steps": 60}, 120),
        (0.8, True, {"max_steps": 60}, 300),  # 60 / (1 - 0.8) is a little above in floating point
        (0.3, True, {"max_steps": 10}, 15),  # 14.3, rounded up
        (0.5, False, {"max_steps": 60}, 60),
        (0.5, True, {"num_train_epochs": 2}, None),
        (0.5, True, {"max_steps": -1}, -1),
    ],
)
def test_extra_makes_training_longer_by_the_rows_it_adds(ratio, extra, given, expected):
    kept = dict(given)
    found = Replay(ratio=ratio, extra=extra).training_arguments(given)
    assert found.get("max_steps") == expected
    assert given == kept


def rows_read(context, rows):
    """The texts that a Trainer reads, in order, with the arguments that the method asks for."""
    read = []

    def collect(batch):
        read.extend(texts_of(context.tokenizer, batch))
        return collate(batch, 96)

    Trainer(
        model=context.model.train(),
        args=context.arguments,
        train_dataset=rows,
        data_collator=collect,
    ).train()
    return read


def test_with_extra_new_rows_are_visited_as_often_as_without_replay(context, tmp_path):
    rows = new_rows(context.tokenizer, 12)
    method = Replay(ratio=0.5)
    context.arguments = arguments(tmp_path, **method.training_arguments({"max_steps": 6}))
    read = rows_read(context, method.rows(rows, context))
    # 6 steps of 4 rows are 2 visits of 12 rows.
    assert Counter(Counter(t for t in read if not is_old(t)).values()) == {2: 12}


def test_without_text_to_replay_the_method_says_so(context):
    context.reference = ()
    with pytest.raises(MethodError, match="no text of two tokens"):
        Replay().rows(new_rows(context.tokenizer, 3), context)


def test_columns_that_old_rows_lack_are_refused_and_masks_are_made(context):
    rows = new_rows(context.tokenizer, 3)
    masked = [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows]
    mixed = Replay().rows(masked, context)
    assert all(len(row["attention_mask"]) == len(row["input_ids"]) for row in mixed)
    weighted = [{**row, "weights": [1.0]} for row in rows]
    with pytest.raises(MethodError, match="Put replay before the method that adds them"):
        Replay().rows(weighted, context)


@pytest.mark.parametrize(
    "wrong", [{"ratio": 1.0}, {"ratio": -0.1}, {"source": "books"}, {"n_texts": 0}]
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(MethodError, match=next(iter(wrong))):
        build_method("replay", wrong)
