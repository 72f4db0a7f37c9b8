"""From checkpoints and a suite to what was learned and what was lost."""

import functools
import gc
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn
from typing_extensions import TypeIs

from gradloc import __version__
from gradloc.errors import ModelError
from gradloc.evaluation.compare import summarize, training_facts
from gradloc.evaluation.examples import choose_examples
from gradloc.evaluation.generation import write_answers
from gradloc.evaluation.requests import REQUESTS
from gradloc.evaluation.results import EvalResult
from gradloc.evaluation.score_log import ScoreLog
from gradloc.evaluation.score_record import CheckpointScores
from gradloc.evaluation.scoring import score_texts
from gradloc.evaluation.scoring.answer_checks import distinguishable
from gradloc.evaluation.suites import Suite, load_suite
from gradloc.models import describe, fingerprint, load_model, load_tokenizer, same_tokenizer
from gradloc.models.checkpoints import saved_checkpoints

# A model by name or path, or in memory with its tokenizer.
Checkpoint = str | Path | tuple[nn.Module, Any]


def evaluate(
    checkpoint: Checkpoint | Sequence[str | Path] | Mapping[str, Checkpoint],
    suite: str | Path | Suite,
    *,
    baseline: Checkpoint | None = None,
    reference_arms: Sequence[str] | None = None,
    dtype: str = "float32",
    scores_dir: str | Path | None = None,
    lm_eval: Sequence[str] = (),
    lm_eval_options: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> EvalResult:
    """Ask checkpoints what they learned and what they forgot.

    One model is in memory at a time; models given in memory are left as found.

    Args:
        checkpoint: Folder, hub id, ``.gguf`` file or a name of the packaged weights; a list of
            them; a mapping of arm names to them; or ``(model, tokenizer)`` in place of a name. A
            folder of ``checkpoint-*`` stands for all of them, in the order of their steps.
        suite: A suite, or what ``load_suite`` takes: ``temporal``, a YAML file, a probe file, a
            run folder.
        baseline: The model that "before" means. Without it there is no uptake and no forgetting,
            only scores, and invariant facts are not screened.
        reference_arms: Names of the checkpoints that were trained in full, to compare the others
            with at equal uptake. ``None``: those that gradloc trained with the policy ``all``
            and no method.
        dtype: Type in which weights are loaded: ``float32`` or ``bfloat16``.
        scores_dir: Folder in which scores are kept as they come, one file a checkpoint: an
            evaluation that was broken off continues, and only new items are scored. Models in
            memory are always scored anew.
        lm_eval: Tasks of lm-evaluation-harness, reported as forgetting.
        lm_eval_options: Options of ``gradloc.evaluation.lm_eval.run_tasks``, such as ``limit`` and
            ``include_path``.
        progress: Show progress bars; ``None``: when on a terminal.

    Returns:
        Every metric with value, 95 % interval, n, unit and direction. Checkpoints are called by
        the last part of their path, with as much of the rest as tells them apart.

    Raises:
        SuiteError: The suite has problems.
        ProbeError: Answers that cannot be told apart, unless the suite says what to do.
        ModelError: A model cannot be loaded, or the tokenizers differ. Scores of the models
            before it are kept in ``scores_dir``.
    """
    suite = suite if isinstance(suite, Suite) else load_suite(suite)
    arms = _named(checkpoint)
    tokenizers = _tokenizers([*([] if baseline is None else [baseline]), *arms.values()])
    suite = replace(suite, probes=distinguishable(tokenizers[0], suite.probes, suite.ambiguous))
    options = _Options(dtype, scores_dir, tuple(lm_eval), dict(lm_eval_options or {}), progress)
    before = None
    if baseline is not None:
        before = _score(baseline, tokenizers.pop(0), suite, options)
        suite = suite.screened(before)
    scored: dict[str, CheckpointScores] = {}
    for (name, source), tokenizer in zip(arms.items(), tokenizers, strict=True):
        scored[name] = _score(source, tokenizer, suite, options)
        # Without a baseline the first arm chooses the examples.
        suite = replace(suite, example_ids=tuple(scored[name].answers))
    facts = {
        name: {} if _is_live(source) else training_facts(source) for name, source in arms.items()
    }
    return summarize(suite, before, scored, facts, reference_arms=reference_arms)


def score_checkpoint(
    model: nn.Module,
    tokenizer: Any,
    suite: Suite,
    *,
    checkpoint: str = "",
    progress: bool | None = None,
) -> CheckpointScores:
    """Score one model on every item of a suite.

    Args:
        model: Causal language model; left as found.
        tokenizer: Its fast tokenizer.
        suite: The suite; where it names no examples, they are chosen by this model's scores.
        checkpoint: Where the weights are, for the record; default: where they were loaded from.
        progress: Show progress bars; ``None``: when on a terminal.

    Returns:
        The scores.
    """
    checkpoint = checkpoint or str(getattr(model, "name_or_path", ""))
    return _score_items(lambda: model, tokenizer, suite, checkpoint, ScoreLog(), progress)


def _score_items(
    load: Callable[[], nn.Module],
    tokenizer: Any,
    suite: Suite,
    checkpoint: str,
    log: ScoreLog,
    progress: bool | None,
) -> CheckpointScores:
    """Scores of all items; the model is loaded only if one is missing from the log."""
    columns: dict[str, list] = {}
    row_of = {probe.id: row for row, probe in enumerate(suite.probes)}
    for request, asked in suite.probes_of_requests().items():

        def read(probes, request=request):
            found = REQUESTS[request](load(), tokenizer, probes, progress=progress)
            return [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]

        for probe, row in zip(asked, log.fill(request, asked, read), strict=True):
            for name, value in row.items():
                column = columns.setdefault(name, [None] * len(suite.probes))
                column[row_of[probe.id]] = value

    def read_texts(some):
        found = score_texts(load(), tokenizer, some, progress=progress)
        return list(zip(*found, strict=True))

    texts = {}
    for domain, members in suite.texts.items():
        rows = log.fill("text", members, read_texts)
        texts[domain] = {
            name: [row[place] for row in rows]
            for place, name in enumerate(("nats", "tokens", "bytes"))
        }
    shown = suite.example_ids
    if shown is None:
        shown = choose_examples(suite.probes, suite.n_examples, columns["exact"])
    prompts = {probe.id: probe.prompt for probe in suite.probes}
    written = log.fill(
        "example",
        [prompts[identifier] for identifier in shown],
        lambda some: write_answers(load(), tokenizer, some),
    )
    return CheckpointScores(
        checkpoint=checkpoint,
        probe_ids=tuple(probe.id for probe in suite.probes),
        columns=columns,
        texts=texts,
        answers=dict(zip(shown, written, strict=True)),
    )


def _named(checkpoint: Any) -> dict[str, Checkpoint]:
    """Arm name -> checkpoint, from any of the forms that ``evaluate`` takes."""

    def expanded(source: Checkpoint) -> list[Any]:
        return [source] if _is_live(source) else saved_checkpoints(source)

    if isinstance(checkpoint, Mapping):
        named: dict[str, Checkpoint] = {}
        for name, source in checkpoint.items():
            found = expanded(source)
            last = [name] if len(found) == 1 else [f"{name}/{Path(path).name}" for path in found]
            named |= dict(zip(last, found, strict=True))
        return named
    if isinstance(checkpoint, str | Path) or _is_live(checkpoint):
        checkpoint = [checkpoint]
    sources = [found for source in checkpoint for found in expanded(source)]
    paths = [("model",) if _is_live(c) else Path(c).parts or (str(c),) for c in sources]
    names: list[str] = []
    for depth in range(1, max(map(len, paths), default=0) + 1):
        names = ["/".join(path[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return dict(zip(names, sources, strict=True))
    numbered = [f"{name}-{number}" for number, name in enumerate(names, start=1)]
    return dict(zip(numbered, sources, strict=True))


def _is_live(checkpoint: Any) -> TypeIs[tuple[nn.Module, Any]]:
    return (
        isinstance(checkpoint, tuple) and len(checkpoint) == 2 and hasattr(checkpoint[0], "forward")
    )


def _tokenizers(sources: Sequence[Checkpoint]) -> list[Any]:
    """Tokenizers of all models, before any weights are read.

    Raises:
        ModelError: They differ.
    """
    found = [source[1] if _is_live(source) else load_tokenizer(source) for source in sources]
    for source, tokenizer in zip(sources, found, strict=True):
        if not same_tokenizer(found[0], tokenizer):
            raise ModelError(
                f"{_label(source)}: its tokenizer differs from that of {_label(sources[0])}, so "
                "their likelihoods cannot be compared. Evaluate it by itself, with its own "
                "baseline."
            )
    return found


class _Options(NamedTuple):
    """How models are scored; the fields are arguments of ``evaluate``."""

    dtype: str
    scores_dir: str | Path | None
    tasks: tuple[str, ...]
    task_options: dict[str, Any]
    progress: bool | None


def _score(source: Checkpoint, tokenizer: Any, suite: Suite, options: _Options) -> CheckpointScores:
    @functools.cache
    def load() -> nn.Module:
        return source[0] if _is_live(source) else load_model(source, dtype=options.dtype)

    log, progress = ScoreLog(), options.progress
    if options.scores_dir is not None and not _is_live(source):
        log = ScoreLog(_log_file(source, options.dtype, options.scores_dir))
    scores = _score_items(load, tokenizer, suite, _label(source), log, progress)
    if options.tasks:
        from gradloc.evaluation.lm_eval import run_tasks

        own = options.task_options
        named = {name: str(value) for name, value in sorted(own.items())}
        found = log.fill(
            f"lm-eval {named}",
            options.tasks,
            # One at a time, so that a broken off evaluation keeps the tasks that are done.
            lambda some: [
                run_tasks(load(), tokenizer, [task], progress=progress, **own) for task in some
            ],
            chunk=1,
        )
        tasks = {name: scores for group in found for name, scores in group.items()}
        scores = replace(scores, tasks=tasks)
    load.cache_clear()
    gc.collect()
    return scores


def _log_file(source: str | Path, dtype: str, folder: str | Path) -> Path:
    """A file for the scores of these very weights in this type, by this version."""
    identity = f"{fingerprint(source)}\n{dtype}\n{__version__}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    name = re.sub(r"[^\w.-]+", "-", describe(source)).strip("-")
    return Path(folder) / f"{name}-{digest}.jsonl"


def _label(source: Checkpoint) -> str:
    if not _is_live(source):
        return str(source)
    return str(getattr(source[0], "name_or_path", "")) or type(source[0]).__name__
