"""A corpus reader that makes its documents: invented news, currency changes, text to keep.

They are made as they are read, the same in every process.
"""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_type_hints

from gradloc.config.recipe import CorpusConfig
from gradloc.data.corpora.corpus import Corpus, Reiterable, check_date
from gradloc.data.corpora.documents import Document
from gradloc.data.corpora.general import general_passages
from gradloc.data.probes import Probe
from gradloc.errors import CorpusError
from gradloc.utils.names import did_you_mean

from . import real_facts, scenes

# Background documents are dated evenly over the three years before the cut-off.
_BACKGROUND_DAYS = 1095


@dataclass(frozen=True)
class WorldOptions:
    """Options of the invented world.

    Args:
        n_entities: Invented entities; each has three facts. Millions stream.
        n_phrasings: Documents for each entity and each currency change.
        updated_since: ISO date; currencies that changed from it on are updated facts. "" means
            the cut-off.
    """

    n_entities: int = 40
    n_phrasings: int = 4
    updated_since: str = ""


def read_world(config: CorpusConfig, *, seed: int) -> Corpus:
    """Generate the corpus.

    Update documents tell invented news and real currency changes; background documents are
    general text, stable facts and the currencies from before the change. Probes are ``new``
    (invented), ``updated`` (currencies) and ``invariant`` (stable facts; still to be screened to
    those that the base model has right).

    Args:
        config: ``cutoff`` and ``options`` (see ``WorldOptions``) are used.
        seed: Same seed and options, same documents and probes.

    Raises:
        CorpusError: Unknown or unusable options, or paths and fields, which it has no use for.
    """
    options = _check_options(config)
    cutoff = check_date(config.cutoff, "corpus.cutoff")
    since = check_date(options.updated_since or config.cutoff, "corpus.options.updated_since")
    if since > cutoff:
        raise CorpusError(
            f"corpus.options.updated_since: {since} is later than the cut-off {cutoff}; a currency "
            "that changed in between would count as unchanged. Give an earlier date."
        )
    changes = real_facts.currency_changes(since)

    def update() -> Iterator[Document]:
        for change in changes:
            yield from real_facts.change_documents(change, cutoff, seed, options.n_phrasings)
        for scene in scenes.iterate_scenes(seed, cutoff, options.n_entities):
            yield from scenes.scene_documents(scene, seed, options.n_phrasings)

    def probes() -> Iterator[Probe]:
        for change in changes:
            yield from real_facts.change_probes(change, cutoff, seed, options.n_phrasings)
        yield from real_facts.stable_probes(since)
        for scene in scenes.iterate_scenes(seed, cutoff, options.n_entities):
            yield from scenes.scene_probes(scene, seed, options.n_phrasings)

    background = Reiterable(lambda: _background(cutoff, since, changes))
    return Corpus(background, Reiterable(update), Reiterable(probes), config.cutoff, "world")


def _background(
    cutoff: datetime.date, since: datetime.date, changes: list[real_facts.CurrencyChange]
) -> Iterator[Document]:
    texts = [(passage.id, passage.text) for passage in general_passages("reference")]
    stated = real_facts.stable_texts(since)
    texts += [(f"stable-{subject}", text) for subject, text in stated.items()]
    for number, (identifier, text) in enumerate(texts):
        days = _BACKGROUND_DAYS * (len(texts) - number) // len(texts)
        date = cutoff - datetime.timedelta(days=max(1, days))
        yield Document(identifier, date.isoformat(), text)
    for change in changes:
        yield real_facts.change_background(change, cutoff)


def _check_options(config: CorpusConfig) -> WorldOptions:
    for name in ("paths", "fields"):
        if getattr(config, name):
            raise CorpusError(
                f"corpus.{name}: the invented world reads no files; leave {name} out, or set "
                "corpus.source to a reader of files."
            )
    known = get_type_hints(WorldOptions)
    for name, value in config.options.items():
        if name not in known:
            raise CorpusError(
                f"corpus.options: the invented world has no option {name!r}. "
                f"{did_you_mean(name, known)}"
            )
        if type(value) is not known[name]:
            raise CorpusError(
                f"corpus.options.{name}: expected {known[name].__name__}, found {value!r}."
            )
    options = WorldOptions(**config.options)
    if options.n_entities < 0:
        raise CorpusError(f"corpus.options.n_entities: {options.n_entities} is below 0.")
    if not 2 <= options.n_phrasings <= scenes.max_phrasings():
        raise CorpusError(
            f"corpus.options.n_phrasings: {options.n_phrasings} is not from 2 (each fact is told "
            f"at least twice) to {scenes.max_phrasings()} (phrasings that there are)."
        )
    return options
