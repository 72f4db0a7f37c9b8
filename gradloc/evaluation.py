"""From checkpoints and a suite to what was learned and what was lost.

Comes in: models by name or in memory, and a suite. Goes out: an ``EvalResult``. The parts can be
called one by one, so that a run scores arm by arm and continues where it stopped: ``load_suite``,
``score_checkpoint`` for each model, ``summarize``.
"""

import gc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from gradloc.answers import write_answers
from gradloc.comparison import TrainingFacts, summarize
from gradloc.errors import ModelError
from gradloc.models import load_model, load_tokenizer, same_tokenizer
from gradloc.probes import Probe
from gradloc.results import EvalResult
from gradloc.scoring import TOKEN_BUDGET, score_probes, score_texts
from gradloc.suite_metrics import CheckpointScores
from gradloc.suites import Suite, load_suite, recipe_suite

__all__ = [
    "CheckpointScores",
    "Suite",
    "TrainingFacts",
    "choose_examples",
    "evaluate",
    "load_suite",
    "recipe_suite",
    "score_checkpoint",
    "summarize",
]

# A model by name or path, or in memory with its tokenizer.
Checkpoint = str | Path | tuple[nn.Module, Any]


def evaluate(
    checkpoint: Checkpoint | Sequence[str | Path] | Mapping[str, Checkpoint],
    suite: str | Path | Suite,
    *,
    baseline: Checkpoint | None = None,
    reference_arms: Sequence[str] | None = None,
    dtype: str = "float32",
    progress: bool | None = None,
) -> EvalResult:
    """Ask checkpoints what they learned and what they forgot.

    One model is in memory at a time; models given in memory are left as found.

    Args:
        checkpoint: Folder, hub id, ``.gguf`` file or a name of the packaged weights; a list of
            them; a mapping of arm names to them; or ``(model, tokenizer)`` in place of a name.
        suite: A suite, or what ``load_suite`` takes: ``temporal``, a YAML file, a probe file, a
            run folder.
        baseline: The model that "before" means. Without it there is no uptake and no forgetting,
            only scores, and invariant facts are not screened.
        reference_arms: Names of the checkpoints that were trained in full, to compare the others
            with at equal uptake. ``None``: those that gradloc trained with the policy ``all``.
        dtype: Type in which weights are loaded: ``float32`` or ``bfloat16``.
        progress: Show progress bars; ``None``: when on a terminal.

    Returns:
        Every metric with value, 95 % interval, n, unit and direction. Checkpoints are called by
        the last part of their path, with as much of the rest as tells them apart.

    Raises:
        SuiteError: The suite has problems.
        ModelError: A model cannot be loaded, or the tokenizers differ.
    """
    suite = suite if isinstance(suite, Suite) else load_suite(suite)
    arms = _named(checkpoint)
    tokenizers = _tokenizers([*([] if baseline is None else [baseline]), *arms.values()])
    before = None
    if baseline is not None:
        before = _score(baseline, tokenizers.pop(0), suite, dtype, progress)
        suite = suite.screened(before)
    scored: dict[str, CheckpointScores] = {}
    for (name, source), tokenizer in zip(arms.items(), tokenizers, strict=True):
        scored[name] = _score(source, tokenizer, suite, dtype, progress)
        # Without a baseline the first arm chooses the examples.
        suite = replace(suite, example_ids=tuple(scored[name].answers))
    facts = {
        name: TrainingFacts() if _is_live(source) else TrainingFacts.load(source)
        for name, source in arms.items()
    }
    return summarize(suite, before, scored, facts, reference_arms=reference_arms)


def score_checkpoint(
    model: nn.Module,
    tokenizer: Any,
    suite: Suite,
    *,
    checkpoint: str = "",
    token_budget: int = TOKEN_BUDGET,
    progress: bool | None = None,
) -> CheckpointScores:
    """Score one model on every item of a suite.

    Args:
        model: Causal language model; left as found.
        tokenizer: Its fast tokenizer.
        suite: The suite; where it names no examples, they are chosen by this model's scores.
        checkpoint: Where the weights are, for the record; default: where they were loaded from.
        token_budget: Tokens in a batch.
        progress: Show progress bars; ``None``: when on a terminal.

    Returns:
        The scores; ``save`` them and ``load`` them to continue an interrupted evaluation.
    """
    options = {"token_budget": token_budget, "progress": progress}
    columns = score_probes(model, tokenizer, suite.probes, **options)
    flat = [(domain, text) for domain, members in suite.texts.items() for text in members]
    nats, tokens = score_texts(model, tokenizer, [text for _, text in flat], **options)
    by_domain: dict[str, dict[str, list]] = {d: {"nats": [], "tokens": []} for d in suite.texts}
    for (domain, _), text_nats, n_tokens in zip(flat, nats.tolist(), tokens.tolist(), strict=True):
        by_domain[domain]["nats"].append(text_nats)
        by_domain[domain]["tokens"].append(n_tokens)
    shown = suite.example_ids
    if shown is None:
        shown = choose_examples(suite.probes, suite.n_examples, columns["exact"])
    prompts = {probe.id: probe.prompt for probe in suite.probes}
    written = write_answers(model, tokenizer, [prompts[identifier] for identifier in shown])
    return CheckpointScores(
        checkpoint=checkpoint or str(getattr(model, "name_or_path", "")),
        probe_ids=tuple(probe.id for probe in suite.probes),
        columns=columns,
        texts=by_domain,
        answers=dict(zip(shown, written, strict=True)),
    )


def choose_examples(
    probes: Sequence[Probe], n: int, exact: Sequence[bool] | None = None
) -> tuple[str, ...]:
    """Ids of a few probes to show, the same for the same input.

    Turn by turn an updated fact, a new one (paraphrased, where there is such) and an invariant
    one that the model has right, each of another entity, spread over the whole list.

    Args:
        probes: The probes.
        n: How many.
        exact: Whether the model has each probe right; ``None``: all count as right.

    Example:
        >>> make = lambda i, group: Probe(f"{group}{i}", group, "x", ("y",), entity=str(i))
        >>> choose_examples([make(i, g) for g in ("new", "invariant") for i in range(9)], 4)
        ('new0', 'new4', 'invariant0', 'invariant4')
    """
    right = exact if exact is not None else [True] * len(probes)
    pools: dict[str, list[Probe]] = {"updated": [], "new": [], "invariant": []}
    for probe, is_right in zip(probes, right, strict=True):
        if probe.group != "invariant" or is_right:
            pools[probe.group].append(probe)
    pools["new"] = [p for p in pools["new"] if p.depth == "paraphrase"] or pools["new"]
    for group, pool in pools.items():
        first_of_entity = {probe.entity or probe.id: probe for probe in reversed(pool)}
        pools[group] = [p for p in pool if first_of_entity[p.entity or p.id] is p]
    share = dict.fromkeys(pools, 0)
    while sum(share.values()) < n and any(share[g] < len(pool) for g, pool in pools.items()):
        for group, pool in pools.items():
            if share[group] < len(pool) and sum(share.values()) < n:
                share[group] += 1
    return tuple(
        pool[number * len(pool) // share[group]].id
        for group, pool in pools.items()
        for number in range(share[group])
    )


def _named(checkpoint: Any) -> dict[str, Checkpoint]:
    """Arm name -> checkpoint, from any of the forms that ``evaluate`` takes."""
    if isinstance(checkpoint, Mapping):
        return dict(checkpoint)
    if isinstance(checkpoint, str | Path) or _is_live(checkpoint):
        checkpoint = [checkpoint]
    paths = [("model",) if _is_live(c) else Path(c).parts or (str(c),) for c in checkpoint]
    for depth in range(1, max((len(path) for path in paths), default=0) + 1):
        names = ["/".join(path[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            break
    else:
        names = [f"{name}-{number}" for number, name in enumerate(names, start=1)]
    return dict(zip(names, checkpoint, strict=True))


def _is_live(checkpoint: Any) -> bool:
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


def _score(
    source: Checkpoint, tokenizer: Any, suite: Suite, dtype: str, progress: bool | None
) -> CheckpointScores:
    model = source[0] if _is_live(source) else load_model(source, dtype=dtype)
    scores = score_checkpoint(model, tokenizer, suite, checkpoint=_label(source), progress=progress)
    del model
    gc.collect()
    return scores


def _label(source: Checkpoint) -> str:
    if not _is_live(source):
        return str(source)
    return str(getattr(source[0], "name_or_path", "")) or type(source[0]).__name__
