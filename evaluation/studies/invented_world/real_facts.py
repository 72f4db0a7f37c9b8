"""Real facts as documents and probes: currencies that changed, and what did not.

The facts are rows of ``real_facts.yaml``; ``real_facts_table.py`` makes its
tables of languages and currencies.
"""

import datetime
import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gradloc.config.yaml_source import parse_yaml
from gradloc.data.corpora.documents import Document, EntityMention
from gradloc.data.probes import Probe
from gradloc.utils.records import parse

from .scenes import spell_day

# One phrasing says little of how well a change was learned; all would drown the paraphrases.
_VERBATIM_PER_CHANGE = 2
# Every seventh subject speaks in the background and is not asked for: reference text that states
# an evaluation probe's answer would let the method see what it is judged on.
_BACKGROUND_EVERY = 7


@dataclass(frozen=True)
class CurrencyChange:
    """A country that took another currency.

    Args:
        country: Name inside a sentence (``the Netherlands``).
        capital: "" where the table has none.
        old, new: Names inside a sentence (``Croatian kuna``, ``euro``).
        targets: Accepted names of the new currency; a short one only where it cannot mean the old.
        old_targets: Accepted names of the old currency.
        old_since: First day of the old currency.
        date: First day of the new currency.
        settled: First day on which the old one no longer is legal tender.
    """

    country: str
    capital: str
    old: str
    new: str
    targets: tuple[str, ...]
    old_targets: tuple[str, ...]
    old_since: datetime.date
    date: datetime.date
    settled: datetime.date


@dataclass(frozen=True)
class StableFact:
    """A fact that did not change.

    Args:
        topic: Key of ``topics`` in ``real_facts.yaml``.
        subject: What it is about, as it stands inside a sentence.
        answers: Accepted answers, the most usual first.
        since: Day from which it has held, where that is known.
    """

    topic: str
    subject: str
    answers: tuple[str, ...]
    since: datetime.date = datetime.date.min


@cache
def _table() -> dict[str, Any]:
    return parse_yaml(Path(__file__).with_name("real_facts.yaml").read_text(encoding="utf-8"))


# ---- currencies that changed ---------------------------------------------------------------------


def currency_changes(since: datetime.date) -> list[CurrencyChange]:
    """Countries whose one legal tender began on ``since`` or later, the earliest first."""
    return [change for change in _all_changes() if change.date >= since]


@cache
def _all_changes() -> tuple[CurrencyChange, ...]:
    return tuple(parse(CurrencyChange, row, "real_facts.yaml") for row in _table()["changes"])


def change_documents(
    change: CurrencyChange, cutoff: datetime.date, seed: int, n_phrasings: int
) -> Iterator[Document]:
    """Documents, dated at the cut-off or later, that tell of a change."""
    for number, (template, today) in enumerate(_tellings(change, cutoff, seed, n_phrasings)):
        yield _change_document(change, template, today, str(number))


def change_background(change: CurrencyChange, cutoff: datetime.date) -> Document:
    """A document from before the cut-off that gives the old currency."""
    templates = _table()["currency_changes"]["background"]
    last = min(cutoff, change.date) - datetime.timedelta(days=1)
    date = max(min(change.old_since, last), last - datetime.timedelta(days=200))
    return _change_document(change, templates[len(change.country) % len(templates)], date, "before")


def change_probes(
    change: CurrencyChange, cutoff: datetime.date, seed: int, n_phrasings: int
) -> Iterator[Probe]:
    """Probes of a change at all depths, each with the old answer beside the new."""
    plan = _table()["currency_changes"]
    tellings = _tellings(change, cutoff, seed, n_phrasings)[:_VERBATIM_PER_CHANGE]
    asks = {
        "verbatim": [template.partition("{new}")[0].rstrip() for template, _ in tellings],
        "paraphrase": plan["ask"],
        "composition": plan["ask_by_capital"] if change.capital else [],
    }
    for depth, questions in asks.items():
        for number, question in enumerate(questions):
            yield Probe(
                id=f"updated-{slug(change.country)}-{depth}-{number}",
                group="updated",
                depth=depth,
                prompt=question.format(**_slots(change)),
                targets=change.targets,
                old_targets=change.old_targets,
                entity=change.country,
                date=change.date.isoformat(),
            )


def _change_document(
    change: CurrencyChange, template: str, date: datetime.date, suffix: str
) -> Document:
    text, country = template.format(**_slots(change)), change.country
    start = text.lower().index(country.lower())
    mention = EntityMention(start, start + len(country), country, False)
    return Document(f"currency-{slug(country)}-{suffix}", date.isoformat(), text, (mention,))


def _tellings(
    change: CurrencyChange, cutoff: datetime.date, seed: int, n_phrasings: int
) -> list[tuple[str, datetime.date]]:
    left = list(_table()["currency_changes"]["documents"])
    draw = random.Random(f"{seed}/{change.country}")
    first = max(cutoff, change.settled)
    tellings = []
    for _ in range(n_phrasings):
        template = left.pop(int(draw.random() * len(left)))
        tellings.append((template, first + datetime.timedelta(days=int(draw.random() * 90))))
    return tellings


def _slots(change: CurrencyChange) -> dict[str, str]:
    country = change.country
    return {
        "country": country,
        "Country": country[0].upper() + country[1:],
        "capital": change.capital,
        "old": change.old,
        "new": change.new,
        "day": spell_day(change.date),
    }


# ---- facts that did not --------------------------------------------------------------------------


def stable_probes(since: datetime.date) -> Iterator[Probe]:
    """Invariant probes: facts older than ``since`` whose subjects did not change from it on.

    No subject of these probes is named in ``stable_texts``. They come in a mixed order, so that
    the first hundred are as good a sample as all of them.
    """
    facts = _unchanged_facts(since, told=False)
    for fact in sorted(facts, key=lambda fact: _shuffle_key(f"{fact.topic} {fact.subject}")):
        yield Probe(
            id=f"invariant-{fact.topic}-{slug(fact.subject)}",
            group="invariant",
            prompt=_table()["topics"][fact.topic]["ask"].format(subject=fact.subject),
            targets=fact.answers,
            entity=fact.subject,
        )


def _shuffle_key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def stable_texts(since: datetime.date) -> dict[str, str]:
    """Texts for background documents that state stable facts, by country or by topic."""
    topics = _table()["topics"]
    texts: dict[str, str] = {}
    for fact in _unchanged_facts(since, told=True):
        topic = topics[fact.topic]
        key = fact.topic if "facts" in topic else fact.subject
        if key in texts and "add" in topic:
            sentence = topic["add"].format(answer=fact.answers[0])
        else:
            sentence = f"{topic['ask'].format(subject=fact.subject)} {fact.answers[0]}."
        texts[key] = f"{texts[key]} {sentence}" if key in texts else sentence
    return texts


def _unchanged_facts(since: datetime.date, told: bool) -> Iterator[StableFact]:
    """Facts of one half; the halves have no subject in common."""
    changed = {change.country for change in currency_changes(since)}
    subjects = list(dict.fromkeys(fact.subject for fact in _all_facts()))
    in_background = set(subjects[::_BACKGROUND_EVERY])
    for fact in _all_facts():
        unchanged = fact.subject not in changed and fact.since < since
        if unchanged and (fact.subject in in_background) == told:
            yield fact


@cache
def _all_facts() -> tuple[StableFact, ...]:
    facts = []
    for row in _table()["countries"].values():
        country = row["name"]
        for topic in ("capital", "language", "currency"):
            # Of Djibouti, nobody asks for the capital.
            if topic in row and country not in row[topic]:
                since = row["currency_since"] if topic == "currency" else "0001-01-01"
                day = datetime.date.fromisoformat(since)
                facts.append(StableFact(topic, country, tuple(row[topic]), day))
    for topic, details in _table()["topics"].items():
        for subject, answer in details.get("facts", {}).items():
            facts.append(StableFact(topic, subject, (answer,)))
    return tuple(facts)


def slug(name: str) -> str:
    """A name as part of an id: ``the Czech Republic`` is ``the-czech-republic``."""
    return re.sub(r"\W+", "-", name.lower()).strip("-")
