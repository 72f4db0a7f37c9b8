"""The invented world: its facts, its probes, and what must never leak from one to the other."""

import datetime
import itertools
import os
import re
import subprocess
import sys
import tracemalloc
from collections import Counter

import pytest
import write_world
from conftest import INVENTED_WORLD

from evaluation.studies.invented_world import words as names
from evaluation.studies.invented_world.real_facts import (
    change_documents,
    currency_changes,
    stable_probes,
    stable_texts,
)
from evaluation.studies.invented_world.scenes import (
    iterate_scenes,
    max_phrasings,
    phrasings,
    scene_documents,
)
from evaluation.studies.invented_world.words import invented_word, n_words
from gradloc.config.recipe import CorpusConfig
from gradloc.config.shipped import shipped_dir
from gradloc.data.corpora import general_passages
from gradloc.data.corpora.readers import read_corpus
from gradloc.data.preparation import read_source
from gradloc.errors import CorpusError
from gradloc.experiments.recipes import load_recipe

CUTOFFS = ["2010-12-31", "2022-12-31"]


def make(cutoff="2010-12-31", seed=0, **options):
    return read_corpus(CorpusConfig(INVENTED_WORLD, cutoff=cutoff, options=options), seed=seed)


@pytest.fixture(scope="module", params=CUTOFFS)
def world(request):
    corpus = make(request.param)
    return list(corpus.background), list(corpus.update), list(corpus.probes), request.param


def of(probes, group, depth=None):
    return [p for p in probes if p.group == group and depth in (None, p.depth)]


# ---- size and shape -----------------------------------------------------------------------------


def test_default_size(world):
    _, update, probes, _ = world
    assert sum(document.id.startswith("world-") for document in update) == 160
    new = of(probes, "new")
    assert Counter(p.depth for p in new) == {"verbatim": 120, "paraphrase": 120, "composition": 56}
    assert len({p.entity for p in new}) == 16
    assert len(of(probes, "invariant")) > 300


def test_ids_are_unique(world):
    background, update, probes, _ = world
    for rows in (background + update, probes):
        assert len({row.id for row in rows}) == len(rows)


def test_dates_respect_the_cutoff(world):
    background, update, probes, cutoff = world
    assert all(document.date < cutoff for document in background)
    assert all(document.date >= cutoff for document in update)
    # The fact holds from a day after the cut-off on, and no document tells of it earlier.
    assert all(p.date >= cutoff for p in probes if p.group != "invariant")


def test_texts_are_short_passages(world):
    _, update, _, _ = world
    for document in update:
        assert 10 <= len(document.text.split()) <= 50, document.text
        assert document.text.endswith((".", '"')) and "{" not in document.text


def test_mentions_lie_where_they_say(world):
    _, update, _, _ = world
    for document in update:
        assert document.entities
        for start, end, name, novel in document.entities:
            surface = document.text[start:end]
            assert surface.lower() == name.lower() or name.endswith(f" {surface}")
            assert not novel or surface not in {p.text for p in general_passages("reference")}


def test_novel_names_are_absent_from_the_background(world):
    background, update, _, _ = world
    text = " ".join(document.text for document in background)
    novel = {m.name for document in update for m in document.entities if m.novel}
    assert len(novel) > 60 and not [name for name in novel if name in text]


# ---- probes against documents -------------------------------------------------------------------


def test_verbatim_probes_stand_in_a_document(world):
    _, update, probes, _ = world
    verbatim = of(probes, "new", "verbatim") + of(probes, "updated", "verbatim")
    for probe in verbatim:
        whole = f"{probe.prompt} {probe.targets[0]}"
        assert any(document.text.startswith(whole) for document in update), probe


def test_verbatim_prompts_name_what_they_ask_about(world):
    _, update, probes, _ = world
    for probe in of(probes, "new", "verbatim"):
        slot = probe.id.split("-")[2]
        subject = next(
            d for d in update if f"{d.id}-".startswith(f"world-{probe.id.split('-')[1]}-{slot}-")
        )
        names_ = [m.name for m in subject.entities if m.novel]
        assert any(name in probe.prompt for name in names_), probe


@pytest.mark.parametrize("depth", ["paraphrase", "composition"])
def test_other_prompts_stand_in_no_document(world, depth):
    background, update, probes, _ = world
    asked = of(probes, "new", depth) + of(probes, "updated", depth)
    assert len(asked) > 50
    for probe in asked:
        assert not any(probe.prompt in document.text for document in update), probe


def test_every_answer_is_told_at_least_twice(world):
    _, update, probes, _ = world
    for probe in of(probes, "new") + of(probes, "updated"):
        assert sum(probe.targets[0] in document.text for document in update) >= 2, probe


def test_composition_needs_two_documents(world):
    """No document holds both what the question names and the answer."""
    _, update, probes, _ = world
    names_ = {m.name for document in update for m in document.entities if m.novel}
    for probe in of(probes, "new", "composition"):
        (asked,) = [
            name
            for name in names_
            if name in probe.prompt
            and not any(name in other for other in names_ - {name} if other in probe.prompt)
        ]
        together = [d for d in update if asked in d.text and probe.targets[0] in d.text]
        assert not together, (probe, together[0].text)


def test_updated_composition_names_no_country(world):
    _, update, probes, _ = world
    for probe in of(probes, "updated", "composition"):
        assert probe.entity not in probe.prompt
        capital = re.search(r"(?:capital is|Hotels in) (\w+)", probe.prompt).group(1)
        assert not any(capital in document.text for document in update)


def test_scenes_share_no_name(world):
    """A split by entity is a split by scene, so nothing may lead from one scene to another."""
    _, update, _, _ = world
    scenes = {}
    for document in update:
        if document.id.startswith("world-"):
            scene = document.id.split("-")[1]
            for mention in document.entities:
                if mention.novel and not mention.name.startswith("The "):
                    scenes.setdefault(mention.name, set()).add(scene)
    assert all(len(places) == 1 for places in scenes.values())


def test_answers_are_short_and_diverse(world):
    _, _, probes, _ = world
    answers = Counter(p.targets[0] for p in of(probes, "new", "paraphrase"))
    assert max(len(answer.split()) for answer in answers) <= 4
    assert max(answers.values()) <= 4 and len(answers) > 90


# ---- real facts ---------------------------------------------------------------------------------


def test_known_currency_changes():
    changes = {change.country: change for change in currency_changes(datetime.date(2010, 12, 31))}
    # Dates of the European Central Bank's list of changeovers.
    for country, old, date in [
        ("Estonia", "Estonian kroon", datetime.date(2011, 1, 1)),
        ("Latvia", "Latvian lats", datetime.date(2014, 1, 1)),
        ("Lithuania", "Lithuanian litas", datetime.date(2015, 1, 1)),
        ("Croatia", "Croatian kuna", datetime.date(2023, 1, 1)),
    ]:
        change = changes[country]
        assert (change.old, change.new, change.date) == (old, "euro", date)
        assert change.old_targets == (old, old.split()[-1]) and change.targets == ("euro",)
    # The new Belarusian ruble is a ruble; the leone is a leone.
    assert not {"Belarus", "Sierra Leone", "Zambia", "Japan"} & set(changes)


def test_old_and_new_answers_differ():
    for change in currency_changes(datetime.date(1999, 1, 1)):
        assert change.targets and change.old_targets
        assert not set(change.targets) & set(change.old_targets)


def test_updated_since_reaches_back_before_the_cutoff():
    corpus = make("2023-01-01", updated_since="2013-06-01")
    told = [document for document in corpus.update if "Latvia" in document.text]
    assert len(told) == 4 and all(document.date >= "2023-01-01" for document in told)
    assert all("1 January 2014" in d.text for d in told if re.search(r"\d{4}", d.text))
    with pytest.raises(CorpusError, match="later than the cut-off"):
        make("2020-01-01", updated_since="2022-01-01")


def test_updated_and_invariant_entities_are_disjoint(world):
    _, _, probes, _ = world
    updated = {p.entity for p in of(probes, "updated")}
    invariant = {p.entity for p in of(probes, "invariant")}
    assert {"Croatia", "Curaçao"} <= updated and {"Japan", "Germany"} <= invariant
    assert not updated & invariant


def test_a_country_is_unchanged_only_before_its_change():
    def euro(since):
        return any(
            p.entity == "Croatia" and p.targets == ("euro",)
            for p in stable_probes(datetime.date.fromisoformat(since))
        )

    assert not euro("2022-12-31") and euro("2023-01-02")


def test_background_states_no_answer_of_an_invariant_probe(world):
    background, _, probes, _ = world
    text = " ".join(document.text for document in background)
    for probe in of(probes, "invariant"):
        assert not any(f"{probe.prompt} {target}" in text for target in probe.targets)
    told = set(stable_texts(datetime.date(2022, 12, 31)))
    assert len(told) > 20 and not told & {p.entity for p in of(probes, "invariant")}


def test_background_holds_the_old_currency(world):
    background, _, probes, _ = world
    for probe in of(probes, "updated"):
        told = [document for document in background if probe.entity in document.text]
        assert len(told) == 1 and probe.old_targets[0] in told[0].text


def test_some_facts_everybody_knows():
    answers = {p.prompt: p.targets for p in stable_probes(datetime.date(2010, 12, 31))}
    assert answers["The capital of France is the city of"] == ("Paris",)
    assert "yen" in answers["The official currency of Japan is the"]
    assert answers["The official language spoken in Portugal is"] == ("Portuguese",)
    assert answers["The chemical symbol for gold is"] == ("Au",)


def test_tellings_are_later_than_the_change():
    cutoff = datetime.date(2010, 12, 31)
    for change in currency_changes(cutoff):
        for document in change_documents(change, cutoff, 0, 8):
            assert document.date >= change.settled.isoformat()


# ---- phrasings ----------------------------------------------------------------------------------


def test_every_phrasing_tells_all_facts_and_can_be_asked():
    for scene in phrasings()["scenes"].values():
        for entity, details in scene["entities"].items():
            for fact, asks in details["facts"].items():
                askable = 0
                for text in details["documents"]:
                    before, found, _ = text.partition(f"{{{fact}}}")
                    assert found, (entity, fact, text)
                    askable += f"{{{entity}}}" in before and before.endswith(" ")
                # Two phrasings are the fewest a recipe can ask for; one of them must do.
                assert askable >= len(details["documents"]) - 1, (entity, fact)
                assert all(f"{{{entity}}}" in ask for ask in asks) and len(asks) >= 2


@pytest.mark.parametrize("n_phrasings", [2, 8])
def test_fewest_and_most_phrasings(n_phrasings):
    corpus = make(n_phrasings=n_phrasings, n_entities=10)
    update = list(corpus.update)
    assert sum(document.id.startswith("world-") for document in update) == 10 * n_phrasings
    assert len({document.text for document in update}) == len(update)
    for probe in of(corpus.probes, "new", "verbatim"):
        assert any(d.text.startswith(f"{probe.prompt} {probe.targets[0]}") for d in update)


def test_words_of_a_list_are_all_different():
    for name, words in phrasings()["lists"].items():
        assert len(set(words)) == len(words), name
        assert all(isinstance(word, str) for word in words), name
    # These follow the article "a" in world.yaml.
    for name in ("occupations", "emblems"):
        assert not [word for word in phrasings()["lists"][name] if word[0] in "aeio"], name


# ---- the same again, and larger -----------------------------------------------------------------

DIGEST = """
import hashlib
from gradloc.data.corpora.readers import read_corpus
from gradloc.config.recipe import CorpusConfig
config = CorpusConfig("evaluation.studies.invented_world:read_world", cutoff="2010-12-31")
corpus = read_corpus(config, seed={seed})
parts = [*corpus.background, *corpus.update, *corpus.probes]
print(hashlib.sha256(repr(parts).encode()).hexdigest())
"""


def digest(seed, hash_seed):
    path = os.pathsep.join(sys.path)  # studies are found in the clone
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path}
    command = [sys.executable, "-c", DIGEST.format(seed=seed)]
    return subprocess.run(command, env=environment, capture_output=True, check=True).stdout


@pytest.mark.slow
def test_same_seed_same_world_in_every_process():
    first = digest(0, "1")
    assert len(first) > 60
    assert digest(0, "2") == first and digest(1, "1") != first


def test_a_larger_world_begins_with_the_smaller_one():
    def told(n):
        return [d for d in make(n_entities=n).update if d.id.startswith("world-")]

    assert told(200)[:160] == told(40)


def test_the_last_scene_is_cut_to_size():
    corpus = make(n_entities=5)
    entities = {d.id.rsplit("-", 1)[0] for d in corpus.update if d.id.startswith("world-")}
    assert len(entities) == 5
    texts = [document.text for document in corpus.update]
    for probe in of(corpus.probes, "new"):
        assert any(probe.targets[0] in text for text in texts), probe


def test_no_invented_entity_leaves_the_real_changes():
    corpus = make(n_entities=0)
    assert {p.group for p in corpus.probes} == {"updated", "invariant"}
    assert all(document.id.startswith("currency-") for document in corpus.update)


@pytest.mark.slow
def test_millions_of_entities_stream():
    corpus = make(n_entities=5_000_000)
    list(itertools.islice(corpus.update, 100))  # tables and imports are loaded once
    list(itertools.islice(corpus.probes, 600))
    tracemalloc.start()
    for _ in itertools.islice(corpus.update, 4000):
        pass
    for _ in itertools.islice(corpus.probes, 4000):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


def test_names_of_twenty_thousand_entities_are_unique():
    start = datetime.date(2023, 1, 1)
    leading, people = [], []
    for scene in iterate_scenes(0, start, 20_000):
        leading.append(scene.name)
        people += [name for slot, name in scene.cast.items() if slot in ("mayor", "director")]
    assert len(leading) == 8000
    assert len(set(leading)) == len(leading) and len(set(people)) == len(people)


def test_scene_of_a_million_costs_no_more_than_the_first():
    scenes = itertools.islice(iterate_scenes(0, datetime.date(2023, 1, 1), 10**9), 3)
    assert [len(list(scene_documents(scene, 0, 4))) for scene in scenes] == [12, 12, 8]


@pytest.mark.parametrize("kind", sorted(names._ENDINGS))
def test_words_past_the_short_ones_are_new(kind):
    short = n_words(kind) // (1 + len(names._VOWELS) * len(names._LONG_MIDDLES))
    indices = itertools.chain(range(3000), range(short - 3000, short + 9000, 3))
    words = [invented_word(kind, 0, index) for index in indices]
    assert len(set(words)) == len(
        set(itertools.chain(range(3000), range(short - 3000, short + 9000, 3)))
    )
    with pytest.raises(ValueError, match="there are only"):
        invented_word(kind, 0, n_words(kind))


def test_a_long_word_is_never_a_short_one():
    """The proof in the module's docstring, checked on its parts: no ending holds another."""
    for kind, endings in names._ENDINGS.items():
        assert len(set(endings)) == len(endings), kind
        extras = [v + m for v in names._VOWELS for m in names._LONG_MIDDLES]
        assert not {extra + ending for extra in extras for ending in endings} & set(endings), kind


def test_kinds_have_no_ending_in_common():
    endings = [ending for kind in names._ENDINGS.values() for ending in kind]
    twice = [ending for ending, count in Counter(endings).items() if count > 1]
    assert not twice


def test_another_seed_gives_other_names():
    first, second = ([invented_word("town", seed, i) for i in range(50)] for seed in (0, 1))
    assert len(set(first) & set(second)) < 5


# ---- bad options --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_entitys": 4}, "Did you mean 'n_entities'?"),
        ({"n_entities": "40"}, "n_entities: expected int, found '40'"),
        ({"n_entities": True}, "n_entities: expected int"),
        ({"n_entities": -1}, "below 0"),
        ({"n_phrasings": 1}, "from 2"),
        ({"n_phrasings": 99}, f"to {max_phrasings()}"),
        ({"updated_since": "2001"}, "is no date"),
    ],
)
def test_unusable_options(options, words):
    with pytest.raises(CorpusError) as caught:
        make(**options)
    assert words in str(caught.value)


def test_paths_are_refused():
    with pytest.raises(CorpusError, match="reads no files"):
        read_corpus(CorpusConfig(INVENTED_WORLD, paths=("news.jsonl",)), seed=0)


def test_a_world_without_any_news_is_an_error():
    with pytest.raises(CorpusError, match="nothing to learn"):
        make("2500-01-01", n_entities=0)


# ---- as files -----------------------------------------------------------------------------------


def test_the_quickstart_ships_what_the_generator_makes(tmp_path):
    write_world.main([str(tmp_path)])
    shipped = shipped_dir("recipes") / "data" / "quickstart"
    assert {path.name for path in shipped.iterdir()} == {"documents.jsonl", "probes.jsonl"}
    for path in shipped.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_files_read_back_as_what_the_generator_gives(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("quickstart")
    made = make(recipe.corpus.cutoff, seed=recipe.seed, n_entities=40, n_phrasings=4)
    corpus = read_corpus(recipe.corpus, seed=0)
    assert list(corpus.background) == list(made.background)
    assert list(corpus.update) == list(made.update)
    (source,) = recipe.probes.sources
    assert tuple(read_source(source)) == tuple(made.probes)
