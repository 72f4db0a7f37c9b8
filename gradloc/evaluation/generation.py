"""What a model writes when it is asked."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig
from transformers.utils import logging as transformers_logging

from gradloc.data.batches import pad_rows, pad_token_id
from gradloc.evaluation.scoring import context_length
from gradloc.models.wrappers import evaluation_mode, unwrap

# The end of an answer: a line break, or a full stop that does not belong to an abbreviation
# ("St.", "U.S.", "Dr."), which is told by the length of the word before it.
_ANSWER_END = re.compile(r"\n|(?<=\w{3})[.!?](?=\s|$)")
# Greedy decoding; everything that a model's own settings could change is named here.
_GREEDY = {
    "do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0,
    "use_cache": True, "return_dict_in_generate": True,
}  # fmt: skip
# Prompts continued together.
BATCH_SIZE = 16


def write_answers(
    model: nn.Module, tokenizer: Any, prompts: Sequence[str], *, max_new_tokens: int = 8
) -> list[str]:
    """Let the model continue prompts greedily, up to the end of the sentence.

    Args:
        model: Causal language model; left as found. Its own generation settings are not used.
        tokenizer: Its tokenizer.
        prompts: Beginnings of sentences; white space at their end is taken off.
        max_new_tokens: Tokens written at most.

    Returns:
        The continuations without the prompts, cut at the first line break or sentence end.
    """
    return [_first_sentence(t) for t in write_texts(model, tokenizer, prompts, max_new_tokens)]


def write_texts(
    model: nn.Module, tokenizer: Any, prompts: Sequence[str], max_new_tokens: int
) -> list[str]:
    """As ``write_answers``, but whole: up to the end token or ``max_new_tokens``."""
    texts = [""] * len(prompts)
    for batch, output in generated(model, tokenizer, prompts, max_new_tokens):
        for index, ids in zip(batch, output.sequences, strict=True):
            texts[index] = tokenizer.decode(ids, skip_special_tokens=True)
    return texts


def generated(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: int,
    batch_size: int | None = None,
    **changed: Any,
) -> Iterator[tuple[list[int], Any]]:
    """Continue prompts, those of like length together.

    Args:
        model: Causal language model; left as found.
        tokenizer: Its tokenizer.
        prompts: Beginnings of sentences; white space at their end is taken off.
        max_new_tokens: Tokens written at most.
        batch_size: Prompts continued together; ``None``: ``BATCH_SIZE``.
        changed: Settings other than those of greedy decoding.

    Yields:
        Indices of the prompts, and the output, whose ``sequences`` hold the new tokens alone.
    """
    model = unwrap(model)
    generate: Any = model.generate
    settings = GenerationConfig(
        **{**_GREEDY, **changed},
        max_new_tokens=max_new_tokens,
        pad_token_id=pad_token_id(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
    )
    encoded = [tokenizer(prompt.rstrip())["input_ids"] for prompt in prompts]
    limit = context_length(model)
    room = max(1, limit - max_new_tokens) if limit else None
    encoded = [ids[-room:] if room else ids for ids in encoded]
    device, batch_size = next(model.parameters()).device, batch_size or BATCH_SIZE
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
    with evaluation_mode(model), torch.no_grad(), _quiet():
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            rows = [encoded[index] for index in batch]
            input_ids = pad_rows(rows, settings.pad_token_id, side="left")
            attention_mask = pad_rows([[1] * len(row) for row in rows], side="left")
            output = generate(
                input_ids=input_ids.to(device),
                attention_mask=attention_mask.to(device),
                generation_config=settings,
            )
            output.sequences = output.sequences[:, input_ids.shape[1] :]
            yield batch, output


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
