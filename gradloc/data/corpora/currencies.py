"""Currencies of the real world: what they are called, and which countries changed theirs.

Comes in: a date. Goes out: the currency changes since then, with documents and probes that tell
of them and ask for them. Sources are Babel's CLDR tables and ``real_facts.yaml``.
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

from gradloc.data.corpora.documents import Document, EntityMention
from gradloc.data.corpora.invented import spell_day
from gradloc.data.probes import Probe

# End of a legal tender that has no end.
STILL = datetime.date(9999, 12, 31)
# One phrasing says little of how well a change was learned; all would drown the paraphrases.
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


@cache
def real_facts() -> dict[str, Any]:
    """The tables and phrasings of ``real_facts.yaml``."""
    text = files("gradloc.data.corpora").joinpath("real_facts.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def currency_names(name: str) -> tuple[str, ...]:
    """Accepted names of a currency, the usual one first: ``Croatian kuna``, ``kuna``.

    Example:
        >>> currency_names("Croatian kuna"), currency_names("euro")
        (('Croatian kuna', 'kuna'), ('euro',))
        >>> currency_names("West African CFA franc")
        ('West African CFA franc', 'CFA franc', 'franc')
    """
    if name in real_facts()["usual_names"]:
        return tuple(real_facts()["usual_names"][name])
    words = name.split()
    shorter = [" ".join(words[-2:])] if len(words) > 2 and words[-2] in ("CFA", "CFP") else []
    return tuple(dict.fromkeys([name, *shorter, words[-1]]))


def currency_changes(since: datetime.date) -> list[CurrencyChange]:
    """Countries whose one legal tender began on ``since`` or later, the earliest first.

    Redenominations (a new leone for the old leone) are left out: the answer reads the same.
    """
    changes = []
    for code, tenders in legal_tenders().items():
        now = [tender for tender in tenders if tender[2] == STILL]
        if len(now) != 1 or now[0][1] < since:
            continue
        name, start, _ = now[0]
        eve = start - datetime.timedelta(days=1)
        before = [tender for tender in tenders if tender[1] <= eve <= tender[2]]
        if len(before) != 1 or before[0][0].casefold() == name.casefold():
            continue
        old, old_since, old_until = before[0]
        country, capital = _country(code)
        settled = max(start, old_until + datetime.timedelta(days=1))
        changes.append(CurrencyChange(country, capital, old, name, old_since, start, settled))
    return sorted(changes, key=lambda change: (change.date, change.country))


def change_documents(
    change: CurrencyChange, cutoff: datetime.date, seed: int, n_phrasings: int
) -> Iterator[Document]:
    """Documents, dated at the cut-off or later, that tell of a change."""
    for number, (template, today) in enumerate(_tellings(change, cutoff, seed, n_phrasings)):
        text = template.format(**_slots(change))
        identifier = f"currency-{slug(change.country)}-{number}"
        yield Document(identifier, today.isoformat(), text, _mention(text, change.country))


def change_background(change: CurrencyChange, cutoff: datetime.date) -> Document:
    """A document from before the cut-off that gives the old currency."""
    templates = real_facts()["currency_changes"]["background"]
    text = templates[len(change.country) % len(templates)].format(**_slots(change))
    last = min(cutoff, change.date) - datetime.timedelta(days=1)
    date = max(min(change.old_since, last), last - datetime.timedelta(days=200))
    identifier = f"currency-{slug(change.country)}-before"
    return Document(identifier, date.isoformat(), text, _mention(text, change.country))


def change_probes(
    change: CurrencyChange, cutoff: datetime.date, seed: int, n_phrasings: int
) -> Iterator[Probe]:
    """Probes of a change at all depths, each with the old answer beside the new."""
    plan = real_facts()["currency_changes"]
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


@cache
def legal_tenders() -> dict[str, list[tuple[str, datetime.date, datetime.date]]]:
    """Territory code -> its legal tenders as (name, first day, last day)."""
    from babel.core import get_global
    from babel.numbers import get_currency_name

    tenders = {}
    for code, rows in get_global("territory_currencies").items():
        tenders[code] = [
            (
                re.sub(r"\s*\(.*\)", "", get_currency_name(currency, count=1, locale="en")),
                datetime.date(*start) if start else datetime.date.min,
                datetime.date(*end) if end else STILL,
            )
            for currency, start, end, is_tender in rows
            if is_tender
        ]
    return tenders


def _country(code: str) -> tuple[str, str]:
    from babel import Locale

    if code in real_facts()["countries"]:
        name, capital, *_ = real_facts()["countries"][code]
        return name, capital
    return Locale("en").territories.get(code, code), ""


def _tellings(
    change: CurrencyChange, cutoff: datetime.date, seed: int, n_phrasings: int
) -> list[tuple[str, datetime.date]]:
    left = list(real_facts()["currency_changes"]["documents"])
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


def slug(name: str) -> str:
    """A name as part of an id: ``the Czech Republic`` is ``the-czech-republic``."""
    return re.sub(r"\W+", "-", name.lower()).strip("-")
