"""Real facts about countries and the world: those that changed at a cut-off and those that did not.

Comes in: a date. Goes out: currency changes since that date, with documents and probes, and
stable facts (capitals, languages, currencies, ...) for probes or for background documents.
Sources are Babel's CLDR tables and ``stable_facts.yaml``.
"""

import datetime
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from gradloc.corpus.documents import Document, EntityMention
from gradloc.corpus.invented import spell_day
from gradloc.probes import Probe

# Every seventh entity with stable facts speaks in the background and is not asked for: reference
# text that states an evaluation probe's answer would let the method see what it is judged on.
_BACKGROUND_EVERY = 7

_FAR = datetime.date(9999, 12, 31)
_VERBATIM_PER_CHANGE = 2


@dataclass(frozen=True)
class CurrencyChange:
    """A country that took another currency.

    Args:
        country: Name inside a sentence (``the Netherlands``).
        capital: "" where the shipped table has none.
        old, new: Names inside a sentence (``Croatian kuna``, ``euro``).
        old_since: First day of the old currency.
        date: First day of the new currency.
        settled: First day on which the old one no longer is legal tender.
    """

    country: str
    capital: str
    old: str
    new: str
    old_since: datetime.date
    date: datetime.date
    settled: datetime.date

    @property
    def targets(self) -> tuple[str, ...]:
        """Accepted names of the new currency; a short one only where it cannot mean the old."""
        return tuple(
            name for name in currency_names(self.new) if name not in currency_names(self.old)
        )

    @property
    def old_targets(self) -> tuple[str, ...]:
        """Accepted names of the old currency."""
        return tuple(
            name for name in currency_names(self.old) if name not in currency_names(self.new)
        )


@dataclass(frozen=True)
class StableFact:
    """A fact that did not change.

    Args:
        topic: Key of ``topics`` in ``stable_facts.yaml``.
        subject: What it is about, as it stands inside a sentence.
        answers: Accepted answers, the most usual first.
        since: Day from which it has held, where that is known.
    """

    topic: str
    subject: str
    answers: tuple[str, ...]
    since: datetime.date = datetime.date.min


@cache
def stable_facts() -> dict[str, Any]:
    """The tables and phrasings of ``stable_facts.yaml``."""
    text = files("gradloc.corpus").joinpath("stable_facts.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def currency_names(name: str) -> tuple[str, ...]:
    """Accepted names of a currency, the usual one first: ``Croatian kuna``, ``kuna``.

    Example:
        >>> currency_names("Croatian kuna"), currency_names("euro")
        (('Croatian kuna', 'kuna'), ('euro',))
        >>> currency_names("West African CFA franc")
        ('West African CFA franc', 'CFA franc', 'franc')
    """
    if name in stable_facts()["usual_names"]:
        return tuple(stable_facts()["usual_names"][name])
    words = name.split()
    shorter = [" ".join(words[-2:])] if len(words) > 2 and words[-2] in ("CFA", "CFP") else []
    return tuple(dict.fromkeys([name, *shorter, words[-1]]))


def currency_changes(since: datetime.date) -> list[CurrencyChange]:
    """Countries whose one legal tender began on ``since`` or later and has another name.

    Redenominations (a new leone for the old leone) are left out: the answer reads the same.
    """
    changes = []
    for code, tenders in _legal_tenders().items():
        now = [tender for tender in tenders if tender[2] == _FAR]
        if len(now) != 1 or now[0][1] < since:
            continue
        name, start, _ = now[0]
        eve = start - datetime.timedelta(days=1)
        before = [tender for tender in tenders if tender[1] <= eve <= tender[2]]
        if len(before) != 1 or before[0][0] == name:
            continue
        old, old_since, old_until = before[0]
        country, capital = _country(code)
        settled = max(start, old_until + datetime.timedelta(days=1))
        changes.append(CurrencyChange(country, capital, old, name, old_since, start, settled))
    return changes


def change_documents(
    change: CurrencyChange, cutoff: datetime.date, seed: int, n_phrasings: int
) -> Iterator[Document]:
    """Documents, dated at the cut-off or later, that tell of a change."""
    for number, (template, today) in enumerate(_tellings(change, cutoff, seed, n_phrasings)):
        text = template.format(**_slots(change))
        identifier = f"currency-{_slug(change.country)}-{number}"
        yield Document(identifier, today.isoformat(), text, _mention(text, change.country))


def change_background(change: CurrencyChange, cutoff: datetime.date) -> Document:
    """A document from before the cut-off that gives the old currency."""
    templates = stable_facts()["currency_changes"]["background"]
    text = templates[len(change.country) % len(templates)].format(**_slots(change))
    last = min(cutoff, change.date) - datetime.timedelta(days=1)
    date = max(min(change.old_since, last), last - datetime.timedelta(days=200))
    identifier = f"currency-{_slug(change.country)}-before"
    return Document(identifier, date.isoformat(), text, _mention(text, change.country))


def change_probes(
    change: CurrencyChange, cutoff: datetime.date, seed: int, n_phrasings: int
) -> Iterator[Probe]:
    """Probes of a change at all depths, each with the old answer beside the new."""
    plan = stable_facts()["currency_changes"]
    tellings = _tellings(change, cutoff, seed, n_phrasings)[:_VERBATIM_PER_CHANGE]
    asks = {
        "verbatim": [template.partition("{new}")[0].rstrip() for template, _ in tellings],
        "paraphrase": plan["ask"],
        "composition": plan["ask_by_capital"] if change.capital else [],
    }
    for depth, questions in asks.items():
        for number, question in enumerate(questions):
            yield Probe(
                id=f"updated-{_slug(change.country)}-{depth}-{number}",
                group="updated",
                depth=depth,
                prompt=question.format(**_slots(change)),
                targets=change.targets,
                old_targets=change.old_targets,
                entity=change.country,
                date=change.date.isoformat(),
            )


def stable_probes(since: datetime.date) -> Iterator[Probe]:
    """Invariant probes: facts older than ``since`` whose subjects did not change from it on.

    No subject of these probes is named in ``stable_texts``.
    """
    for fact in _unchanged_facts(since, told=False):
        topic = stable_facts()["topics"][fact.topic]
        yield Probe(
            id=f"invariant-{fact.topic}-{_slug(fact.subject)}",
            group="invariant",
            prompt=topic["ask"].format(subject=fact.subject),
            targets=fact.answers,
            entity=fact.subject,
        )


def stable_texts(since: datetime.date) -> dict[str, str]:
    """Texts for background documents that state stable facts, by country or by topic."""
    topics = stable_facts()["topics"]
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
    from babel import Locale
    from babel.languages import get_official_languages

    table = stable_facts()
    facts = []
    for code, (country, *capitals) in table["countries"].items():
        if country not in capitals:
            facts.append(StableFact("capital", country, tuple(capitals)))
        official = get_official_languages(code, de_facto=True)
        if len(official) == 1 and code not in table["language_exceptions"]:
            language = Locale("en").languages[official[0]]
            names = table["usual_names"].get(language, [language])
            facts.append(StableFact("language", country, tuple(names)))
        facts += _currency_fact(code, country)
    for topic, details in table["topics"].items():
        facts += [
            StableFact(topic, subject, (answer,))
            for subject, answer in details.get("facts", {}).items()
        ]
    return tuple(facts)


def _currency_fact(code: str, country: str) -> list[StableFact]:
    """The one legal tender of a country, held since a currency first had that name there."""
    tenders = _legal_tenders().get(code, [])
    now = [name for name, _, end in tenders if end == _FAR]
    if len(now) != 1 or code in stable_facts()["currency_exceptions"]:
        return []
    since = min(start for name, start, _ in tenders if name == now[0])
    return [StableFact("currency", country, currency_names(now[0]), since)]


@cache
def _legal_tenders() -> dict[str, list[tuple[str, datetime.date, datetime.date]]]:
    """Territory code -> its legal tenders as (name, first day, last day)."""
    from babel.core import get_global
    from babel.numbers import get_currency_name

    tenders = {}
    for code, rows in get_global("territory_currencies").items():
        tenders[code] = [
            (
                re.sub(r"\s*\(.*\)", "", get_currency_name(currency, count=1, locale="en")),
                datetime.date(*start) if start else datetime.date.min,
                datetime.date(*end) if end else _FAR,
            )
            for currency, start, end, is_tender in rows
            if is_tender
        ]
    return tenders


def _country(code: str) -> tuple[str, str]:
    from babel import Locale

    if code in stable_facts()["countries"]:
        name, capital, *_ = stable_facts()["countries"][code]
        return name, capital
    return Locale("en").territories.get(code, code), ""


def _tellings(
    change: CurrencyChange, cutoff: datetime.date, seed: int, n_phrasings: int
) -> list[tuple[str, datetime.date]]:
    left = list(stable_facts()["currency_changes"]["documents"])
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


def _mention(text: str, country: str) -> tuple[EntityMention, ...]:
    start = text.lower().index(country.lower())
    return (EntityMention(start, start + len(country), country, False),)


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower()).strip("-")
