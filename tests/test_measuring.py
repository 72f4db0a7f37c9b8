import pytest

from gradloc.config.recipe import MeasureConfig
from gradloc.data.corpora import Corpus, Reiterable
from gradloc.data.corpora.documents import Document
from gradloc.data.probes import Probe, ProbeSet
from gradloc.errors import CorpusError, MeasurementError
from gradloc.localization.probe_profile import (
    background_texts,
    draw_probes,
    profile_probes,
    reference_texts,
)
from gradloc.models import load_model, load_tokenizer


def probes_of(**counts):
    return [
        Probe(f"{entity}{n}", "new", "The river is the", ("Nile",), entity=entity)
        for entity, count in counts.items()
        for n in range(count)
    ]


def test_every_entity_has_its_turn_before_any_has_a_second():
    drawn = draw_probes(ProbeSet(tuple(probes_of(a=5, b=1, c=5))), 3, seed=0)
    assert {probe.entity for probe in drawn} == {"a", "b", "c"}
    drawn = draw_probes(ProbeSet(tuple(probes_of(a=5, b=1, c=5))), 100, seed=0)
    assert len(drawn) == 11


def test_evaluation_and_invariant_probes_never_choose_layers():
    probes = [
        Probe("e", "new", "x is", ("y",), split="evaluation"),
        Probe("i", "invariant", "x is", ("y",)),
        Probe("u", "updated", "x is", ("y",), split="localization"),
        Probe("n", "new", "x is", ("y",)),
    ]
    assert {probe.id for probe in draw_probes(ProbeSet(tuple(probes)), 9, seed=0)} == {"u", "n"}


def corpus_of(n):
    documents = [Document(str(i), "2020-01-01", f"text {i}") for i in range(n)]
    news = [Document("news", "2021-05-01", "news")]
    return Corpus(Reiterable(lambda: documents), Reiterable(lambda: news), (), "2021-01-01", "test")


def test_the_background_sample_reaches_over_the_whole_corpus():
    counts = [0] * 40
    for seed in range(300):
        for text in background_texts(corpus_of(40), 10, seed):
            counts[int(text.split()[1])] += 1
    # 75 draws of each expected; a sample of the first ten or of the last would be far off.
    assert min(counts) > 40 and max(counts) < 115
    assert len(set(background_texts(corpus_of(40), 10, 0))) == 10
    assert len(background_texts(corpus_of(3), 10, 0)) == 3
    with pytest.raises(CorpusError):
        background_texts(corpus_of(0), 10, 0)


def test_reference_text_defaults_to_the_shipped_passages():
    assert len(reference_texts(None)) > 20


@pytest.mark.parametrize("name", ["ref.json", "ref.csv", "ref.TSV", "ref.parquet", "ref.json.gz"])
def test_reference_text_in_another_form_is_refused(tmp_path, name):
    (tmp_path / name).write_text('[{"text": "The sea is wide."}]')
    with pytest.raises(CorpusError, match=rf"{name}: expected \.jsonl .* or \.txt"):
        reference_texts(tmp_path / name)


def test_a_profile_records_how_it_was_drawn(tiny_checkpoint):
    model, tokenizer = load_model(tiny_checkpoint), load_tokenizer(tiny_checkpoint)
    texts = ["The sea is wide.", "Rain falls on the hills."]
    probes = ProbeSet(tuple(probes_of(a=2, b=2)))
    config = MeasureConfig(n_probes=3, n_reference=2, max_length=32)
    profile = profile_probes(model, tokenizer, probes, texts, config, seed=1)
    assert profile.probe_norms.shape[0] == 3
    assert profile.reference_norms.shape[0] == 2
    assert profile.settings["seed"] == 1
    assert set(profile.settings["probe_ids"]) <= {probe.id for probe in probes}
    assert profile.model == str(tiny_checkpoint)
    spans = profile_probes(
        model, tokenizer, probes, texts, MeasureConfig(n_probes=3, reference_loss="random_span")
    )
    assert (spans.reference_norms.mean(0) > profile.reference_norms.mean(0)).mean() > 0.5
    with pytest.raises(MeasurementError, match="no reference text"):
        profile_probes(model, tokenizer, probes, [" "], config)
    with pytest.raises(MeasurementError, match="can choose layers"):
        profile_probes(model, tokenizer, ProbeSet(()), texts, config)
