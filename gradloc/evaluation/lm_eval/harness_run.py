"""Tasks of the harness on a model in memory."""

import contextlib
import copy
import io
import logging
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gradloc.evaluation.lm_eval.harness_tasks import load_tasks, require_harness
from gradloc.evaluation.lm_eval.task_scores import TaskScores, read_scores
from gradloc.models.wrappers import evaluation_mode, unwrap

# Requests in one forward pass. assumption: fits beside any model that fits at all; the harness
# holds (batch, sequence, vocabulary) twice.
BATCH_SIZE = 8
# Resamples for standard errors that have no formula. The harness's own 100 000 take minutes for
# the perplexity of 5 000 documents.
_N_BOOTSTRAP = 1000
# Seeds of `lm_eval`, set before tasks are loaded: some shuffle their documents or examples.
_PYTHON_SEED, _SEED = 0, 1234
# Without this variable the harness forks the process, with torch's threads in it, for every
# bootstrap.
_NO_FORKS = "DISABLE_MULTIPROC"


def run_tasks(
    model: nn.Module,
    tokenizer: Any,
    tasks: Sequence[str],
    *,
    include_path: str | Path | Sequence[str | Path] | None = None,
    limit: int | float | None = None,
    batch_size: int | str = BATCH_SIZE,
    metadata: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> dict[str, TaskScores]:
    """Run tasks of lm-evaluation-harness through its Python API.

    Args:
        model: Causal language model; left in the mode it had. The random states of Python, NumPy
            and torch, which the harness seeds, are restored.
        tokenizer: Its tokenizer; left as found.
        tasks: Names of tasks, groups or tags, patterns (``blimp_*``) or paths of YAML files.
        include_path: Folders with tasks of one's own, which go before the harness's.
        limit: Documents of each task, from its beginning; below 1 a share of them.
        batch_size: Requests in one forward pass, or ``auto``.
        metadata: What tasks are told, such as ``{"probes": "facts.jsonl"}``.
        progress: Show the harness's progress bars and log; ``None``: when on a terminal.

    Returns:
        Task -> scores, in the order asked for, groups and tags replaced by their tasks.

    Raises:
        GradlocError: lm-eval is not installed, a task is unknown, its data cannot be had, or it
            runs code that the model writes.

    References:
        Gao et al., The Language Model Evaluation Harness, doi:10.5281/zenodo.12608602.
    """
    require_harness()
    model = unwrap(model)
    shown = sys.stderr.isatty() if progress is None else progress
    with _seeded(model), _quiet(shown):
        loaded = load_tasks(tasks, include_path, metadata or {})
        if not loaded:
            return {}
        for task in loaded.values():
            if task.get_config("num_fewshot") is None:
                task.set_config("num_fewshot", 0)
            task.set_fewshot_seed(_SEED)
        from lm_eval.evaluator import evaluate
        from lm_eval.models.huggingface import HFLM

        # The harness gives a tokenizer that has no padding token one: a copy may keep it.
        own_tokenizer = copy.deepcopy(tokenizer)
        # Ignored, because lm_eval's decorator hides the arguments of its class.
        language_model = HFLM(model, tokenizer=own_tokenizer, batch_size=batch_size)  # type: ignore[call-arg]
        # Not simple_evaluate: it calls git and pip to describe the machine, for seconds.
        results = evaluate(
            language_model,
            {"tasks": loaded, "groups": {}},
            limit=limit,  # type: ignore[arg-type]  # a share works too; its annotation says int
            bootstrap_iters=_N_BOOTSTRAP,
            log_samples=True,
        )
        assert results is not None  # only other processes of a distributed run get none
        return {name: read_scores(name, task, results) for name, task in loaded.items()}


@contextlib.contextmanager
def _seeded(model: nn.Module) -> Iterator[None]:
    """Run with the seeds of the harness; leave modes, random states and environment as found."""
    python, numpy, variable = random.getstate(), np.random.get_state(), os.environ.get(_NO_FORKS)
    os.environ[_NO_FORKS] = "1"
    try:
        with evaluation_mode(model):  # keeps torch's random state
            random.seed(_PYTHON_SEED)
            np.random.seed(_SEED)
            torch.manual_seed(_SEED)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        del os.environ[_NO_FORKS]
        if variable is not None:
            os.environ[_NO_FORKS] = variable


@contextlib.contextmanager
def _quiet(shown: bool) -> Iterator[None]:
    """Keep standard output free of what the harness prints, and the terminal if not ``shown``.

    Its progress bars have no switch of their own.
    """
    if shown:
        with contextlib.redirect_stdout(sys.stderr):
            yield
        return
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
