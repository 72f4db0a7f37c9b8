import pytest
import torch
from conftest import build_model

from gradloc.evaluation import generation
from gradloc.evaluation.generation import _first_sentence, write_answers

PROMPTS = ["The coin of Croatia is the", "It rains", "In that year the head of Orla was called "]


def greedy(model, tokenizer, prompt, n):
    """One token at a time, without cache and without a batch."""
    ids = tokenizer(prompt.rstrip())["input_ids"]
    start = len(ids)
    for _ in range(n):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    return _first_sentence(tokenizer.decode(ids[start:], skip_special_tokens=True))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "neox"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_answers_equal_greedy_decoding_one_token_at_a_time(
    kind, batch_size, character_tokenizer, monkeypatch
):
    monkeypatch.setattr(generation, "BATCH_SIZE", batch_size)
    model = build_model(kind)
    found = write_answers(model, character_tokenizer, PROMPTS)
    assert found == [greedy(model, character_tokenizer, prompt, 8) for prompt in PROMPTS]
    assert any(found)


def test_generation_settings_of_the_model_do_not_matter(llama, character_tokenizer):
    expected = write_answers(llama, character_tokenizer, PROMPTS)
    llama.generation_config.repetition_penalty = 50.0
    llama.generation_config.do_sample = True
    llama.generation_config.num_beams = 3
    before = llama.generation_config.to_dict()
    assert write_answers(llama, character_tokenizer, PROMPTS) == expected
    assert llama.generation_config.to_dict() == before


def test_model_stays_in_training_mode(llama, character_tokenizer):
    llama.train()
    write_answers(llama, character_tokenizer, PROMPTS[:1])
    assert all(module.training for module in llama.modules())


def test_no_prompts_no_answers(llama, character_tokenizer):
    assert write_answers(llama, character_tokenizer, []) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" the euro. It has", "the euro"),
        ("St. Moritz, in", "St. Moritz, in"),
        (" 3.5 per cent", "3.5 per cent"),
        ("kuna\nNext", "kuna"),
        ("Paris!", "Paris"),
        ("", ""),
    ],
)
def test_answers_end_with_their_sentence(text, expected):
    assert _first_sentence(text) == expected
