"""What a model writes when it is asked.

Comes in: a causal language model with its tokenizer, and prompts. Goes out: the text that it
adds to each. It judges nothing: scores come from ``gradloc.scoring``, where the answer is given.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig
from transformers.utils import logging as transformers_logging

from gradloc.batches import pad_token_id
from gradloc.layers import evaluation_mode, unwrap
from gradloc.scoring import context_length

# The end of an answer: a line break, or a full stop that does not belong to an abbreviation
# ("St.", "U.S.", "Dr."), which is told by the length of the word before it.
_ANSWER_END = re.compile(r"\n|(?<=\w{3})[.!?](?=\s|$)")


def write_answers(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 8,
    batch_size: int = 16,
) -> list[str]:
    """Let the model continue prompts greedily, up to the end of the sentence.

    Args:
        model: Causal language model; left as found. Its own generation settings are not used.
        tokenizer: Its tokenizer.
        prompts: Beginnings of sentences; white space at their end is taken off.
        max_new_tokens: Tokens written at most.
        batch_size: Prompts continued together.

    Returns:
        The continuations without the prompts, cut at the first line break or sentence end.
    """
    model = unwrap(model)
    encoded = [tokenizer(prompt.rstrip())["input_ids"] for prompt in prompts]
    limit = context_length(model)
    room = max(1, limit - max_new_tokens) if limit else None
    encoded = [ids[-room:] if room else ids for ids in encoded]
    # Everything that a model's own settings could change is named here.
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        use_cache=True,
        pad_token_id=pad_token_id(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
    )
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
    answers = [""] * len(encoded)
    with evaluation_mode(model), torch.no_grad(), _quiet():
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            written = _generate(model, [encoded[index] for index in batch], settings)
            for index, ids in zip(batch, written, strict=True):
                answers[index] = _first_sentence(tokenizer.decode(ids, skip_special_tokens=True))
    return answers


def _generate(model: nn.Module, rows: list[list[int]], settings: GenerationConfig) -> Tensor:
    device = next(model.parameters()).device
    width = max(len(row) for row in rows)
    input_ids = torch.full((len(rows), width), settings.pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    for number, row in enumerate(rows):
        input_ids[number, width - len(row) :] = torch.tensor(row)
        attention_mask[number, width - len(row) :] = 1
    output = model.generate(
        input_ids=input_ids.to(device),
        attention_mask=attention_mask.to(device),
        generation_config=settings,
    )
    return output[:, width:]


def _first_sentence(text: str) -> str:
    """Text up to its first line break or sentence end.

    Example:
        >>> _first_sentence(" the euro. It is")
        'the euro'
        >>> _first_sentence(" St. Petersburg, Russia")
        'St. Petersburg, Russia'
    """
    return _ANSWER_END.split(text.strip(), maxsplit=1)[0].strip()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what ``generate`` says about settings that are meant as they are."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(before)
