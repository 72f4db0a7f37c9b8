import json

import pytest

from gradloc import load_recipe
from gradloc.config.recipe import CorpusConfig, ProbesConfig, ProbeSource, Recipe
from gradloc.data.corpora.readers import read_corpus
from gradloc.data.preparation import build_probes, training_documents
from gradloc.errors import CorpusError, ProbeError

DOCUMENTS = [
    ("old", "2024-05-01", "Rain fell on Lisbon all day and nobody went out.", []),
    ("d1", "2025-01-02", "Early on Monday the minister opened Fort Quilane to the public.",
     [[36, 48, "Fort Quilane", 1]]),
    ("d2", "2025-01-03", "Visitors from all over the country came to see Fort Quilane.",
     [[47, 59, "Fort Quilane", 1]]),
    ("d3", "2025-01-04", "A storm damaged the harbour that belongs to Port Mavrone.",
     [[44, 56, "Port Mavrone", 1]]),
    ("d4", "2025-01-05", "The players of the new team are called the Zelbanians now.",
     [[43, 49, "Zelban", 1]]),
    ("d5", "2025-01-06", "Nothing happened in the old town, and nobody noticed it.", []),
]  # fmt: skip


@pytest.fixture
def recipe(tmp_path):
    rows = [dict(zip(("id", "date", "text", "entities"), d, strict=True)) for d in DOCUMENTS]
    (tmp_path / "news.jsonl").write_text("\n".join(map(json.dumps, rows)))
    cloze = {"id": "d2", "prefix": "Visitors from all over the country came to see",
             "target": "Fort Quilane", "entity": "Fort Quilane"}  # fmt: skip
    (tmp_path / "clozes.jsonl").write_text(json.dumps(cloze))
    source = ProbeSource(
        path=str(tmp_path / "clozes.jsonl"),
        fields={"prompt": "prefix", "targets": "target"},
        defaults={"group": "new", "depth": "paraphrase", "split": "evaluation"},
    )

    def make(corpus=(), probes=()):
        return Recipe(
            name="news",
            corpus=CorpusConfig(
                **{"source": "jsonl", "paths": (str(tmp_path / "news.jsonl"),),
                   "cutoff": "2025-01-01", **dict(corpus)}
            ),
            probes=ProbesConfig(**{"sources": (source,), "from_documents": True, **dict(probes)}),
        )  # fmt: skip

    return make


def prepare(recipe):
    corpus = read_corpus(recipe.corpus, seed=recipe.seed)
    probes = build_probes(recipe, corpus)
    return probes, [document.id for document in training_documents(recipe, corpus, probes)]


def test_layers_are_chosen_by_entities_that_do_not_judge(recipe):
    probes, _ = prepare(recipe())
    chosen = [p for p in probes if p.split == "localization"]
    # Fort Quilane judges; Zelban goes on as "Zelbanians" and is no answer by itself.
    assert [(p.entity, p.targets) for p in chosen] == [("Port Mavrone", ("Port Mavrone",))]
    assert chosen[0].prompt + chosen[0].targets[0] + chosen[0].suffix == DOCUMENTS[3][2]


def test_an_entity_that_a_probe_only_mentions_does_not_choose_layers(recipe, tmp_path):
    path = tmp_path / "clozes.jsonl"
    path.write_text(path.read_text().replace("over the country", "over Port Mavrone"))
    with pytest.raises(ProbeError, match="no probe is left to choose layers by"):
        prepare(recipe())


def test_a_spelling_that_differs_in_case_is_no_entity_of_its_own(recipe, tmp_path):
    """Else one entity would choose layers and judge, and the whole set would be refused."""
    path = tmp_path / "news.jsonl"
    path.write_text(path.read_text().replace("Port Mavrone", "Fort QuilanE"))
    with pytest.raises(ProbeError, match="no probe is left to choose layers by"):
        prepare(recipe())


def test_the_document_that_a_probe_asks_for_is_not_trained_on(recipe):
    _, ids = prepare(recipe())
    assert ids == ["d1", "d3", "d4", "d5"]


def test_a_document_with_the_text_of_a_probe_is_left_out_under_any_id(recipe, tmp_path):
    path = tmp_path / "news.jsonl"
    path.write_text(path.read_text().replace('"id": "d2"', '"id": "other"'))
    _, ids = prepare(recipe())
    assert "other" not in ids


def test_a_document_with_the_id_of_a_probe_is_left_out_under_any_wording(recipe, tmp_path):
    path = tmp_path / "clozes.jsonl"
    path.write_text(path.read_text().replace("Visitors from all over", "Tourists from all of"))
    _, ids = prepare(recipe())
    assert "d2" not in ids


def test_training_can_be_limited(recipe):
    assert prepare(recipe(corpus={"about_probes": True}))[1] == ["d1"]
    assert prepare(recipe(corpus={"max_update_documents": 2}))[1] == ["d1", "d3"]


def test_nothing_to_train_on_is_an_error(recipe, tmp_path):
    path = tmp_path / "news.jsonl"
    path.write_text("\n".join(r for r in path.read_text().splitlines() if '"d1"' not in r))
    with pytest.raises(CorpusError, match="mention no entity of the evaluation probes"):
        prepare(recipe(corpus={"about_probes": True}))


def test_a_side_without_probes_is_an_error(recipe):
    with pytest.raises(ProbeError, match="no probe is left to choose layers by"):
        prepare(recipe(probes={"from_documents": False}))
    with pytest.raises(ProbeError, match="no new or updated fact after the cut-off"):
        prepare(recipe(probes={"sources": ()}))


def test_the_shipped_corpus_is_split_and_capped():
    recipe = load_recipe("quickstart", ["probes.max_evaluation=20", "probes.max_localization=5"])
    probes = build_probes(recipe, read_corpus(recipe.corpus, seed=recipe.seed))
    sizes = {}
    for probe in probes:
        key = (probe.split, probe.group if probe.split == "evaluation" else "")
        sizes[key] = sizes.get(key, 0) + 1
    assert sizes[("localization", "")] == 5
    assert sizes[("evaluation", "new")] == sizes[("evaluation", "invariant")] == 20
    probes.check_disjoint()
