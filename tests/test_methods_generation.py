"""Sampled texts against a loop that runs the whole sequence for each token."""

import pytest
import torch
from conftest import build_model

from gradloc.errors import MethodError
from gradloc.training.methods.generation import generate_texts

SPECIAL = {94, 95, 96}  # "~" (the end token), <unk> and <pad> of the character tokenizer


def slow_texts(model, tokenizer, n, n_tokens, seed, temperature=1.0, beginnings=None):
    draws = torch.rand((n, n_tokens), generator=torch.Generator().manual_seed(seed))
    texts = []
    for row, beginning in zip(draws, beginnings or [[]] * n, strict=True):
        ids = [tokenizer.eos_token_id, *beginning]
        for draw in row:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids])).logits[0, -1].double()
            logits[list(SPECIAL)] = -torch.inf
            probabilities = (logits / temperature).softmax(0).tolist()
            token, total = -1, 0.0
            while total <= draw:
                token += 1
                total += probabilities[token]
            ids.append(token)
        texts.append("".join(chr(32 + token) for token in ids[1:]))
    return texts


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_texts_are_those_of_a_loop_without_a_cache(any_model, character_tokenizer, temperature):
    found = generate_texts(
        any_model, character_tokenizer, n=3, n_tokens=7, seed=5, temperature=temperature
    )
    assert found == slow_texts(any_model, character_tokenizer, 3, 7, 5, temperature)


def test_texts_go_on_from_their_beginnings(any_model, character_tokenizer):
    words = ["the c", "of Os", "and t"]
    beginnings = [[ord(letter) - 32 for letter in word] for word in words]
    options = dict(n=3, n_tokens=6, seed=5, beginnings=beginnings)
    found = generate_texts(any_model, character_tokenizer, batch_size=2, **options)
    assert found == slow_texts(any_model, character_tokenizer, **options)
    assert [text[:5] for text in found] == words
    for wrong in (beginnings[:2], [*beginnings[:2], [1]]):
        with pytest.raises(MethodError, match="3 beginnings of one length"):
            generate_texts(any_model, character_tokenizer, **(options | {"beginnings": wrong}))


def test_batches_do_not_matter_and_seeds_do(llama, character_tokenizer):
    options = dict(n=5, n_tokens=8)
    found = generate_texts(llama, character_tokenizer, seed=1, **options)
    assert found == generate_texts(llama, character_tokenizer, seed=1, batch_size=2, **options)
    assert found != generate_texts(llama, character_tokenizer, seed=2, **options)
    assert len(set(found)) == 5


def test_the_model_and_the_random_state_stay_as_found(character_tokenizer):
    model = build_model("gpt2").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    generate_texts(model, character_tokenizer, n=2, n_tokens=4, seed=0)
    assert model.training and model.transformer.drop.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


class WithoutEnds:
    """A tokenizer that has neither a first nor a last token."""

    bos_token_id = eos_token_id = None
    all_special_ids = (94, 95, 96)

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def __len__(self):
        return len(self._tokenizer)

    def batch_decode(self, ids, **options):
        return self._tokenizer.batch_decode(ids, **options)


def test_without_bos_and_eos_the_first_token_is_drawn_uniformly(llama, character_tokenizer):
    texts = generate_texts(llama, WithoutEnds(character_tokenizer), n=940, n_tokens=1, seed=0)
    counts = torch.bincount(torch.tensor([ord(text) - 32 for text in texts]), minlength=94)
    assert counts.shape == (94,)
    # 10 expected of each; chi-squared with 93 degrees of freedom, 99.99 % below 154.
    assert ((counts - 10) ** 2 / 10).sum() < 154


@pytest.mark.parametrize("wrong", [{"n": 0}, {"n_tokens": -1}, {"temperature": 0.0}])
def test_options_out_of_range_are_refused(llama, character_tokenizer, wrong):
    options = {"n": 1, "n_tokens": 1, "seed": 0} | wrong
    with pytest.raises(MethodError, match=next(iter(wrong))):
        generate_texts(llama, character_tokenizer, **options)
