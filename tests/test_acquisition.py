"""The study of acquisition: passages reach the model at their steps, and probes are recorded."""

import copy
import dataclasses
import functools
import json

import pytest
import torch
from conftest import INVENTED_WORLD, build_model, training_arguments
from transformers import Trainer, TrainerCallback

from evaluation.studies.acquisition.__main__ import RECIPE, find_facts, main
from evaluation.studies.acquisition.injection import (
    Fact,
    Injection,
    gather_facts,
    injected_rows,
    manual_texts,
    plan_injection,
)
from evaluation.studies.acquisition.recording import (
    RECORD_FILE,
    AcquisitionCallback,
    AcquisitionRecord,
)
from gradloc.config.recipe import CorpusConfig
from gradloc.data.batches import collate
from gradloc.data.corpora import python_docs_passages
from gradloc.data.corpora.readers import read_corpus
from gradloc.data.probes import Probe, ProbeSet
from gradloc.errors import GradlocError
from gradloc.experiments.recipes import load_recipe

N_COLUMNS, N_STEPS = 32, 6
DI = ("Di sings.", "Singing is what Di does.", "A song by Di.")
FACTS = [
    Fact("Di", DI, (), "paraphrased", (1, 3, 4)),
    Fact("Ada", ("Ada weaves.",), (), "once", (1,)),
    Fact("Bo", ("Bo rows.", "Rows Bo."), (), "duplicated", (1, 3, 4)),
    Fact("Cy", ("Cy digs.",), (), "duplicated", (1, 3, 4)),
    Fact("Em", ("Em hums.",), ()),
]
DUE = {
    1: ["Ada weaves.", "Bo rows.", "Cy digs.", "Di sings."],
    3: ["Bo rows.", "Cy digs.", "Singing is what Di does."],
    4: ["Bo rows.", "Cy digs.", "A song by Di."],
}
PROBES = (
    Probe("a", "new", "Ada", ("weaves wool",), depth="verbatim", entity="Ada"),
    Probe("b", "new", "The one who weaves is", ("Ada", "A."), entity="Ada"),
    Probe("c", "invariant", "Water is", ("wet",), old_targets=(), entity="water"),
)

arguments = functools.partial(
    training_arguments,
    per_device_train_batch_size=2,
    gradient_accumulation_steps=2,
    max_steps=N_STEPS,
    learning_rate=1e-2,
    train_sampling_strategy="sequential",
)


def ordinary(n=40):
    """Rows that can be told apart: row i begins with token i, then token 50 to the end."""
    rows = [[i] + [50] * (N_COLUMNS - 1) for i in range(n)]
    return [{"input_ids": row, "labels": list(row)} for row in rows]


def rows(tokenizer, facts=FACTS, n=40, **changes):
    given = {"n_steps": N_STEPS, "per_step": 4, "seed": 0, **changes}
    return injected_rows(facts, ordinary(n), tokenizer, **given)


def train(folder, tokenizer, *callbacks, kind="llama", model=None, **changes):
    trainer = Trainer(
        model=model or build_model(kind).train(),
        args=arguments(folder, **changes),
        train_dataset=rows(tokenizer),
        data_collator=lambda batch: collate(batch, pad_token_id=96),
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )
    trainer.train()
    return trainer


def recorder(tokenizer, every=2, **changes):
    given = {"exposures": {"Ada": (1,)}, "scenarios": {"Ada": "once"}, **changes}
    return AcquisitionCallback(PROBES, tokenizer, every, **given)


# ---- rows -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "accumulation", "workers"), [(4, 1, 0), (2, 2, 2), (1, 4, 0)])
def test_passages_are_in_the_batches_of_their_updates(
    tmp_path, character_tokenizer, batch, accumulation, workers
):
    model, seen = build_model("llama").train(), {}

    class Steps(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            seen[state.global_step] = []

    def note(module, inputs, options):
        seen[max(seen)].extend(options["input_ids"].tolist())

    model.register_forward_pre_hook(note, with_kwargs=True)
    train(
        tmp_path,
        character_tokenizer,
        Steps(),
        model=model,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        dataloader_num_workers=workers,
    )
    eos = character_tokenizer.eos_token_id
    texts = {
        step: [character_tokenizer.decode(r[: r.index(eos)]) for r in read if eos in r]
        for step, read in seen.items()
    }
    assert all(len(read) == 4 for read in seen.values()) and len(seen) == N_STEPS
    assert {step: found for step, found in texts.items() if found} == DUE


def test_a_row_is_the_passage_an_end_token_and_the_ordinary_row_cut(character_tokenizer):
    plain, found = rows(character_tokenizer, []), rows(character_tokenizer)
    passage = [*character_tokenizer("Bo rows.")["input_ids"], character_tokenizer.eos_token_id]
    cut = (passage + plain[5]["input_ids"])[:N_COLUMNS]
    assert found[5] == {"input_ids": cut, "labels": cut}
    # All other rows stay as they were.
    assert found[0] == plain[0] and found[8] == plain[8] and len(found) == 24


def test_each_pass_reads_every_row_once_in_an_order_of_its_own(character_tokenizer):
    def order(seed):
        laid = rows(character_tokenizer, [], n=10, n_steps=20, seed=seed)
        return [row["input_ids"][0] for row in laid]

    first, second = order(0)[:10], order(0)[10:20]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second and first != list(range(10))
    assert order(0) == order(0) != order(1)


@pytest.mark.parametrize(
    "changes",
    [{"n_steps": 4}, {"per_step": 3}, {"facts": [Fact("A", ("a" * 33,), (), "once", (1,))]}],
)
def test_a_passage_without_a_place_is_refused(character_tokenizer, changes):
    with pytest.raises(GradlocError, match=r"is due at update \d.* Raise training.max_steps"):
        rows(character_tokenizer, **changes)


# ---- facts ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world():
    options = {"n_entities": 40, "n_phrasings": 5}
    return read_corpus(CorpusConfig(INVENTED_WORLD, cutoff="2026-01-01", options=options), seed=1)


@pytest.fixture(scope="module")
def split(world):
    return ProbeSet(world.probes).split_by_entity(0.2, seed=0)


def test_facts_are_stated_by_their_passages_and_asked_by_their_probes(world, split):
    chooses = {probe.entity for probe in split if probe.split == "localization"}
    found = list(gather_facts(world.update, split))
    assert len(found) > 8
    for fact in found:
        verbatim, *others = fact.probes
        answer = verbatim.targets[0]
        assert fact.entity not in chooses
        assert f"{verbatim.prompt} {answer}" in fact.passages[0]
        assert len(set(fact.passages)) == len(fact.passages) >= 4
        assert all(fact.entity in text and answer in text for text in fact.passages)
        assert [probe.depth for probe in others] == ["paraphrase"]
        assert {probe.entity for probe in fact.probes} == {fact.entity}
        # A paraphrase stands in no passage, or it would not be one.
        assert not any(others[0].prompt in text for text in fact.passages)


def test_scenarios_share_no_fact_and_keep_the_distances_of_exposures(world, split):
    config = Injection(n_facts=3, n_controls=2, start=2, every=5, times=4, spread=2)
    facts = plan_injection(config, world.update, split)
    assert len({fact.entity for fact in facts}) == 11
    later = {"once": (2,), "duplicated": (2, 7, 12, 17), "paraphrased": (2, 7, 12, 17)}
    assert [(fact.scenario, fact.steps) for fact in facts] == [
        *((name, tuple(s + turn % 2 for s in steps)) for turn in range(3)
          for name, steps in later.items()),
        ("", ()), ("", ()),
    ]  # fmt: skip
    with pytest.raises(GradlocError, match="11 facts are needed, .* has 0 .* 6 documents state"):
        plan_injection(dataclasses.replace(config, times=6), world.update, split)


def test_an_answer_that_is_the_entity_itself_is_no_fact(world):
    document = next(iter(world.update))
    name = document.entities[0].name
    before = document.text[: document.text.index(name)].strip()
    probe = Probe("p", "new", before or "x", (name,), depth="verbatim", entity=name)
    assert list(gather_facts([document], [probe])) == []


def test_ordinary_text_holds_no_passage_that_judges():
    manual = list(manual_texts())
    assert len(manual) > 300 and len(set(manual)) == len(manual)
    plain = {text.replace("*", "") for text in manual}
    assert not any(passage.text in plain for passage in python_docs_passages())


def test_the_recipe_has_room_for_forty_facts_in_each_scenario():
    recipe = load_recipe(RECIPE)
    facts = find_facts(recipe, Injection())
    assert len(facts) == 130 and sum(len(fact.probes) for fact in facts) == 260
    due = [step for fact in facts for step in fact.steps]
    assert max(map(due.count, due)) <= recipe.training["per_device_train_batch_size"]
    assert recipe.training["max_steps"] - max(due) > 100


# ---- the record -----------------------------------------------------------------------------


class Snapshots(TrainerCallback):
    """Keeps a copy of the weights before each update, and the final ones."""

    def __init__(self):
        self.weights = {}

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.weights[state.global_step] = copy.deepcopy(model.state_dict())

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.weights[state.global_step] = copy.deepcopy(model.state_dict())


def plain_loss(model, tokenizer, probe):
    """Mean loss of the answer's tokens and its blank, one forward pass a probe."""
    prompt = tokenizer(probe.prompt)["input_ids"]
    answer = tokenizer(" " + probe.targets[0])["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    places = range(len(prompt), len(prompt) + len(answer))
    return -sum(float(logits[p - 1, t]) for p, t in zip(places, answer, strict=True)) / len(answer)


def test_losses_are_those_of_the_weights_before_each_update(tmp_path, character_tokenizer):
    kept = Snapshots()
    train(tmp_path, character_tokenizer, kept, recorder(character_tokenizer, 3), max_steps=5)
    record = AcquisitionRecord.load(tmp_path / RECORD_FILE)
    # Every third update and, off that grid, the final weights.
    assert record.steps == (0, 3, 5)
    model = build_model("llama")
    for step, losses in zip(record.steps, record.nll, strict=True):
        model.load_state_dict(kept.weights[step])
        expected = [plain_loss(model, character_tokenizer, probe) for probe in PROBES]
        assert losses == pytest.approx(expected, abs=2e-5)
    assert len({row[0] for row in record.nll}) == 3, "the weights must have moved"


def test_the_record_says_what_was_measured(tmp_path, character_tokenizer):
    train(tmp_path, character_tokenizer, recorder(character_tokenizer))
    record = AcquisitionRecord.load(tmp_path / RECORD_FILE)
    assert record.steps == (0, 2, 4, 6)
    assert record.probe_ids == ("a", "b", "c")
    assert record.entities == ("Ada", "Ada", "water")
    assert record.depths == ("verbatim", "paraphrase", "paraphrase")
    assert record.scenarios == ("once", "once", "")
    assert record.n_tokens == (len(" weaves wool"), len(" Ada"), len(" wet"))
    assert record.injection_steps == {"Ada": (1,)}


@pytest.mark.slow
def test_training_is_the_same_with_and_without_it(tmp_path, character_tokenizer):
    """GPT-2 has dropout, so a random state that is not given back would show."""

    def weights(*callbacks):
        return train(tmp_path, character_tokenizer, *callbacks, kind="gpt2").model.state_dict()

    plain, followed = weights(), weights(recorder(character_tokenizer, 1))
    assert all(torch.equal(plain[name], followed[name]) for name in plain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": [0, 1]}, "nll: has 1 rows for 2 steps"),
        ({"depths": []}, "depths: has 0 entries for 1 probes"),
        ({"nll": None}, "nll: is empty; give a list"),
    ],
)
def test_a_damaged_record_is_refused(tmp_path, change, message):
    record = AcquisitionRecord(("a",), ("A",), ("verbatim",), ("once",), (2,), {"A": (0,)}, (0,))
    path = dataclasses.replace(record, nll=((1.0,),)).save(tmp_path / RECORD_FILE)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(GradlocError, match=message):
        AcquisitionRecord.load(path)


@pytest.mark.slow
def test_the_study_runs_to_its_page(tmp_path, tiny_checkpoint):
    main(
        [
            "run",
            *f"model={tiny_checkpoint} output_dir={tmp_path} corpus.max_length=288 "
            "corpus.options.n_entities=60 probes.localization_fraction=0.1 training.max_steps=16 "
            "training.use_cpu=true training.disable_tqdm=true --n-facts 2 --n-controls 1 --start 2 "
            "--every 3 --times 3 --spread 2 --measure-every 2".split(),
        ]
    )
    folder = tmp_path / "acquisition"
    record = AcquisitionRecord.load(folder / RECORD_FILE)
    assert record.steps == tuple(range(0, 17, 2))
    assert sorted(record.scenarios) == [""] * 2 + sorted(["once", "duplicated", "paraphrased"] * 4)
    assert {len(steps) for steps in record.injection_steps.values()} == {1, 3}
    page = (folder / "acquisition.html").read_text()
    assert "<h1>acquisition</h1>" in page and "not injected" in page
