"""What a model is asked about probes: the columns that metrics are read off."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from gradloc.data.probes import Probe
from gradloc.evaluation.generation import generated, write_answers, write_texts
from gradloc.evaluation.scoring import score_probes
from gradloc.evaluation.scoring.items import probe_span, score_whole_probes

# Tokens that a model may write for an answer, as in CKL (arXiv:2110.03215, released code).
ANSWER_TOKENS = 10
# Tokens of the text whose fluency is measured, as in KnowEdit (released code).
PROSE_TOKENS = 100
# Width of a beam search and number of its continuations; prompts searched together.
N_BEAMS, BEAM_BATCH_SIZE = 10, 4

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
    # A causal model does not stop behind an answer, so each prompt is continued by as many tokens
    # as its answer has. From the end of the prompt, since a blank may be a token of its own.
    n_prompt = [len(tokenizer(probe.prompt.rstrip())["input_ids"]) for probe in probes]
    n_whole = [len(probe_span(tokenizer, p, p.targets[0]).input_ids) for p in probes]
    n_tokens = [max(1, whole - own) for whole, own in zip(n_whole, n_prompt, strict=True)]
    found: list[list[str]] = [[] for _ in probes]
    for length in sorted(set(n_tokens)):
        members = [index for index, n in enumerate(n_tokens) if n == length]
        asked = [probes[index].prompt for index in members]
        # The end token is not allowed.
        settings = {"min_new_tokens": length, "num_beams": N_BEAMS, "num_return_sequences": N_BEAMS}
        for batch, output in generated(
            model, tokenizer, asked, length, BEAM_BATCH_SIZE, **settings
        ):
            texts = tokenizer.batch_decode(output.sequences, skip_special_tokens=True)
            for row, place in enumerate(batch):
                own = texts[row * N_BEAMS : (row + 1) * N_BEAMS]
                found[members[place]] = [text.strip() for text in own]
    return {"beams": found}


def prose(
    model: nn.Module, tokenizer: Any, probes: Sequence[Probe], progress: bool | None
) -> Columns:
    """A long continuation of the prompt."""
    prompts = [probe.prompt for probe in probes]
    return {"prose": write_texts(model, tokenizer, prompts, PROSE_TOKENS)}


def greedy_steps(
    model: nn.Module, tokenizer: Any, probes: Sequence[Probe], progress: bool | None
) -> Columns:
    """Both answers' log-probabilities in the steps of what the model writes (EvolvingQA)."""
    columns: Columns = {"greedy_old": [None] * len(probes), "greedy_new": [None] * len(probes)}
    asked = [index for index, probe in enumerate(probes) if probe.old_targets]
    prompts = [probes[index].prompt for index in asked]
    for batch, output in generated(model, tokenizer, prompts, ANSWER_TOKENS, output_scores=True):
        # Step t is conditioned on what the model wrote in the steps before, not on the answer.
        steps = [scores.float().log_softmax(-1).cpu() for scores in output.scores]
        for row, place in enumerate(batch):
            probe = probes[asked[place]]
            answers = {"greedy_old": probe.old_targets[0], "greedy_new": probe.targets[0]}
            for name, answer in answers.items():
                span = probe_span(tokenizer, probe, answer)
                ids = [span.input_ids[position] for position in span.positions]
                # Longer answers are cut at the last step.
                own = (float(step[row, token]) for step, token in zip(steps, ids, strict=False))
                columns[name][asked[place]] = sum(own)
    return columns


REQUESTS: dict[str, Request] = {
    "answers": score_probes,
    "whole": score_whole_probes,
    "written": written,
    "beams": beams,
    "prose": prose,
    "greedy_steps": greedy_steps,
}
