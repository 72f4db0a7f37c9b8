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

# Prompts continued together.
BATCH_SIZE, BEAM_BATCH_SIZE = 16, 4
# Width of a beam search and number of its continuations.
N_BEAMS = 10


def write_answers(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 8,
    batch_size: int = BATCH_SIZE,
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
    written = write_texts(
        model, tokenizer, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size
    )
    return [_first_sentence(text) for text in written]


def write_texts(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 100,
    batch_size: int = BATCH_SIZE,
) -> list[str]:
    """As ``write_answers``, but whole: up to the end token or ``max_new_tokens``."""
    settings = _settings(tokenizer, max_new_tokens)
    texts = [""] * len(prompts)
    for batch, output in _generated(model, tokenizer, prompts, settings, batch_size):
        for index, ids in zip(batch, output.sequences, strict=True):
            texts[index] = tokenizer.decode(ids, skip_special_tokens=True)
    return texts


def write_beams(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    n_tokens: Sequence[int],
) -> list[list[str]]:
    """The likeliest continuations of each prompt, found by beam search.

    A causal model does not stop behind an answer, so each prompt is continued by as many tokens
    as its answer has; the end token is not allowed.

    Args:
        model: Causal language model; left as found.
        tokenizer: Its tokenizer.
        prompts: Beginnings of sentences.
        n_tokens: Tokens to write for each.

    Returns:
        For each prompt ``N_BEAMS`` texts, the likeliest first, without outer blanks.
    """
    found: list[list[str]] = [[] for _ in prompts]
    for length in sorted(set(n_tokens)):
        members = [index for index, n in enumerate(n_tokens) if n == length]
        settings = _settings(
            tokenizer,
            length,
            min_new_tokens=length,
            num_beams=N_BEAMS,
            num_return_sequences=N_BEAMS,
        )
        asked = [prompts[index] for index in members]
        for batch, output in _generated(model, tokenizer, asked, settings, BEAM_BATCH_SIZE):
            texts = tokenizer.batch_decode(output.sequences, skip_special_tokens=True)
            for row, place in enumerate(batch):
                own = texts[row * N_BEAMS : (row + 1) * N_BEAMS]
                found[members[place]] = [text.strip() for text in own]
    return found


def greedy_step_log_probs(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    answers: Sequence[Sequence[Sequence[int]]],
    max_new_tokens: int,
) -> list[list[list[float]]]:
    """Log-probabilities that answers' tokens have in the steps of the model's own answer.

    Step t is conditioned on what the model wrote in the steps before, not on the answer.

    Args:
        model: Causal language model; left as found.
        tokenizer: Its tokenizer.
        prompts: Beginnings of sentences.
        answers: For each prompt the token ids of several answers.
        max_new_tokens: Steps; longer answers are cut there.

    Returns:
        For each prompt and answer the log-probability of its token t in step t, in nats.
    """
    found: list[list[list[float]]] = [[] for _ in prompts]
    settings = _settings(tokenizer, max_new_tokens)
    for batch, output in _generated(
        model, tokenizer, prompts, settings, BATCH_SIZE, return_scores=True
    ):
        steps = [scores.float().log_softmax(-1).cpu() for scores in output.scores]
        for row, index in enumerate(batch):
            found[index] = [
                [float(step[row, token]) for step, token in zip(steps, ids, strict=False)]
                for ids in answers[index]
            ]
    return found


def _settings(tokenizer: Any, max_new_tokens: int, **changed: Any) -> GenerationConfig:
    """Greedy decoding; everything that a model's own settings could change is named here."""
    plain = {
        "do_sample": False,
        "num_beams": 1,
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "use_cache": True,
        "return_dict_in_generate": True,
    }
    return GenerationConfig(
        **{**plain, **changed},
        max_new_tokens=max_new_tokens,
        pad_token_id=pad_token_id(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
    )


def _generated(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    settings: GenerationConfig,
    batch_size: int,
    return_scores: bool = False,
) -> Iterator[tuple[list[int], Any]]:
    """Continue prompts, those of like length together; yields their indices and the output.

    The output's ``sequences`` hold the new tokens alone.
    """
    model = unwrap(model)
    generate: Any = model.generate
    encoded = [tokenizer(prompt.rstrip())["input_ids"] for prompt in prompts]
    limit = context_length(model)
    room = max(1, limit - settings.max_new_tokens) if limit else None
    encoded = [ids[-room:] if room else ids for ids in encoded]
    settings.output_scores = return_scores
    device = next(model.parameters()).device
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
