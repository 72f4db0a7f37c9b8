"""What a model is asked about probes: the columns that metrics are read off."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from gradloc.data.probes import Probe
from gradloc.evaluation.generation import (
    greedy_step_log_probs,
    write_answers,
    write_beams,
    write_texts,
)
from gradloc.evaluation.scoring import score_probes
from gradloc.evaluation.scoring.items import probe_span, score_whole_probes

# Tokens that a model may write for an answer, as in CKL (arXiv:2110.03215, released code).
ANSWER_TOKENS = 10
# Tokens of the text whose fluency is measured, as in KnowEdit (released code).
PROSE_TOKENS = 100

Columns = dict[str, list]
Request = Callable[..., Columns]


def written(
    model: nn.Module, tokenizer: Any, probes: Sequence[Probe], progress: bool | None
) -> Columns:
    """What the model writes after the prompt, greedily, up to the end of the sentence."""
    prompts = [probe.prompt for probe in probes]
    return {"written": write_answers(model, tokenizer, prompts, max_new_tokens=ANSWER_TOKENS)}


def beams(
    model: nn.Module, tokenizer: Any, probes: Sequence[Probe], progress: bool | None
) -> Columns:
    """The ten likeliest continuations of the answer's length."""
    prompts = [probe.prompt for probe in probes]
    # From the end of the prompt, since a blank may be a token of its own.
    n_prompt = [len(tokenizer(prompt.rstrip())["input_ids"]) for prompt in prompts]
    n_whole = [len(probe_span(tokenizer, p, p.targets[0]).input_ids) for p in probes]
    n_tokens = [max(1, whole - own) for whole, own in zip(n_whole, n_prompt, strict=True)]
    return {"beams": write_beams(model, tokenizer, prompts, n_tokens)}


def prose(
    model: nn.Module, tokenizer: Any, probes: Sequence[Probe], progress: bool | None
) -> Columns:
    """A long continuation of the prompt."""
    prompts = [probe.prompt for probe in probes]
    return {"prose": write_texts(model, tokenizer, prompts, max_new_tokens=PROSE_TOKENS)}


def greedy_steps(
    model: nn.Module, tokenizer: Any, probes: Sequence[Probe], progress: bool | None
) -> Columns:
    """Both answers' log-probabilities in the steps of what the model writes (EvolvingQA)."""
    asked = [index for index, probe in enumerate(probes) if probe.old_targets]
    pairs = []
    for index in asked:
        probe = probes[index]
        spans = [
            probe_span(tokenizer, probe, answer)
            for answer in (probe.old_targets[0], probe.targets[0])
        ]
        pairs.append([[span.input_ids[p] for p in span.positions] for span in spans])
    found = greedy_step_log_probs(
        model, tokenizer, [probes[i].prompt for i in asked], pairs, max_new_tokens=ANSWER_TOKENS
    )
    columns: Columns = {"greedy_old": [None] * len(probes), "greedy_new": [None] * len(probes)}
    for index, (old, new) in zip(asked, found, strict=True):
        columns["greedy_old"][index], columns["greedy_new"][index] = sum(old), sum(new)
    return columns


REQUESTS: dict[str, Request] = {
    "answers": score_probes,
    "whole": score_whole_probes,
    "written": written,
    "beams": beams,
    "prose": prose,
    "greedy_steps": greedy_steps,
}
