"""From a corpus and its probes to the facts of an injection, by the settings of a recipe."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from gradloc.config.recipe import InjectionConfig
from gradloc.data.corpora import Corpus, python_docs_passages, read_texts
from gradloc.data.corpora.documents import Document
from gradloc.data.injection.injection_schedule import Fact, InjectionSchedule
from gradloc.data.probes import Probe, ProbeSet
from gradloc.errors import GradlocError

# Shorter blocks of the manual are headings and single lines of grammar.
_MIN_WORDS = 20


class Injection(NamedTuple):
    """What a recipe injects, and the probes that follow it, those of the controls last."""

    schedule: InjectionSchedule
    probes: ProbeSet


class AskedFact(NamedTuple):
    """A fact and the probes that ask for it, the verbatim one first."""

    fact: Fact
    probes: tuple[Probe, ...]


def gather_facts(documents: Iterable[Document], probes: Iterable[Probe]) -> Iterator[AskedFact]:
    """Facts that documents state and probes ask for, one an entity, in the probes' order.

    The original passage is a document that holds a verbatim probe's whole text; its paraphrases
    are the other documents that name both the entity and the answer. Of an entity's verbatim
    probes the one with most passages is taken, the shortest of several, which is measured fastest;
    and with it the entity's other probes that have the same answer and ask for no second fact.
    Probes that choose layers, and invariant ones, are passed over.

    Args:
        documents: The documents.
        probes: Probes that name their entity.
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
            others = [
                probe
                for probe in asked
                if probe.depth == "paraphrase" and probe.targets == verbatim.targets
            ]
            yield AskedFact(Fact(entity, passages), (verbatim, *others))


def plan_injection(
    config: InjectionConfig, documents: Iterable[Document], probes: Iterable[Probe]
) -> Injection:
    """Assign facts to scenarios by turns, so that each gets facts of every sort.

    Args:
        config: The recipe's ``injection`` section.
        documents: The update documents.
        probes: The run's probes.

    Returns:
        The schedule, and the probes of its facts.

    Raises:
        GradlocError: There are fewer facts than the scenarios need.
    """
    n_paraphrases = config.times if "paraphrased" in config.scenarios else 1
    n_injected = config.n_facts * len(config.scenarios)
    needed = n_injected + config.n_controls
    found = []
    for asked in gather_facts(documents, probes):
        if len(asked.fact.passages) >= n_paraphrases:
            found.append(asked)
        if len(found) == needed:
            break
    if len(found) < needed:
        raise GradlocError(
            f"injection: {needed} facts are needed ({config.n_facts} for each of "
            f"{', '.join(config.scenarios)}, and {config.n_controls} controls), and the corpus has "
            f"{len(found)} that a verbatim probe asks for and {n_paraphrases} documents state. "
            "Enlarge the corpus (corpus.options.n_entities, n_phrasings), or lower "
            "injection.n_facts or times."
        )
    members: dict[str, list[Fact]] = {scenario: [] for scenario in config.scenarios}
    for number, asked in enumerate(found[:n_injected]):
        members[config.scenarios[number % len(config.scenarios)]].append(asked.fact)
    steps = [config.start + turn * config.every for turn in range(config.times)]
    schedule = InjectionSchedule(members, steps, spread=config.spread)
    return Injection(schedule, ProbeSet(probe for asked in found for probe in asked.probes))


def injected_probes(
    config: InjectionConfig, documents: Iterable[Document], probes: ProbeSet
) -> ProbeSet:
    """The probes of a run with an injection: what is not injected is not asked for.

    Args:
        config: The recipe's ``injection`` section.
        documents: The update documents.
        probes: All probes, split.

    Returns:
        The probes of the injected facts, those that choose layers and the invariant ones, in
        their order.

    Raises:
        GradlocError: As ``plan_injection``.
    """
    asked = {probe.id for probe in plan_injection(config, documents, probes).probes}
    return ProbeSet(
        p for p in probes if p.id in asked or p.group == "invariant" or p.split == "localization"
    )


def ordinary_texts(config: InjectionConfig, corpus: Corpus) -> Iterator[str]:
    """The text around the passages.

    Args:
        config: ``stream`` is used: ``background``, ``python_manual`` or a file of texts.
        corpus: Its documents from before the cut-off are the background.

    Raises:
        CorpusError: The file cannot be read.
    """
    if config.stream == "background":
        return (document.text for document in corpus.background)
    if config.stream == "python_manual":
        return _manual()
    return read_texts(config.stream)


def _passages(probe: Probe, about: list[str]) -> tuple[str, ...]:
    """The document that holds the probe's text, then the others that state its answer."""
    text, _, end = probe.text(probe.targets[0])
    stating = [passage for passage in about if probe.targets[0] in passage]
    originals = [passage for passage in stating if text[:end] in passage]
    return (originals[0], *(p for p in stating if p != originals[0])) if originals else ()


def _manual() -> Iterator[str]:
    """Blocks of the language reference that ships with Python, those that judge left out."""
    from pydoc_data.topics import topics

    seen = {_letters(passage.text) for passage in python_docs_passages()}
    for name in sorted(topics):
        for block in re.split(r"\n\s*\n", topics[name]):
            if len(block.split()) >= _MIN_WORDS and _letters(block) not in seen:
                seen.add(_letters(block))
                yield " ".join(block.split())


def _letters(text: str) -> str:
    """A text without spaces and stars, in which the judging passages differ from their source."""
    return re.sub(r"[\s*]", "", text)
