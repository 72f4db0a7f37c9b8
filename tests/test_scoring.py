import copy
import logging

import numpy as np
import pytest
import torch
from conftest import build_model

from gradloc.data.probes import Probe
from gradloc.errors import ModelError, SpanError
from gradloc.evaluation.scoring import (
    Span,
    SpanScore,
    engine,
    items,
    score_probes,
    score_spans,
    score_texts,
    shared,
)
from gradloc.evaluation.scoring import (
    tokens as scoring_tokens,
)

KINDS = ["llama", "gpt2", "neox", "gemma"]


def random_spans(n=12, seed=0):
    rng = np.random.default_rng(seed)
    spans = []
    for _ in range(n):
        length = int(rng.integers(3, 40))
        n_scored = int(rng.integers(1, length))
        positions = sorted(rng.choice(np.arange(1, length), n_scored, replace=False).tolist())
        ids = tuple(rng.integers(0, 97, positions[-1] + 1).tolist())
        spans.append(Span(ids, tuple(positions)))
    return spans


def oracle(model, span):
    """Log-softmax over the whole sequence, one sequence at a time."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([span.input_ids[:-1]])).logits[0].double()
    log_probs = logits.log_softmax(-1)
    own = [float(log_probs[p - 1, span.input_ids[p]]) for p in span.positions]
    greedy = all(int(logits[p - 1].argmax()) == span.input_ids[p] for p in span.positions)
    return -sum(own), greedy


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("token_budget", [1, 90, 10_000])
def test_scores_equal_one_sequence_at_a_time(kind, token_budget):
    model, spans = build_model(kind), random_spans()
    # Let two spans be what greedy decoding writes, so that `greedy` is not always false.
    for index in (0, 5):
        ids, start = list(spans[index].input_ids), spans[index].positions[0]
        positions = tuple(range(start, len(ids)))
        for place in positions:
            with torch.no_grad():
                ids[place] = int(
                    model(input_ids=torch.tensor([ids[:place]])).logits[0, -1].argmax()
                )
        spans[index] = Span(tuple(ids), positions)
    found = score_spans(model, spans, token_budget=token_budget, progress=False)
    for span, score in zip(spans, found, strict=True):
        nats, greedy = oracle(model, span)
        assert score.nats == pytest.approx(nats, rel=1e-5, abs=1e-5)
        assert (score.n_tokens, score.greedy) == (len(span.positions), greedy)
    assert sum(score.greedy for score in found) >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_scores_do_not_depend_on_order(kind):
    model, spans = build_model(kind), random_spans(n=9)
    order = np.random.default_rng(1).permutation(9)
    straight = score_spans(model, spans, progress=False)
    shuffled = score_spans(model, [spans[i] for i in order], token_budget=60, progress=False)
    for place, index in enumerate(order):
        assert shuffled[place].nats == pytest.approx(straight[index].nats, rel=1e-5, abs=1e-5)


def test_scores_without_logits_to_keep_are_the_same(monkeypatch, llama):
    spans = random_spans()
    expected = score_spans(llama, spans, progress=False)
    monkeypatch.setattr("gradloc.models.logits._takes_positions", lambda model: False)
    for score, same in zip(score_spans(llama, spans, progress=False), expected, strict=True):
        assert score.nats == pytest.approx(same.nats, rel=1e-5)
        assert score.predicted == same.predicted


def test_logits_are_asked_for_at_scored_positions_only(monkeypatch, llama):
    asked = []

    def spy(model, input_ids, positions, **options):
        asked.append((tuple(input_ids.shape), positions.tolist()))
        return original(model, input_ids, positions, **options)

    original = scoring_tokens.forward_at
    monkeypatch.setattr(scoring_tokens, "forward_at", spy)
    spans = [Span(tuple(range(10)), (7, 9)), Span(tuple(range(8)), (6, 7))]
    score_spans(llama, spans, progress=False)
    assert asked == [((2, 9), [5, 6, 8])]


def test_a_batch_never_holds_more_logits_than_allowed(monkeypatch, llama):
    shapes = []
    original = scoring_tokens.forward_at

    def spy(*arguments, **options):
        logits, cache = original(*arguments, **options)
        shapes.append(logits.shape)
        return logits, cache

    monkeypatch.setattr(scoring_tokens, "forward_at", spy)
    monkeypatch.setattr(engine, "LOGITS_AT_ONCE", 97 * 100)
    texts = [Span(tuple([5] * n), tuple(range(1, n))) for n in (40, 35, 30, 9, 8, 7, 6)]
    score_spans(llama, texts, progress=False)
    assert max(np.prod(shape) for shape in shapes) <= 97 * 100
    assert len(shapes) < len(texts)


def test_model_is_left_as_found(llama):
    llama.train()
    llama.model.layers[1].eval()
    modes = [module.training for module in llama.modules()]
    before, config = copy.deepcopy(llama.state_dict()), llama.config.to_dict()
    random_state = torch.get_rng_state()
    score_spans(llama, random_spans(), progress=False)
    assert [module.training for module in llama.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in llama.state_dict().items())
    assert all(parameter.grad is None for parameter in llama.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert llama.config.to_dict() == config
    # Training goes on afterwards.
    llama(input_ids=torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()


def test_probe_columns(llama, character_tokenizer):
    probes = [
        Probe("a", "new", "The head of Orla is", ("Ann",), suffix=" today."),
        Probe("b", "updated", "Money:", ("euro", "the euro"), old_targets=("kuna", "lipa")),
        Probe("c", "invariant", "It is a fact that the capital of France is", ("Paris",)),
    ]
    found = score_probes(llama, character_tokenizer, probes, progress=False)
    texts = {
        "a": ("The head of Orla is Ann", 4),
        "b": ("Money: euro", 5),
        "old": ("Money: kuna", 5),
    }
    for name, (text, _) in texts.items():
        # A token a character: the blank before the answer belongs to it.
        n_answer = len(text.split()[-1]) + 1
        ids = tuple(character_tokenizer(text)["input_ids"])
        nats, _ = oracle(llama, Span(ids, tuple(range(len(ids) - n_answer, len(ids)))))
        column, row = ("old_nll", 1) if name == "old" else ("nll", "abc".index(name))
        assert found[column][row] * n_answer == pytest.approx(nats, rel=1e-5)
    assert found["n_tokens"] == [4, 5, 6]
    assert found["nll_sum"][0] == pytest.approx(found["nll"][0] * 4)
    assert found["old_nll"][0] is None and found["old_exact"] == [None, False, None]
    assert found["exact"] == [False, False, False]


def test_any_target_may_be_the_exact_one(monkeypatch, llama, character_tokenizer):
    probe = Probe("b", "updated", "Money:", ("euro", "mark"), old_targets=("kuna", "lipa"))
    scores = {"euro": False, "mark": True, "kuna": False, "lipa": True}

    def fake(model, spans, **_):
        words = [
            "".join(character_tokenizer.convert_ids_to_tokens(span.input_ids))[-4:]
            for span in spans
        ]
        return [SpanScore(8.0, 4, (0,) * 4, 4 if scores[word] else 3) for word in words]

    monkeypatch.setattr(items, "score_spans", fake)
    found = score_probes(llama, character_tokenizer, [probe])
    assert (found["exact"], found["old_exact"]) == ([True], [True])


def test_texts_score_every_token_but_the_first(llama, character_tokenizer):
    texts = ["Rain fell on the hills.", "x", "", "A much longer text, " * 3]
    nats, tokens, n_bytes = score_texts(
        llama, character_tokenizer, texts, max_length=30, progress=False
    )
    assert tokens.tolist() == [22, 0, 0, 29]
    # One byte a token here, and the first token of a text is not scored.
    assert n_bytes.tolist() == [22, 0, 0, 29]
    for index in (0, 3):
        ids = tuple(character_tokenizer(texts[index])["input_ids"][:30])
        expected, _ = oracle(llama, Span(ids, tuple(range(1, len(ids)))))
        assert nats[index] == pytest.approx(expected, rel=1e-5)
    assert nats[1] == nats[2] == 0


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_prompt_longer_than_the_context_loses_its_left_side(kind, caplog):
    model = build_model(kind)  # 64 positions
    ids = tuple(np.random.default_rng(0).integers(0, 97, 90).tolist())
    with caplog.at_level(logging.WARNING):
        (found,) = score_spans(model, [Span(ids, (88, 89))], progress=False)
    # 64 tokens fit; the 65th is only predicted.
    expected, _ = oracle(model, Span(ids[-65:], (63, 64)))
    assert found.nats == pytest.approx(expected, rel=1e-5)
    assert "1 of 1 sequences" in caplog.text


def test_answer_longer_than_the_context_is_refused():
    with pytest.raises(SpanError, match="do not fit into the model's context of 64"):
        score_spans(build_model("gpt2"), [Span(tuple([1] * 90), tuple(range(5, 90)))])


def test_bfloat16_is_scored_in_float32(llama):
    spans = random_spans(n=4)
    expected = score_spans(llama, spans, progress=False)
    found = score_spans(llama.to(torch.bfloat16), spans, progress=False)
    assert [s.nats for s in found] == pytest.approx([s.nats for s in expected], rel=0.1)


def test_nothing_to_score(llama, character_tokenizer):
    assert score_spans(llama, [], progress=False) == []
    assert score_probes(llama, character_tokenizer, [], progress=False) == {}
    assert all(c.shape == (0,) for c in score_texts(llama, character_tokenizer, []))


# ---- one computation of what sequences share ---------------------------------------------------


def answers_of_prompts(n=9, seed=3):
    """Prompts with several endings each: of one token, nested, and with scored prompt tokens."""
    rng = np.random.default_rng(seed)
    spans, owners = [], []
    for owner in range(n):
        prompt = tuple(rng.integers(0, 97, rng.integers(3, 20)).tolist())
        first = 1 if owner % 3 == 0 else len(prompt)  # every third scores the prompt as well
        for length in (1, 1, 4, 7)[: 2 + owner % 3]:
            ids = prompt + tuple(rng.integers(0, 97, length).tolist())
            spans.append(Span(ids, tuple(range(first, len(ids)))))
            owners.append(owner)
        if owner % 4 == 0:  # an answer that goes on where another ends
            spans.append(Span(spans[-1].input_ids + (5, 6), spans[-1].positions))
            owners.append(owner)
    return spans, owners


@pytest.mark.parametrize("kind", [*KINDS, "qwen"])
@pytest.mark.parametrize("token_budget", [8, 60, 10_000])
def test_sharing_a_prompt_changes_no_score(kind, token_budget):
    model = build_model(kind)
    spans, owners = answers_of_prompts()
    found = score_spans(model, spans, owners=owners, token_budget=token_budget, progress=False)
    for span, score in zip(spans, found, strict=True):
        nats, greedy = oracle(model, span)
        assert score.nats == pytest.approx(nats, rel=1e-5, abs=1e-5)
        assert (score.n_tokens, score.greedy) == (len(span.positions), greedy)


def count_tokens(monkeypatch, module, name, seen):
    original = getattr(module, name)

    def spy(model, input_ids, *args, **options):
        seen.append(input_ids.numel())
        return original(model, input_ids, *args, **options)

    monkeypatch.setattr(module, name, spy)


def test_a_prompt_runs_through_the_model_once(monkeypatch, llama):
    prompt = tuple(range(20))
    spans = [Span((*prompt, 40 + i, 50 + i), (20, 21)) for i in range(4)]
    seen = []
    count_tokens(monkeypatch, shared, "forward_at", seen)
    count_tokens(monkeypatch, scoring_tokens, "forward_at", seen)
    score_spans(llama, spans, owners=[0] * 4, progress=False)
    # The prompt once, and the first token of each answer; the last is only predicted.
    assert sum(seen) == 20 + 4


def test_short_beginnings_are_not_shared(monkeypatch, llama):
    seen = []
    count_tokens(monkeypatch, shared, "forward_at", seen)
    spans = [Span((1, *range(30 + i, 50 + i)), tuple(range(1, 21))) for i in range(2)]
    score_spans(llama, spans, owners=[0, 0], progress=False)
    assert seen == []


def test_a_model_without_keys_and_values_is_scored_all_the_same(monkeypatch, llama):
    spans, owners = answers_of_prompts(n=4)
    expected = score_spans(llama, spans, progress=False)
    monkeypatch.setattr(shared, "_can_share", lambda cache: False)
    found = score_spans(llama, spans, owners=owners, progress=False)
    assert [s.nats for s in found] == pytest.approx([s.nats for s in expected], rel=1e-5)


def test_candidates_are_scored_beside_the_target(llama, character_tokenizer):
    probe = Probe("a", "invariant", "Grass is", ("green",), candidates=("red", "green", "blue"))
    found = score_probes(llama, character_tokenizer, [probe], progress=False)
    (nats,) = found["candidate_nats"]
    assert nats[1] == pytest.approx(found["nll_sum"][0])
    for text, own in zip(probe.candidates, nats, strict=True):
        ids = tuple(character_tokenizer(f"Grass is {text}")["input_ids"])
        expected, _ = oracle(llama, Span(ids, tuple(range(len("Grass is"), len(ids)))))
        assert own == pytest.approx(expected, rel=1e-5)
    assert found["candidate_lengths"] == [[3, 5, 4]]
    assert found["candidate_right"] == [[False, True, False]]


def test_whole_sentences_begin_with_the_end_token(llama, character_tokenizer):
    probe = Probe("m", "invariant", "", ("She sings.",), candidates=("She sings.", "She sing."))
    (nats,) = score_probes(llama, character_tokenizer, [probe], progress=False)["candidate_nats"]
    for text, own in zip(probe.candidates, nats, strict=True):
        ids = (character_tokenizer.eos_token_id, *character_tokenizer(text)["input_ids"])
        assert own == pytest.approx(oracle(llama, Span(ids, tuple(range(1, len(ids)))))[0])


def test_a_tokenizer_without_a_start_is_refused_for_whole_sentences(llama, character_tokenizer):
    bare = copy.deepcopy(character_tokenizer)
    bare.eos_token = None
    probe = Probe("m", "invariant", "", ("Yes.",), candidates=("Yes.", "No."))
    with pytest.raises(ModelError, match="probe 'm' has no prompt.*Set tokenizer.bos_token"):
        score_probes(llama, bare, [probe], progress=False)


def test_tokens_without_embeddings_are_refused(llama):
    with pytest.raises(ModelError, match="makes token 97, but the model has embeddings of 97"):
        score_spans(llama, [Span((1, 97), (1,))], progress=False)


def test_mixed_types_are_named(llama):
    llama.model.layers[1].mlp.to(torch.bfloat16)
    with pytest.raises(ModelError, match="mixed types.*3 tensors of bfloat16, .* of float32"):
        score_spans(llama, random_spans(n=2), progress=False)


def test_cut_prompts_are_counted(character_tokenizer):
    model = build_model("gpt2")  # 64 positions
    probes = [
        Probe("a", "new", "x" * 80 + " is", ("Ann",)),
        Probe("b", "new", "It is", ("Ann",)),
    ]
    assert score_probes(model, character_tokenizer, probes)["truncated"] == [True, False]
