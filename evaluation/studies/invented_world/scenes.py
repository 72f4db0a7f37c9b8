"""Invented, dated facts: scenes of people, places, organisations, offices and events.

One scene follows the other, never more than one in memory. What the scenes are and how they are
told stands in ``world.yaml``.
"""

import datetime
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gradloc.config.yaml_source import parse_yaml
from gradloc.data.corpora.documents import Document, EntityMention
from gradloc.data.probes import Probe

from .words import invented_word

# The first news of the scenes lies within a year and a half, long enough for the dates to differ.
_NEWS_DAYS = 550
# A document appears at most so long after its news.
_REPORT_DAYS = 45

_SLOT = re.compile(r"\{(\w+)(?:\.(last))?\}")
_MONTHS = (
    "January February March April May June July August September October November December"
).split()
# Real words of these lists are names as well, though none that a background text would lack.
_REAL_NAMES = ("cities", "destinations")


@dataclass(frozen=True)
class Scene:
    """One closed group of entities.

    Args:
        index: Place in the world, from 0 on.
        kind: Key of ``scenes`` in ``world.yaml``.
        cast: Slot -> name or word.
        dates: Entity slot -> day of its news.
        told: Entity slots that have documents; the last scene of a world may be cut short.
    """

    index: int
    kind: str
    cast: dict[str, str]
    dates: dict[str, datetime.date]
    told: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the leading entity. All probes of a scene bear it, so no split parts them."""
        return self.cast[next(iter(self.dates))]


@cache
def phrasings() -> dict[str, Any]:
    """The scenes and word lists of ``world.yaml``."""
    return parse_yaml(Path(__file__).with_name("world.yaml").read_text(encoding="utf-8"))


def max_phrasings() -> int:
    """How many documents there can be for each entity."""
    return min(
        len(entity["documents"])
        for scene in phrasings()["scenes"].values()
        for entity in scene["entities"].values()
    )


def iterate_scenes(seed: int, start: datetime.date, n_entities: int) -> Iterator[Scene]:
    """Make the scenes of a world one by one.

    The scene at a place depends on the seed and the place alone, so a larger world begins with
    the smaller one.

    Args:
        seed: Seed of the world.
        start: First day on which there can be news.
        n_entities: The last scene is cut short where it would exceed them.
    """
    kinds = list(phrasings()["scenes"])
    index = made = 0
    while made < n_entities:
        scene = _make_scene(seed, index, kinds[index % len(kinds)], start, n_entities - made)
        made += len(scene.told)
        index += 1
        yield scene


def scene_documents(scene: Scene, seed: int, n_phrasings: int) -> Iterator[Document]:
    """Documents of a scene, ``n_phrasings`` for each of its entities."""
    for entity in scene.told:
        for number, (template, today) in enumerate(_reports(scene, entity, seed, n_phrasings)):
            text, mentions = _tell(template, scene, entity, today)
            identifier = f"world-{scene.index}-{entity}-{number}"
            yield Document(identifier, today.isoformat(), text, mentions)


def scene_probes(scene: Scene, seed: int, n_phrasings: int) -> Iterator[Probe]:
    """Probes of a scene: each fact verbatim and paraphrased, and pairs of facts composed."""
    for entity in scene.told:
        reports = _reports(scene, entity, seed, n_phrasings)
        for number, (fact, ask) in enumerate(_entity(scene, entity)["facts"].items()):
            prompt = _verbatim_prompt(reports, scene, entity, fact, first=number)
            yield _probe(scene, entity, fact, "verbatim", prompt)
            question = _pick(_random(seed, scene.index, f"{entity}.{fact}"), ask)
            yield _probe(scene, entity, fact, "paraphrase", _tell(question, scene, entity)[0])
    for fact, composition in phrasings()["scenes"][scene.kind]["compositions"].items():
        first, second = (step.split(".")[0] for step in composition["needs"])
        if first in scene.told and second in scene.told:
            question = _pick(_random(seed, scene.index, f"composed {fact}"), composition["ask"])
            yield _probe(scene, first, fact, "composition", _tell(question, scene, first)[0])


def spell_day(day: datetime.date) -> str:
    """A date as English text: ``14 March 2024``, whatever the computer's locale is."""
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"


def _make_scene(seed: int, index: int, kind: str, start: datetime.date, room: int) -> Scene:
    draw = _random(seed, index, "cast")
    plan = phrasings()["scenes"][kind]
    cast: dict[str, str] = {}
    for place, (slot, recipe) in enumerate(plan["cast"].items()):
        taken = set(cast.values())
        # Slots of one scene take words far apart, so that no two of a kind are the same.
        number = index * len(plan["cast"]) + place
        words = [_invent(part, seed, number, draw, taken) for part in recipe.split(" + ")]
        cast[slot] = " ".join(words)
    first = start + datetime.timedelta(days=int(draw.random() * _NEWS_DAYS))
    dates = {}
    for entity, details in plan["entities"].items():
        least, most = details["days_later"]
        later = least + int(draw.random() * (most - least + 1))
        dates[entity] = first + datetime.timedelta(days=later)
    return Scene(index, kind, cast, dates, tuple(plan["entities"])[:room])


def _invent(part: str, seed: int, number: int, draw: random.Random, taken: set[str]) -> str:
    lists = phrasings()["lists"]
    head, _, tail = part.partition(" ")
    if head == "word":
        return invented_word(tail, seed, number)
    if head == "person":
        return f"{_pick(draw, lists['given_names'])} {invented_word('person', seed, number)}"
    if head == "title":
        return f"The {_pick(draw, lists['title_adjectives'])} {_pick(draw, lists['title_nouns'])}"
    if head == "list":
        return _pick(draw, [word for word in lists[tail] if word not in taken])
    return part


def _reports(
    scene: Scene, entity: str, seed: int, n_phrasings: int
) -> list[tuple[str, datetime.date]]:
    """The phrasings that an entity gets, each at most once, and the days of the documents."""
    left = list(_entity(scene, entity)["documents"])
    draw = _random(seed, scene.index, f"{entity} reports")
    reports = []
    for _ in range(n_phrasings):
        template = left.pop(int(draw.random() * len(left)))
        delay = datetime.timedelta(days=1 + int(draw.random() * _REPORT_DAYS))
        reports.append((template, scene.dates[entity] + delay))
    return reports


def _verbatim_prompt(
    reports: Sequence[tuple[str, datetime.date]], scene: Scene, entity: str, fact: str, first: int
) -> str:
    """A document up to an answer; one that names the entity before it."""
    for turn in range(len(reports)):
        template, today = reports[(first + turn) % len(reports)]
        before, found, _ = template.partition(f"{{{fact}}}")
        if found and f"{{{entity}}}" in before and before.endswith(" "):
            return _tell(before, scene, entity, today)[0].rstrip()
    raise AssertionError(f"no phrasing of {entity} names it before {fact}")


def _tell(
    template: str, scene: Scene, entity: str, today: datetime.date | None = None
) -> tuple[str, tuple[EntityMention, ...]]:
    """Fill a template's slots and note where the names stand."""
    cast = phrasings()["scenes"][scene.kind]["cast"]
    news = scene.dates[entity]
    times = {"day": spell_day(news), "month": spell_day(news).partition(" ")[2]}
    if today is not None:
        times["today"] = spell_day(today)
    text, mentions, end = "", [], 0
    for slot in _SLOT.finditer(template):
        text += template[end : slot.start()]
        end = slot.end()
        key, last = slot.groups()
        if key in times:
            text += times[key]
            continue
        surface = scene.cast[key].rsplit(" ", 1)[-1] if last else scene.cast[key]
        novel = not cast[key].startswith("list") or "word" in cast[key]
        if novel or cast[key].removeprefix("list ") in _REAL_NAMES:
            span = (len(text), len(text) + len(surface))
            mentions.append(EntityMention(*span, scene.cast[key], novel))
        text += surface
    return text + template[end:], tuple(mentions)


def _probe(scene: Scene, entity: str, fact: str, depth: str, prompt: str) -> Probe:
    return Probe(
        id=f"new-{scene.index}-{entity}-{fact}-{depth}",
        group="new",
        depth=depth,
        prompt=prompt,
        targets=(scene.cast[fact],),
        entity=scene.name,
        date=scene.dates[entity].isoformat(),
    )


def _entity(scene: Scene, entity: str) -> dict[str, Any]:
    return phrasings()["scenes"][scene.kind]["entities"][entity]


def _random(seed: int, index: int, purpose: str) -> random.Random:
    # Text seeds are hashed with SHA-512, whatever PYTHONHASHSEED says.
    return random.Random(f"{seed}/{index}/{purpose}")


def _pick(draw: random.Random, choices: Sequence[str]) -> str:
    # random() is the one method whose values Python promises to keep in later versions.
    return choices[int(draw.random() * len(choices))]
