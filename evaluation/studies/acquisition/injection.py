"""Invented facts in a stream of ordinary text: which, at which updates, in which rows."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gradloc.data.corpora import python_docs_passages
from gradloc.data.corpora.documents import Document
from gradloc.data.probes import Probe
from gradloc.errors import GradlocError

# Shown at the first injection step alone; the same text at each; another wording at each.
SCENARIOS = ("once", "duplicated", "paraphrased")
# Shorter blocks of the manual are headings and single lines of grammar.
_MIN_WORDS = 20


@dataclass(frozen=True)
class Injection:
    """What is injected when. Updates are counted from 0.

    Args:
        n_facts: Facts in each of ``SCENARIOS``.
        n_controls: Facts that are measured alike and not injected: what their probes gain is
            learned of the passages' manner, not of the facts.
        start: First injection step: the optimizer's moments settle on ordinary text first.
        every: Steps from one exposure of a fact to its next.
        times: Exposures of a fact.
        spread: Fact number j of each scenario is shown ``j % spread`` steps later: a batch of 4
            cannot hold 120 passages.
    """

    n_facts: int = 40
    n_controls: int = 10
    start: int = 16
    every: int = 40
    times: int = 4
    spread: int = 40


@dataclass(frozen=True)
class Fact:
    """An entity, the texts that state its fact, and the probes that ask for it.

    Args:
        entity: Its name.
        passages: The text that holds the verbatim probe, then the others.
        probes: The verbatim probe, then the paraphrases.
        scenario: One of ``SCENARIOS``; empty for a control.
        steps: Updates whose batches hold a passage, ascending.
    """

    entity: str
    passages: tuple[str, ...]
    probes: tuple[Probe, ...]
    scenario: str = ""
    steps: tuple[int, ...] = ()


def plan_injection(
    config: Injection, documents: Iterable[Document], probes: Iterable[Probe]
) -> list[Fact]:
    """Assign facts to scenarios by turns, so that each gets facts of every sort.

    Returns:
        The injected facts, then the controls.

    Raises:
        GradlocError: There are fewer facts than are needed.
    """
    n_injected = config.n_facts * len(SCENARIOS)
    needed = n_injected + config.n_controls
    asked = (f for f in gather_facts(documents, probes) if len(f.passages) >= config.times)
    found = list(itertools.islice(asked, needed))
    if len(found) < needed:
        raise GradlocError(
            f"{needed} facts are needed, and the corpus has {len(found)} that a verbatim probe "
            f"asks for and {config.times} documents state. Enlarge the corpus "
            "(corpus.options.n_entities, n_phrasings), or lower --n-facts or --times."
        )
    for number, fact in enumerate(found[:n_injected]):
        turn, place = divmod(number, len(SCENARIOS))
        first = config.start + turn % config.spread
        n_times = config.times if place else 1
        steps = tuple(first + config.every * time for time in range(n_times))
        found[number] = replace(fact, scenario=SCENARIOS[place], steps=steps)
    return found


def gather_facts(documents: Iterable[Document], probes: Iterable[Probe]) -> Iterator[Fact]:
    """Facts that documents state and probes ask for, one an entity, in the probes' order.

    The original passage is a document that holds a verbatim probe's whole text; the others name
    both the entity and the answer. Of an entity's verbatim probes the one with most passages is
    taken, the shortest of several; and with it the paraphrases of the same answer. Probes that
    choose layers, and invariant ones, are passed over.
    """
    texts = list(dict.fromkeys(document.text for document in documents))
    by_entity: dict[str, list[Probe]] = {}
    for probe in probes:
        if probe.entity and probe.group != "invariant" and probe.split != "localization":
            by_entity.setdefault(probe.entity, []).append(probe)
    for entity, asked in by_entity.items():
        about = [text for text in texts if entity in text]
        found = [
            (passages, probe)
            for probe in asked
            if probe.depth == "verbatim" and probe.targets[0] != entity
            if (passages := _passages(probe, about))
        ]
        if found:
            passages, verbatim = max(found, key=lambda pair: (len(pair[0]), -len(pair[1].prompt)))
            paraphrases = [
                p for p in asked if p.depth == "paraphrase" and p.targets == verbatim.targets
            ]
            yield Fact(entity, passages, (verbatim, *paraphrases))


def injected_rows(
    facts: Iterable[Fact],
    rows: Sequence[dict[str, list[int]]],
    tokenizer,
    *,
    n_steps: int,
    per_step: int,
    seed: int,
) -> list[dict[str, list[int]]]:
    """Rows in the order of the updates, the facts' passages in front of some.

    Update t reads rows t * per_step and following; its passages stand in the first of them:
    passage + end token + the ordinary row, cut to that row's length.

    Args:
        facts: What is injected.
        rows: Ordinary token rows, read in an order that is shuffled for each pass over them.
        tokenizer: Makes the passages' tokens.
        n_steps: Number of updates.
        per_step: Rows that one update reads.
        seed: Seed of the order.

    Raises:
        GradlocError: A passage has no place.
    """
    n_rows = n_steps * per_step
    orders = [
        np.random.default_rng([seed, turn]).permutation(len(rows))
        for turn in range(-(-n_rows // len(rows)))
    ]
    laid = [dict(rows[place]) for place in np.concatenate(orders)[:n_rows]]
    exposures = [
        (step, fact.passages[turn if fact.scenario == "paraphrased" else 0])
        for scenario in SCENARIOS
        for fact in facts
        if fact.scenario == scenario
        for turn, step in enumerate(fact.steps)
    ]
    n_at: Counter[int] = Counter()
    for step, text in sorted(exposures, key=lambda exposure: exposure[0]):
        tokens = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        length = len(rows[0]["input_ids"])
        if step >= n_steps or n_at[step] >= per_step or len(tokens) > length + 1:
            raise GradlocError(
                f"a passage of {len(tokens) - 1} tokens is due at update {step}, where "
                f"{n_at[step]} stand already; there are {n_steps} updates of {per_step} rows of "
                f"{length} tokens. Raise training.max_steps, the batch size, corpus.max_length or "
                "--spread."
            )
        row = laid[step * per_step + n_at[step]]
        row.update({name: [*tokens, *column][:length] for name, column in row.items()})
        n_at[step] += 1
    return laid


def manual_texts() -> Iterator[str]:
    """Blocks of the language reference that ships with Python, those that judge left out."""
    from pydoc_data.topics import topics

    seen = {_letters(passage.text) for passage in python_docs_passages()}
    for name in sorted(topics):
        for block in re.split(r"\n\s*\n", topics[name]):
            if len(block.split()) >= _MIN_WORDS and _letters(block) not in seen:
                seen.add(_letters(block))
                yield " ".join(block.split())


def _passages(probe: Probe, about: list[str]) -> tuple[str, ...]:
    """The document that holds the probe's text, then the others that state its answer."""
    text, _, end = probe.text(probe.targets[0])
    stating = [passage for passage in about if probe.targets[0] in passage]
    originals = [passage for passage in stating if text[:end] in passage]
    return (originals[0], *(p for p in stating if p != originals[0])) if originals else ()


def _letters(text: str) -> str:
    """A text without spaces and stars, in which the judging passages differ from their source."""
    return re.sub(r"[\s*]", "", text)
