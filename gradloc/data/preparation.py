"""From a recipe to the probes that are asked and the documents that are trained on."""

from collections.abc import Iterator

from gradloc.config.recipe import ProbeSource, Recipe
from gradloc.config.shipped import find_data
from gradloc.data.corpora import Corpus
from gradloc.data.corpora.documents import Document, EntityMention
from gradloc.data.probes import GROUPS, Probe, ProbeSet, read_probe_rows
from gradloc.data.probes.parsing import plain
from gradloc.errors import CorpusError, ProbeError

# A mention this early in its document has too little context to be asked for. assumption
MIN_CONTEXT_CHARACTERS = 24


def build_probes(recipe: Recipe, corpus: Corpus) -> ProbeSet:
    """Gather, split and cap the probes of a recipe.

    Probes come from the recipe's probe files, or from the corpus reader itself, and, if asked
    for, from novel entity mentions of the update documents (for localisation only).

    Raises:
        ProbeError: No probe for evaluation or none for localisation, or an entity on both sides.
    """
    config = recipe.probes
    gathered: list[Probe] = []
    for source in config.sources:
        gathered += read_source(source)
    if config.from_corpus or not config.sources:
        gathered += corpus.probes
    probes = ProbeSet(tuple(gathered)).split_by_entity(config.localization_fraction, recipe.seed)
    if config.from_documents:
        mentions = _mention_probes(corpus, probes, config.max_localization)
        probes = ProbeSet((*probes, *mentions))
    probes = _capped(probes, config.max_localization, config.max_evaluation)
    _check_both_sides(recipe, probes)
    probes.check_disjoint()
    return probes


def read_source(source: ProbeSource) -> ProbeSet:
    """The probes of one file, in their own form or that of a benchmark.

    Raises:
        ProbeError: The file has problems; all of them are named.
    """
    path = find_data(source.path)
    if not source.format:
        return read_probe_rows(path, source.fields, source.defaults)
    from gradloc.data.benchmarks import read_benchmark

    return read_benchmark(source.format, path)


def training_documents(recipe: Recipe, corpus: Corpus, probes: ProbeSet) -> Iterator[Document]:
    """The update documents to train on, evaluation items left out.

    A document is left out when it is the very item that an evaluation probe asks for: the same
    id, or the probe's whole text in it (verbatim probes excepted, whose text is trained on by
    definition).

    Raises:
        CorpusError: No document is left.
    """
    judged = [p for p in probes if p.split == "evaluation" and p.depth != "verbatim"]
    held_ids = {probe.id for probe in judged}
    held_texts = [
        probe.text(probe.targets[0])[0][: -len(probe.suffix) or None].strip() for probe in judged
    ]
    entities = {p.entity for p in probes if p.split == "evaluation" and p.group != "invariant"}
    entities.discard("")
    limit, n_kept = recipe.corpus.max_update_documents, 0
    for document in corpus.update:
        if limit is not None and n_kept >= limit:
            break
        if document.id in held_ids or any(text in document.text for text in held_texts):
            continue
        if recipe.corpus.about_probes and not _mentions(document, entities):
            continue
        n_kept += 1
        yield document
    if not n_kept:
        raise CorpusError(
            "no update document is left to train on: all of them are evaluation items"
            + (
                " or mention no entity of the evaluation probes (corpus.about_probes)."
                if recipe.corpus.about_probes
                else "."
            )
        )


def _mentions(document: Document, entities: set[str]) -> bool:
    named = {mention.name for mention in document.entities}
    return not named.isdisjoint(entities) or any(name in document.text for name in entities)


def _mention_probes(corpus: Corpus, probes: ProbeSet, limit: int) -> Iterator[Probe]:
    """Cloze probes on novel entities that no other probe names, first mentions first."""
    # Names are looked for in whole probes: one probe may speak of several entities.
    asked = "\n".join("\n".join((p.entity, p.prompt, *p.targets, p.suffix)) for p in probes)
    # Spellings that differ in case alone are one entity, which no two sides may share.
    entities = {plain(probe.entity) for probe in probes}
    seen: set[str] = set()
    for document in corpus.update:
        for mention in document.entities:
            if len(seen) >= limit:
                return
            if not mention.novel or mention.name in asked or mention.name in seen:
                continue
            if plain(mention.name) in entities:
                continue
            if mention.start < MIN_CONTEXT_CHARACTERS or _cuts_a_word(document.text, mention):
                continue
            seen.add(mention.name)
            yield Probe(
                id=f"{document.id}@{mention.start}",
                group="new",
                depth="verbatim",
                prompt=document.text[: mention.start],
                targets=(document.text[mention.start : mention.end],),
                suffix=document.text[mention.end :],
                entity=mention.name,
                date=document.date,
                split="localization",
            )


def _cuts_a_word(text: str, mention: EntityMention) -> bool:
    """Whether letters go on around the mention ("Israel" in "Israeli"): no answer by itself."""
    around = text[mention.start - 1 : mention.start] + text[mention.end : mention.end + 1]
    return any(character.isalnum() for character in around)


def _capped(probes: ProbeSet, max_localization: int, max_evaluation: int) -> ProbeSet:
    """At most so many localisation probes, and so many evaluation probes of each group."""
    room = {("localization", ""): max_localization}
    room |= {("evaluation", group): max_evaluation for group in GROUPS}
    kept = []
    for probe in probes:
        key = (probe.split, "" if probe.split == "localization" else probe.group)
        room[key] -= 1
        if room[key] >= 0:
            kept.append(probe)
    return ProbeSet(tuple(kept))


def _check_both_sides(recipe: Recipe, probes: ProbeSet) -> None:
    problems = []
    if not any(p.split == "evaluation" and p.group != "invariant" for p in probes):
        problems.append(
            f"no new or updated fact after the cut-off ({recipe.corpus.cutoff}) is left to judge "
            "by; move corpus.cutoff, or lower probes.localization_fraction"
        )
    if not any(p.split == "localization" for p in probes):
        problems.append(
            "no probe is left to choose layers by; raise probes.localization_fraction, or set "
            "probes.from_documents where documents mark their novel entities"
        )
    if problems:
        raise ProbeError(f"recipe {recipe.name}", problems)
