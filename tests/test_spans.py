"""Every family of tokenizers, trained here on a few lines; the oracle rebuilds bytes itself."""

import json
import random
import unicodedata

import pytest
from tokenizers import (
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from gradloc.data.probes import Probe
from gradloc.data.spans import encode_probe, encode_span
from gradloc.errors import SpanError

TEXTS = (
    "The capital of France is Paris, and has been for a long time.  Two  blanks.",
    "Η πρωτεύουσα της Ελλάδας είναι η Αθήνα εδώ και πολλά χρόνια.",
    "عاصمة مصر هي القاهرة وهي مدينة كبيرة جدا.",
    "भारत की राजधानी नई दिल्ली है और यह पुरानी है।",
    "日本の首都は東京で、人口は約1400万人です。",
    "Cafe\u0301 naïve été Zu\u0308rich 👩‍🚀🏽 😀 ok ﬁn ½",
    "mixed: 東京 (Tokyo), Αθήνα/Athens, \u200fالقاهرة\u200f – 한국어\nnew line\ttab",
)
BYTE_TOKENS = [f"<0x{value:02X}>" for value in range(256)]
# The inverse of the printable alphabet in which byte-level vocabularies spell bytes.
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
SPELLED = {chr(b): b for b in PRINTABLE}
SPELLED |= {chr(256 + n): b for n, b in enumerate(b for b in range(256) if b not in PRINTABLE)}


def edited(tokenizer, change):
    data = json.loads(tokenizer.to_str())
    change(data)
    return Tokenizer.from_str(json.dumps(data))


def with_bos(tokenizer, *first):
    template = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    tokenizer.post_processor = processors.Sequence([*first, template]) if first else template
    return tokenizer


def byte_level(trim, prefix=False):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.train_from_iterator(
        TEXTS * 3,
        trainers.BpeTrainer(
            vocab_size=420,
            special_tokens=["<s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return with_bos(tokenizer, processors.ByteLevel(add_prefix_space=prefix, trim_offsets=trim))


def metaspace_bpe(legacy=False):
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if legacy:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(
        TEXTS[:2] * 3,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=["<unk>", "<s>", *BYTE_TOKENS], show_progress=False
        ),
    )

    def keep_two_special(data):
        data["added_tokens"] = data["added_tokens"][:2]

    return with_bos(edited(tokenizer, keep_two_special))


def unigram(normalizer=None):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator(
        TEXTS[:2] * 3,
        trainers.UnigramTrainer(
            vocab_size=90, special_tokens=["<unk>", "<s>"], unk_token="<unk>", show_progress=False
        ),
    )

    def add_bytes(data):
        vocabulary = data["model"]["vocab"]
        data["model"]["vocab"] = [
            *vocabulary[:2],
            *([token, -20.0] for token in BYTE_TOKENS),
            *vocabulary[2:],
        ]
        data["model"]["byte_fallback"] = True

    return with_bos(edited(tokenizer, add_bytes))


def wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        TEXTS * 3,
        trainers.WordPieceTrainer(
            vocab_size=500, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


FAMILIES = {
    "byte_level": lambda: byte_level(trim=False),
    "byte_level_trimmed": lambda: byte_level(trim=True),
    "byte_level_prefix": lambda: byte_level(trim=True, prefix=True),
    "bpe_byte_fallback": metaspace_bpe,
    "bpe_prepend": lambda: metaspace_bpe(legacy=True),
    "unigram_byte_fallback": unigram,
    "unigram_nfkc": lambda: unigram(normalizers.NFKC()),
    "unigram_nfd_stripped": lambda: unigram(
        normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    ),
    "wordpiece": wordpiece,
}
# Families whose tokens are the text's own bytes, so that the oracle can be exact.
LOSSLESS = [
    "byte_level",
    "byte_level_trimmed",
    "byte_level_prefix",
    "bpe_byte_fallback",
    "bpe_prepend",
    "unigram_byte_fallback",
]


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request):
    return request.param, wrap(FAMILIES[request.param]())


def wrap(tokenizer):
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def token_bytes(name, token):
    """The bytes that a token stands for, from its spelling alone; no offsets."""
    if token in ("<s>", "[CLS]", "[SEP]"):
        return b""
    if name.startswith("byte_level"):
        return bytes(SPELLED[c] for c in token)
    if token in BYTE_TOKENS:
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").encode()


def oracle(name, tokenizer, text, start, end):
    """Marks from counting bytes from the right, where no blank is added."""
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])
    pieces = [token_bytes(name, token) for token in tokens]
    total = len(text.encode())
    surplus = len(b"".join(pieces)) - total
    assert b"".join(pieces)[surplus:] == text.encode()
    low, high = len(text[:start].encode()), len(text[:end].encode())
    marks, reached = [], -surplus
    for piece in pieces:
        marks.append(bool(piece) and max(reached, low) < min(reached + len(piece), high))
        reached += len(piece)
    return marks


def spans_of(text, count, seed):
    generator = random.Random(seed)
    for _ in range(count):
        start, end = sorted(generator.sample(range(len(text) + 1), 2))
        yield start, end


@pytest.mark.parametrize("name", LOSSLESS)
def test_salient_tokens_are_those_whose_bytes_lie_in_the_span(name):
    tokenizer = wrap(FAMILIES[name]())
    n_compared = n_refused = 0
    for number, text in enumerate(TEXTS):
        for start, end in spans_of(text, 60, number):
            try:
                encoded = encode_span(tokenizer, text, start, end)
            except SpanError as error:
                # Trimmed offsets do not say which token has a blank at the border of a span.
                edges = text[start] + text[end - 1]
                assert name.endswith(("trimmed", "prefix")) and any(c.isspace() for c in edges), (
                    error
                )
                n_refused += 1
                continue
            assert encoded.salient == oracle(name, tokenizer, text, start, end), text[start:end]
            n_compared += 1
    assert n_compared > 4 * n_refused and n_compared > 300


def test_no_family_loses_a_letter_of_the_span_or_marks_a_token_too_many(family):
    name, tokenizer = family
    n_compared = 0
    for number, text in enumerate(TEXTS):
        ids = tokenizer(text)["input_ids"]
        for start, end in spans_of(text, 60, number):
            inside = plain(text[start:end])
            if not text[start].isalnum() or not text[end - 1].isalnum():
                continue
            try:
                encoded = encode_span(tokenizer, text, start, end)
            except SpanError:
                assert name not in LOSSLESS
                continue
            assert encoded.input_ids == ids
            chosen = [i for i, salient in enumerate(encoded.salient) if salient]
            assert chosen == list(range(chosen[0], chosen[-1] + 1))
            if "[UNK]" in tokenizer.convert_ids_to_tokens([ids[i] for i in chosen]):
                continue
            assert inside in spoken(name, tokenizer, ids, chosen)
            for rest in (chosen[1:], chosen[:-1]):
                # Half a character is no character.
                assert inside not in spoken(name, tokenizer, ids, rest)
            n_compared += 1
    assert n_compared > 100


def plain(text):
    """Letters without accents, case, blanks and invisible marks."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    return "".join(c for c in decomposed if unicodedata.category(c)[0] not in "MCZ")


def spoken(name, tokenizer, ids, chosen):
    tokens = tokenizer.convert_ids_to_tokens([ids[i] for i in chosen])
    pieces = [token_bytes(name, t.removeprefix("##")) for t in tokens]
    return plain(b"".join(pieces).decode("utf-8", errors="ignore"))


def test_one_unknown_character_of_a_run_marks_its_own_bytes_only():
    tokenizer = wrap(unigram())
    encoded = encode_span(tokenizer, "x 東京", 3, 4)
    salient = [i for i, s in zip(encoded.input_ids, encoded.salient, strict=True) if s]
    assert tokenizer.convert_ids_to_tokens(salient) == ["<0xE4>", "<0xBA>", "<0xAC>"]
    # The tokenizer itself says that each of the six bytes stands for both characters.
    offsets = tokenizer("x 東京", return_offsets_mapping=True)["offset_mapping"]
    assert offsets.count((2, 4)) == 6


def test_a_run_that_normalisation_shortens_is_refused_when_cut_and_taken_whole():
    tokenizer = wrap(unigram(normalizers.NFC()))
    text = "x e\u0301東"  # three characters, of which the tokenizer sees two
    assert (2, 5) in tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    with pytest.raises(SpanError, match="Widen the span"):
        encode_span(tokenizer, text, 4, 5)
    encoded = encode_span(tokenizer, text, 2, 5)
    assert spoken("unigram", tokenizer, encoded.input_ids, range(len(encoded.salient))) == "xe東"
    assert sum(encoded.salient) == len("é東".encode())


def test_blank_before_the_text_is_not_salient():
    tokenizer = wrap(metaspace_bpe())
    encoded = encode_span(tokenizer, "東 is", 0, 1)
    tokens = tokenizer.convert_ids_to_tokens(encoded.input_ids)
    assert tokens[:3] == ["<s>", "▁", "<0xE6>"]
    assert encoded.salient[:6] == [False, False, True, True, True, False]


def test_blanks_inside_the_span_are_salient_though_trimmed_away():
    tokenizer = wrap(byte_level(trim=True))
    text = "x y  z w"
    encoded = encode_span(tokenizer, text, 2, 6)
    assert encoded.salient == oracle("byte_level", tokenizer, text, 2, 6)
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    assert any(s and a == b for s, (a, b) in zip(encoded.salient, offsets, strict=True))


def test_special_tokens_are_never_salient(family):
    _, tokenizer = family
    text = "The capital of France is Paris"
    encoded = encode_span(tokenizer, text, 4, len(text))
    mask = tokenizer(text, return_special_tokens_mask=True)["special_tokens_mask"]
    assert sum(mask) >= 1
    assert not any(s and m for s, m in zip(encoded.salient, mask, strict=True))


@pytest.mark.parametrize("start, end", [(0, 0), (3, 3), (4, 2), (-1, 2), (0, 99), (99, 100)])
def test_span_outside_its_text_is_refused(start, end):
    with pytest.raises(SpanError, match=f"span {start}:{end} is empty or lies outside its text"):
        encode_span(wrap(byte_level(trim=False)), "The text", start, end)


def test_span_that_no_token_covers_is_refused():
    tokenizer = Tokenizer(models.BPE())  # without an unknown token, unknown letters vanish
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=40, show_progress=False)
    tokenizer.train_from_iterator(["the city is named paris"], trainer)
    with pytest.raises(SpanError, match="no token carries '東京'"):
        encode_span(wrap(tokenizer), "the city is 東京", 12, 14)
    with pytest.raises(SpanError, match="no token carries '東' of the span 'paris東'"):
        encode_span(wrap(tokenizer), "the city is paris東", 12, 18)
    assert any(encode_span(wrap(tokenizer), "the city is paris東", 12, 17).salient)


def test_span_at_the_first_token_is_refused_unless_something_precedes_it():
    tokenizer = wrap(byte_level(trim=False))
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    with pytest.raises(SpanError, match="begins at the first token"):
        encode_span(tokenizer, "Paris is big", 0, 5)
    assert encode_span(wrap(byte_level(trim=False)), "Paris is big", 0, 5).salient[1]


def test_slow_tokenizer_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(SpanError, match="Slow is a slow tokenizer"):
        encode_span(Slow(), "The text", 0, 3)


@pytest.mark.parametrize("has_bos", [True, False])
def test_truncation_keeps_the_span_and_the_nearest_context(has_bos):
    tokenizer = wrap(byte_level(trim=False))
    if not has_bos:
        tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    text = "The capital of France is Paris, and has been for a long time."
    start = text.index("Paris")
    full = encode_span(tokenizer, text, start, start + 5)
    first, last = full.salient.index(True), len(full.salient) - full.salient[::-1].index(True)
    span = full.input_ids[first:last]
    for max_length in range(1, len(full.input_ids) + 3):
        if max_length < len(span) + 1:
            with pytest.raises(SpanError, match=f"max_length {max_length}"):
                encode_span(tokenizer, text, start, start + 5, max_length=max_length)
            continue
        cut = encode_span(tokenizer, text, start, start + 5, max_length=max_length)
        assert len(cut.input_ids) == min(max_length, len(full.input_ids))
        marked = [i for i, s in zip(cut.input_ids, cut.salient, strict=True) if s]
        assert marked == span and not cut.salient[0]
        assert not has_bos or cut.input_ids[0] == full.input_ids[0]
        # What stays is one piece of the text around the span, and nothing after the span is
        # kept while something before it is cut.
        body = cut.input_ids[has_bos:]
        n_after = len(cut.salient) - cut.salient[::-1].index(True)
        if n_after < len(cut.salient):
            assert cut.input_ids == full.input_ids[:max_length]
        else:
            assert body == full.input_ids[last - len(body) : last]


def test_probe_is_encoded_with_its_answer_and_named_in_errors():
    tokenizer = wrap(byte_level(trim=False))
    probe = Probe("p1", "new", "The capital of France is", ("Paris",), suffix=", and")
    encoded = encode_probe(tokenizer, probe)
    marked = [i for i, s in zip(encoded.input_ids, encoded.salient, strict=True) if s]
    spelled = "".join(tokenizer.convert_ids_to_tokens(marked))
    assert bytes(SPELLED[c] for c in spelled).strip() == b"Paris"
    other = encode_probe(tokenizer, probe, "Athens")
    assert other.input_ids != encoded.input_ids
    with pytest.raises(SpanError, match="probe 'p1': .*max_length 2"):
        encode_probe(tokenizer, probe, max_length=2)


@pytest.mark.slow
def test_packaged_tokenizer_is_exact():
    from gradloc.models import load_tokenizer

    tokenizer = load_tokenizer("smollm2-135m-instruct")
    n_compared = 0
    for number, text in enumerate(TEXTS):
        text = "x " + text  # without BOS the first token cannot be in a span
        for start, end in spans_of(text, 100, number):
            if start < 2:
                continue
            encoded = encode_span(tokenizer, text, start, end)
            assert encoded.salient == oracle("byte_level", tokenizer, text, start, end)
            n_compared += 1
    assert n_compared > 500


def test_a_blank_of_its_own_before_an_answer_counts_where_asked_for(character_tokenizer):
    text = "It was  1994."
    plain = encode_span(character_tokenizer, text, 8, 12)
    blank = encode_span(character_tokenizer, text, 8, 12, with_blank=True)
    assert [i for i, marked in enumerate(plain.salient) if marked] == [8, 9, 10, 11]
    assert [i for i, marked in enumerate(blank.salient) if marked] == [6, 7, 8, 9, 10, 11]
    # The first token is never marked, and a bracket is no blank.
    for text, start in ((" a", 1), ("(a", 1)):
        found = encode_span(character_tokenizer, text, start, 2, with_blank=True)
        assert found.salient == [False, True]
