"""Probes as tasks of lm-evaluation-harness.

Comes in: a probe file, named by ``--metadata`` or ``GRADLOC_PROBES``. Goes out: documents for the
harness, and the metrics of each from what the harness found. It runs no model.
"""

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import datasets
import numpy as np
from transformers import AutoTokenizer

from gradloc.data.probes import Probe, ProbeSet, load_probes
from gradloc.errors import GradlocError
from gradloc.evaluation.lm_eval import harness_request
from gradloc.evaluation.scoring.items import probe_span

logger = logging.getLogger("gradloc.lm_eval_tasks")

# Arguments of the harness's own models that say which tokenizer they use.
_TOKENIZER_OPTIONS = ("revision", "subfolder", "trust_remote_code", "gguf_file")


def facts(**options: Any) -> dict[str, datasets.Dataset]:
    """Documents of ``gradloc_facts``: every probe with its right answers.

    Args:
        **options: What ``--metadata`` and ``--model_args`` say; see ``README.md``.
    """
    return _documents("gradloc_facts", options, "targets", lambda probe: probe.targets)


def updates(**options: Any) -> dict[str, datasets.Dataset]:
    """Documents of ``gradloc_updates``: the new answer, then the old one."""
    return _documents(
        "gradloc_updates",
        options,
        "old_targets",
        lambda probe: (probe.targets[0], probe.old_targets[0]) if probe.old_targets else (),
    )


def choice(**options: Any) -> dict[str, datasets.Dataset]:
    """Documents of ``gradloc_choice``: the candidates."""
    return _documents("gradloc_choice", options, "candidates", lambda probe: probe.candidates)


def score_facts(doc: dict, results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """``nll`` (nats per token) and ``nll_sum`` (nats) of the first answer; ``exact`` of any."""
    if not doc["counts"]:
        return {}
    nats = -results[0][0]
    found = {"nll_sum": nats, "exact": float(any(greedy for _, greedy in results))}
    return found | ({"nll": nats / doc["n_tokens"][0]} if doc["n_tokens"] else {})


def score_updates(doc: dict, results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """1 where the new answer is likelier than the old one, per token and in sum."""
    if not doc["counts"]:
        return {}
    new, old = (-nats for nats, _ in results)
    found = {"prefers_new_sum": float(new < old)}
    if doc["n_tokens"]:
        n_new, n_old = doc["n_tokens"]
        found["prefers_new"] = float(new / n_new < old / n_old)
    return found


def score_choice(doc: dict, results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """1 where a right candidate is the likeliest, in sum and per character."""
    if not doc["counts"]:
        return {}
    sums = np.array([nats for nats, _ in results])
    best, best_by_length = sums.argmax(), (sums / np.array(doc["lengths"])).argmax()
    return {"acc": float(doc["right"][best]), "acc_norm": float(doc["right"][best_by_length])}


def _documents(
    task: str,
    options: dict[str, Any],
    field: str,
    answers_of: Callable[[Probe], tuple[str, ...]],
) -> dict[str, datasets.Dataset]:
    probes = _probes(task, options)
    asked = [(probe, answers_of(probe)) for probe in probes]
    asked = [(probe, answers) for probe, answers in asked if answers]
    counts = bool(asked)
    if not counts:
        logger.warning("%s: no probe has %s, so the task reports nothing", task, field)
        # The harness stops at a task without documents: one is asked and counts for nothing.
        first = next(iter(probes))
        asked = [(first, first.targets)]
    tokenizer = _tokenizer(task, options)
    rows, n_different, n_answers = [], 0, 0
    for probe, answers in asked:
        requests = [harness_request(probe, answer) for answer in answers]
        rows.append(
            {
                "id": probe.id,
                "context": requests[0][0],
                "continuations": [continuation for _, continuation in requests],
                "lengths": [len(answer) for answer in answers],
                "right": [answer in probe.targets for answer in answers],
                "n_tokens": [],
                "counts": counts,
            }
        )
        if tokenizer is None:
            continue
        for answer, request in zip(answers, requests, strict=True):
            ids, n_scored = _harness_tokens(tokenizer, *request)
            if n_scored < 1:
                raise GradlocError(
                    f"{task}: the answer {answer!r} of probe {probe.id!r} has no token of its own "
                    "where the harness cuts the text. Leave the probe out."
                )
            rows[-1]["n_tokens"].append(n_scored)
            n_answers += 1
            n_different += _differs(tokenizer, probe, answer, ids, n_scored)
    if n_different:
        logger.warning(
            "%s: of %d of %d answers the harness scores other tokens than gradloc, so the two "
            "differ there", task, n_different, n_answers,
        )  # fmt: skip
    return {"test": datasets.Dataset.from_list(rows)}


def _probes(task: str, options: dict[str, Any]) -> ProbeSet:
    """The probes that judge, of the group and depth asked for."""
    path = options.get("probes") or os.environ.get("GRADLOC_PROBES")
    if not path:
        raise GradlocError(
            f'{task}: no probe file is named. Give --metadata \'{{"probes": "FILE.jsonl"}}\', '
            "or set GRADLOC_PROBES."
        )
    asked = {key: options[key] for key in ("group", "depth", "split") if options.get(key)}
    probes = load_probes(path).select(**asked)
    if "split" not in asked:
        # Layers were chosen by these: `gradloc evaluate` leaves them out as well.
        probes = ProbeSet(probe for probe in probes if probe.split != "localization")
    if not len(probes):
        raise GradlocError(f"{task}: no probe of {path} is left to ask ({asked or 'all choose'}).")
    return probes


def _tokenizer(task: str, options: dict[str, Any]) -> Any:
    """The tokenizer that the harness's model uses; ``None`` if it is not known."""
    named = options.get("tokenizer") or options.get("pretrained")
    if not named:
        logger.warning(
            "%s: no tokenizer is named, so nothing is given per token. Add \"tokenizer\" to "
            "--metadata", task,
        )  # fmt: skip
        return None
    if not isinstance(named, str):  # a tokenizer in memory, through the Python API
        return named
    known = {key: options[key] for key in _TOKENIZER_OPTIONS if options.get(key)}
    if options.get("tokenizer"):
        known.pop("gguf_file", None)  # as the harness: the file is the model's
    return AutoTokenizer.from_pretrained(named, **known)


def _harness_tokens(tokenizer: Any, context: str, continuation: str) -> tuple[list[int], int]:
    """All tokens of a request as the harness makes them, and how many of the last it scores.

    The harness tells a model's tasks only the sum over the tokens. It cuts a text where the tokens
    of the context by itself end, and begins one without context with a start token.
    """
    if context:
        first = tokenizer(context)["input_ids"]
        ids = tokenizer(context + continuation)["input_ids"]
        return [*first, *ids[len(first) :]], len(ids) - len(first)
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    ids = tokenizer(continuation, add_special_tokens=False)["input_ids"]
    return (ids, len(ids) - 1) if ids[:1] == [start] else ([start, *ids], len(ids))


def _differs(tokenizer: Any, probe: Probe, answer: str, ids: list[int], n_scored: int) -> bool:
    """Whether gradloc scores other tokens of this answer than the harness."""
    span = probe_span(tokenizer, probe, answer)
    scored = tuple(range(len(ids) - n_scored, len(ids)))
    return (span.input_ids, span.positions) != (tuple(ids), scored)
