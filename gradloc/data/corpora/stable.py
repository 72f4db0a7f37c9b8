"""Real facts that have not changed: capitals, languages, currencies, elements, authors.

Comes in: a date. Goes out: probes about facts that held before it and still do, and texts that
state other such facts. Which of them a model knows is found out later, by screening.
"""

import datetime
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from gradloc.data.corpora.currencies import (
    STILL,
    currency_changes,
    currency_names,
    legal_tenders,
    real_facts,
    slug,
)
from gradloc.data.probes import Probe

# Every seventh subject speaks in the background and is not asked for: reference text that states
# an evaluation probe's answer would let the method see what it is judged on.
_BACKGROUND_EVERY = 7


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


def stable_probes(since: datetime.date) -> Iterator[Probe]:
    """Invariant probes: facts older than ``since`` whose subjects did not change from it on.

    No subject of these probes is named in ``stable_texts``. They come in a mixed order, so that
    the first hundred are as good a sample as all of them.
    """
    facts = _unchanged_facts(since, told=False)
    for fact in sorted(facts, key=lambda fact: _shuffle_key(f"{fact.topic} {fact.subject}")):
        topic = real_facts()["topics"][fact.topic]
        yield Probe(
            id=f"invariant-{fact.topic}-{slug(fact.subject)}",
            group="invariant",
            prompt=topic["ask"].format(subject=fact.subject),
            targets=fact.answers,
            entity=fact.subject,
        )


def _shuffle_key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def stable_texts(since: datetime.date) -> dict[str, str]:
    """Texts for background documents that state stable facts, by country or by topic."""
    topics = real_facts()["topics"]
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

    table = real_facts()
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
    tenders = legal_tenders().get(code, [])
    now = [name for name, _, end in tenders if end == STILL]
    if len(now) != 1 or code in real_facts()["currency_exceptions"]:
        return []
    since = min(start for name, start, _ in tenders if name.casefold() == now[0].casefold())
    return [StableFact("currency", country, currency_names(now[0]), since)]
