import collections
import itertools

import pytest
import torch
from conftest import build_model
from datasets import IterableDataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from gradloc.data.batches import (
    collate,
    dataset_rows,
    pad_token_id,
    probe_rows,
    text_rows,
    training_rows,
)
from gradloc.data.probes import Probe
from gradloc.errors import GradlocError, SpanError

WORDS = "the mayor of zürich is ada and the mayor of bern was bob until may".split()


def build_tokenizer(**special):
    """One token a word, so that tests can count."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordLevelTrainer(special_tokens=["<unk>", "</s>", "<s>", "<pad>"])
    tokenizer.train_from_iterator([WORDS], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **special)


@pytest.fixture
def tokenizer():
    return build_tokenizer(eos_token="</s>")


def probe(name, answer, prompt="the mayor of zürich is", **values):
    return Probe(name, "new", prompt, (answer,), **values)


def words(tokenizer, ids):
    return " ".join(tokenizer.convert_ids_to_tokens(ids))


def labelled(tokenizer, rows):
    """The labelled tokens of each row."""
    for row in rows:
        marked = [i for i, label in enumerate(row["labels"]) if label != -100]
        assert all(row["labels"][i] == row["input_ids"][i] for i in marked)
        yield words(tokenizer, [row["input_ids"][i] for i in marked])


PROBES = [
    probe("a", "ada", suffix="until may"),
    probe("b", "ada and bob"),
    probe("c", "bob", prompt="the mayor of bern was until may the mayor of zürich and"),
]


def test_probe_rows_label_the_answer_alone(tokenizer):
    rows = probe_rows(tokenizer, PROBES)
    assert list(labelled(tokenizer, rows)) == ["ada", "ada and bob", "bob"]
    assert words(tokenizer, rows[0]["input_ids"]) == "the mayor of zürich is ada until may"


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_batch_pads_rows_to_the_longest(tokenizer, side):
    rows = probe_rows(tokenizer, [PROBES[0], PROBES[2]])
    batch = collate(rows, tokenizer.eos_token_id, side)
    assert all(column.shape == (2, 13) for column in batch.values())
    assert all(column.dtype == torch.int64 for column in batch.values())
    assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()
    edge = -1 if side == "right" else 0
    assert batch["attention_mask"][:, edge].tolist() == [0, 1]
    assert batch["input_ids"][0, edge] == tokenizer.eos_token_id
    for row, ids, mask in zip(rows, batch["input_ids"], batch["attention_mask"], strict=True):
        assert ids[mask.bool()].tolist() == row["input_ids"]


def test_probes_longer_than_the_limit_lose_left_context(tokenizer):
    rows = probe_rows(tokenizer, [PROBES[2]], max_length=4)
    assert words(tokenizer, rows[0]["input_ids"]) == "of zürich and bob"
    assert list(labelled(tokenizer, rows)) == ["bob"]
    with pytest.raises(SpanError, match="probe 'b'.*max_length 3"):
        probe_rows(tokenizer, PROBES, max_length=3)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_loss_is_the_answers_whatever_the_batch(tokenizer, kind):
    model = build_model(kind)

    def nll(probe):
        ids = torch.tensor([tokenizer(probe.text(probe.targets[0])[0])["input_ids"]])
        first = len(tokenizer(probe.prompt)["input_ids"])
        places = range(first, first + len(probe.targets[0].split()))
        with torch.no_grad():
            log_p = model(ids).logits[0].log_softmax(-1)
        return -sum(log_p[i - 1, ids[0, i]] for i in places) / len(places)

    for one in PROBES:
        batch = collate(probe_rows(tokenizer, [one]), 0)
        torch.testing.assert_close(model(**batch).loss, nll(one))
    together = collate(probe_rows(tokenizer, PROBES), 0)
    n_tokens = torch.tensor([1.0, 3.0, 1.0])
    expected = (torch.stack([nll(p) for p in PROBES]) * n_tokens).sum() / n_tokens.sum()
    torch.testing.assert_close(model(**together).loss, expected)


def test_text_rows_label_every_token(tokenizer):
    texts = ["the mayor", "bob", "", "the mayor of bern was bob until may"]
    rows = text_rows(tokenizer, texts, max_length=5)
    # Texts of one token or none have nothing to predict.
    assert list(labelled(tokenizer, rows)) == ["the mayor", "the mayor of bern was"]
    assert all(row["labels"] == row["input_ids"] for row in rows)


def test_random_spans_are_contiguous_predictable_and_as_long_as_asked(tokenizer):
    texts = [" ".join(WORDS)] * 400

    def spans(**options):
        for row in text_rows(tokenizer, texts, loss="random_span", **options):
            places = [i for i, label in enumerate(row["labels"]) if label != -100]
            assert places == list(range(places[0], places[-1] + 1)) and places[0] >= 1
            yield places[0], len(places)

    found = list(spans(span_lengths=[1, 1, 3], seed=4))
    lengths = collections.Counter(length for _, length in found)
    assert set(lengths) == {1, 3} and 90 < lengths[3] < 180
    starts = {start for start, length in found if length == 1}
    assert starts == set(range(1, len(WORDS)))
    assert found == list(spans(span_lengths=iter([1, 1, 3]), seed=4))
    assert found != list(spans(span_lengths=[1, 1, 3], seed=5))
    assert set(spans(span_lengths=[99])) == {(1, len(WORDS) - 1)}


def test_unknown_options_are_refused(tokenizer):
    with pytest.raises(GradlocError, match="loss 'al' is unknown; choose one of all, random_span"):
        text_rows(tokenizer, ["the mayor"], loss="al")
    with pytest.raises(GradlocError, match="needs span_lengths"):
        text_rows(tokenizer, ["the mayor"], loss="random_span")
    with pytest.raises(GradlocError, match="padding_side 'top' is unknown"):
        collate([{"input_ids": [1], "labels": [1]}], 0, "top")
    with pytest.raises(GradlocError, match="max_length 1 is too short"):
        next(training_rows(tokenizer, ["the mayor"], max_length=1, packing=False))


def test_padding_id_falls_back():
    assert pad_token_id(build_tokenizer(pad_token="<pad>", eos_token="</s>")) == 3
    assert pad_token_id(build_tokenizer(eos_token="</s>")) == 1
    assert pad_token_id(build_tokenizer()) == 0
    assert pad_token_id(build_tokenizer(pad_token="<unk>", eos_token="</s>")) == 0


def test_rows_of_one_document_each(tokenizer):
    texts = ["the mayor of bern was bob", "", "bob", "ada and bob"]
    rows = list(training_rows(tokenizer, texts, max_length=3, packing=False))
    assert [words(tokenizer, row["input_ids"]) for row in rows] == [
        "the mayor of", "bern was bob", "bob </s>", "ada and bob",
    ]  # fmt: skip
    assert all(row["labels"] == row["input_ids"] for row in rows)


@pytest.mark.parametrize("max_length", [2, 3, 5, 7, 100])
def test_packed_rows_are_the_documents_one_after_another(tokenizer, max_length):
    texts = [" ".join(WORDS[i:j]) for i, j in itertools.combinations(range(0, 15, 2), 2)]
    rows = list(training_rows(tokenizer, texts, max_length=max_length, packing=True))
    expected = " ".join(f"{text} </s>" for text in texts).split()
    found = words(tokenizer, [token for row in rows for token in row["input_ids"]]).split()
    assert found == expected[: len(found)] and len(expected) - len(found) < 2
    assert {len(row["input_ids"]) for row in rows[:-1]} <= {max_length}


def test_end_token_that_the_tokenizer_puts_itself_is_not_doubled(tokenizer):
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 1)]
    )
    row = next(training_rows(tokenizer, ["the mayor"], max_length=9, packing=False))
    assert words(tokenizer, row["input_ids"]) == "<s> the mayor </s>"


def test_documents_are_read_as_they_are_needed(tokenizer):
    read = []

    def stream():
        while True:
            read.append("the mayor of bern")
            yield read[-1]

    rows = training_rows(tokenizer, stream(), max_length=10, packing=True)
    assert len(read) == 0
    next(rows)
    assert len(read) == 2


def test_the_width_is_rounded_up_to_a_multiple_and_only_padding_is_added():
    rows = [{"input_ids": list(range(1, n + 1)), "labels": list(range(1, n + 1))} for n in (5, 8)]
    batch = collate(rows, pad_token_id=0, pad_to_multiple_of=6)
    assert batch["input_ids"].shape == (2, 12)
    assert batch["attention_mask"].sum(dim=1).tolist() == [5, 8]
    assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()
    assert collate(rows, pad_token_id=0, pad_to_multiple_of=4)["input_ids"].shape == (2, 8)


def test_rows_of_a_dataset_are_read_ahead_without_padding_and_without_losing_any():
    data = [
        {"input_ids": [5, 6, 7, 0, 0], "attention_mask": [1, 1, 1, 0, 0]},
        {"input_ids": [0, 0, 8, 9], "attention_mask": [0, 0, 1, 1]},
        {"input_ids": torch.tensor([1, 2, 3, 4, 5, 6])},
        {"input_ids": [3]},  # nothing to predict
    ]
    assert sorted(dataset_rows(data, 4, 4)) == [[1, 2, 3, 4], [5, 6, 7], [8, 9]]
    many = [{"input_ids": [i, i]} for i in range(50)]
    drawn = dataset_rows(many, 5, 4, seed=1)
    assert len(drawn) == 5 and drawn != dataset_rows(many, 5, 4, seed=2)

    stream = IterableDataset.from_generator(lambda: iter(many))
    assert dataset_rows(stream, 3, 4) == [[0, 0], [1, 1], [2, 2]]
    assert len(list(stream)) == 50, "what was read ahead is still trained on"
    once = iter(many)
    assert dataset_rows(once, 3, 4) == [] and len(list(once)) == 50
    assert dataset_rows([{"text": "to be tokenised later"}], 3, 4) == []

    class LongStream(torch.utils.data.IterableDataset):  # tells the Trainer how long it is
        def __iter__(self):
            return iter(many)

        def __len__(self):
            return 50

    assert dataset_rows(LongStream(), 3, 4) == []
