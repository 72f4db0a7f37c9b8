"""Passages reach the model at exactly their steps, whatever the batches are."""

import functools
from types import SimpleNamespace

import pytest
from accelerate.data_loader import BatchSamplerShard
from conftest import INVENTED_WORLD, build_model, training_arguments
from datasets import Dataset
from torch.utils.data import BatchSampler, SequentialSampler
from transformers import Trainer

from gradloc.config.recipe import CorpusConfig, InjectionConfig
from gradloc.data.batches import collate
from gradloc.data.corpora.readers import read_corpus
from gradloc.data.injection import (
    Fact,
    InjectedRows,
    InjectionSchedule,
    gather_facts,
    injected_probes,
    ordinary_texts,
    plan_injection,
)
from gradloc.data.probes import Probe, ProbeSet
from gradloc.errors import GradlocError, RecipeError
from gradloc.experiments.recipes import load_recipe

N_COLUMNS = 32
FACTS = {
    "once": [Fact("Ada", ("Ada weaves.",))],
    "duplicated": [Fact("Bo", ("Bo rows.",)), Fact("Cy", ("Cy digs.",))],
    "paraphrased": [Fact("Di", ("Di sings.", "Singing is what Di does.", "A song by Di."))],
}
STEPS = [1, 3, 4]
DUE = {
    1: ["Ada weaves.", "Bo rows.", "Cy digs.", "Di sings."],
    3: ["Bo rows.", "Cy digs.", "Singing is what Di does."],
    4: ["Bo rows.", "Cy digs.", "A song by Di."],
}


def ordinary(n=40):
    """Rows that can be told apart: row i begins with token i, then token 50 to the end."""
    rows = [[i] + [50] * (N_COLUMNS - 1) for i in range(n)]
    return [{"input_ids": row, "labels": list(row)} for row in rows]


arguments = functools.partial(
    training_arguments,
    per_device_train_batch_size=2,
    gradient_accumulation_steps=2,
    max_steps=6,
    train_sampling_strategy="sequential",
)


def rows_of_updates(folder, tokenizer, resume=None, **changes):
    """The rows that a real Trainer's forward passes saw, by update."""
    args = arguments(folder, **changes)
    model = build_model("llama")
    seen = {}
    schedule = InjectionSchedule(FACTS, STEPS)
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=InjectedRows(schedule, ordinary(), args, tokenizer),
        data_collator=lambda batch: collate(batch, pad_token_id=0),
        processing_class=tokenizer,
    )

    def note(module, inputs, options):
        if module.training:
            seen.setdefault(trainer.state.global_step, []).extend(options["input_ids"].tolist())

    model.register_forward_pre_hook(note, with_kwargs=True)
    trainer.train(resume_from_checkpoint=resume)
    return seen


def passages_in(rows, tokenizer):
    """Texts in front of the end token, of the rows that have one."""
    eos = tokenizer.eos_token_id
    return [tokenizer.decode(row[: row.index(eos)]) for row in rows if eos in row]


@pytest.mark.parametrize(
    ("batch", "accumulation", "workers"), [(4, 1, 0), (2, 2, 0), (1, 4, 0), (8, 1, 0), (2, 2, 2)]
)
def test_passages_are_in_the_batches_of_their_updates(
    tmp_path, character_tokenizer, batch, accumulation, workers
):
    seen = rows_of_updates(
        tmp_path,
        character_tokenizer,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        dataloader_num_workers=workers,
    )
    assert set(seen) == set(range(6))
    assert all(len(rows) == batch * accumulation for rows in seen.values())
    found = {step: passages_in(rows, character_tokenizer) for step, rows in seen.items()}
    assert {step: texts for step, texts in found.items() if texts} == DUE


def test_a_resumed_training_sees_the_same_rows(tmp_path, character_tokenizer):
    straight = rows_of_updates(tmp_path / "straight", character_tokenizer)
    folder = tmp_path / "resumed"
    rows_of_updates(folder, character_tokenizer, save_strategy="steps", save_steps=3)
    resumed = rows_of_updates(folder, character_tokenizer, resume=str(folder / "checkpoint-3"))
    assert resumed == {step: straight[step] for step in (3, 4, 5)}


@pytest.mark.parametrize("n_processes", [2, 4])
def test_several_processes_share_the_rows_of_an_update(tmp_path, character_tokenizer, n_processes):
    """Accelerate gives each process every n-th batch; together they read an update's rows."""
    args = SimpleNamespace(
        train_batch_size=1,
        gradient_accumulation_steps=4 // n_processes,
        world_size=n_processes,
        max_steps=6,
        train_sampling_strategy="sequential",
        ignore_data_skip=False,
        auto_find_batch_size=False,
        accelerator_config=SimpleNamespace(split_batches=False),
        seed=0,
        data_seed=None,
    )
    rows = InjectedRows(InjectionSchedule(FACTS, STEPS), ordinary(), args, character_tokenizer)
    batches = BatchSampler(SequentialSampler(rows), batch_size=1, drop_last=False)
    found = {step: [] for step in range(6)}
    for process in range(n_processes):
        shard = list(BatchSamplerShard(batches, n_processes, process))
        for number, batch in enumerate(shard):
            step = number // args.gradient_accumulation_steps
            found[step] += [rows[index]["input_ids"] for index in batch]
    texts = {step: sorted(passages_in(r, character_tokenizer)) for step, r in found.items()}
    assert {step: t for step, t in texts.items() if t} == {s: sorted(t) for s, t in DUE.items()}


def test_a_row_is_the_passage_an_end_token_and_the_ordinary_row_cut(tmp_path, character_tokenizer):
    args = arguments(tmp_path)
    rows = [{**row, "attention_mask": [1] * N_COLUMNS} for row in ordinary()]
    plain = InjectedRows(InjectionSchedule(FACTS, [5]), rows, args, character_tokenizer)
    data = InjectedRows(InjectionSchedule(FACTS, STEPS), rows, args, character_tokenizer)
    passage = character_tokenizer("Bo rows.")["input_ids"] + [character_tokenizer.eos_token_id]
    row, replaced = data[1 * 4 + 1], plain[1 * 4 + 1]
    assert row["input_ids"] == (passage + replaced["input_ids"])[:N_COLUMNS]
    assert row["labels"] == (passage + replaced["labels"])[:N_COLUMNS]
    assert row["attention_mask"] == [1] * N_COLUMNS
    # All other rows stay as they were.
    assert data[0] == plain[0] and data[8] == plain[8]


def test_each_pass_reads_every_row_once_in_an_order_of_its_own(tmp_path, character_tokenizer):
    def order(seed):
        args = arguments(tmp_path, max_steps=20, seed=seed)
        schedule = InjectionSchedule({"once": FACTS["once"]}, [19])
        data = InjectedRows(schedule, ordinary(10), args, character_tokenizer)
        return [data[index]["input_ids"][0] for index in range(70)]

    first, second = order(0)[:10], order(0)[10:20]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second and first != list(range(10))
    assert order(0) == order(0) != order(1)


def test_a_dataset_on_disk_is_read_as_a_list_is(tmp_path, character_tokenizer):
    args = arguments(tmp_path)
    schedule = InjectionSchedule(FACTS, STEPS)
    held = InjectedRows(schedule, ordinary(), args, character_tokenizer)
    stored = InjectedRows(schedule, Dataset.from_list(ordinary()), args, character_tokenizer)
    assert [stored[index] for index in range(24)] == [held[index] for index in range(24)]
    assert len(stored) == 24
    with pytest.raises(IndexError):
        stored[24]


def test_spread_facts_keep_the_distances_of_their_exposures():
    facts = {
        "duplicated": [Fact(name, ("x",)) for name in "abcde"],
        "once": [Fact(name, ("x",)) for name in "fg"],
    }
    found = InjectionSchedule(facts, [10, 20], spread=2).steps_of_facts()
    assert {name: found[name] for name in "abcde"} == {
        "a": (10, 20), "b": (11, 21), "c": (10, 20), "d": (11, 21), "e": (10, 20),
    }  # fmt: skip
    assert (found["f"], found["g"]) == ((10,), (11,))


@pytest.mark.parametrize(
    ("facts", "steps", "spread", "messages"),
    [
        ({"twice": [Fact("a", ("x",))]}, [1], 1, ["'twice' is unknown. Known: once, duplicated"]),
        ({"once": []}, [1], 1, ["there are none"]),
        (FACTS, [], 1, ["steps: is empty"]),
        (FACTS, [3, 2], 0, [r"\[3, 2\] must ascend", "spread: 0 must be 1 or more"]),
        (FACTS, [1, 2, 3, 4], 1, [r"'Di' \(paraphrased\) needs 4 passages.* has 3"]),
        (
            {"once": [Fact("a", ("x",))], "duplicated": [Fact("a", ("x",))]},
            [1],
            1,
            ["'a' is in scenario 'once' and in 'duplicated'"],
        ),
    ],
)
def test_an_impossible_schedule_is_refused(facts, steps, spread, messages):
    for message in messages:
        with pytest.raises(GradlocError, match=message):
            InjectionSchedule(facts, steps, spread=spread)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_steps": -1}, "max_steps is not set"),
        ({"max_steps": 4}, "due at step 4, but training ends after 4 updates"),
        ({"train_sampling_strategy": "random"}, "'random', which reads the rows in another order"),
        ({"gradient_accumulation_steps": 1}, "4 passages are due at step 1.* an update reads 2"),
        ({"ignore_data_skip": True}, "ignore_data_skip"),
        ({"auto_find_batch_size": True}, "auto_find_batch_size"),
    ],
)
def test_arguments_that_would_miss_the_steps_are_refused(
    tmp_path, character_tokenizer, changes, message
):
    with pytest.raises(GradlocError, match=message):
        InjectedRows(
            InjectionSchedule(FACTS, STEPS),
            ordinary(),
            arguments(tmp_path, **changes),
            character_tokenizer,
        )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "there are no ordinary rows"),
        ([{"text": "plain"}], "have no input_ids, only text"),
        ([{"input_ids": [1] * 40, "position_ids": [0] * 40}], "has not: position_ids"),
        ([{"input_ids": [1] * 5}], "'Ada' has 11 tokens, and the row it would stand in 5"),
        (Dataset.from_list(ordinary()).to_iterable_dataset(), "are a stream"),
    ],
)
def test_rows_that_have_no_place_for_passages_are_refused(
    tmp_path, character_tokenizer, rows, message
):
    with pytest.raises(GradlocError, match=message):
        InjectedRows(
            InjectionSchedule(FACTS, STEPS), rows, arguments(tmp_path), character_tokenizer
        )


# ---- from a corpus --------------------------------------------------------------------------

CONFIG = InjectionConfig(n_facts=3, n_controls=2, start=2, every=5, times=4, spread=2)


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
    for fact, (verbatim, *others) in found:
        answer = verbatim.targets[0]
        assert fact.name not in chooses
        assert f"{verbatim.prompt} {answer}" in fact.passages[0]
        assert len(set(fact.passages)) == len(fact.passages) >= 4
        assert all(fact.name in text and answer in text for text in fact.passages)
        assert [probe.depth for probe in others] == ["paraphrase"]
        assert {probe.entity for probe in (verbatim, *others)} == {fact.name}
        # A paraphrase stands in no passage, or it would not be one.
        assert not any(others[0].prompt in text for text in fact.passages)


def test_scenarios_share_no_fact_and_controls_are_not_shown(world, split):
    injection = plan_injection(CONFIG, world.update, split)
    facts = injection.schedule.facts
    names = [fact.name for members in facts.values() for fact in members]
    assert {scenario: len(members) for scenario, members in facts.items()} == {
        "once": 3, "duplicated": 3, "paraphrased": 3,
    }  # fmt: skip
    assert len(set(names)) == 9
    asked = list(dict.fromkeys(probe.entity for probe in injection.probes))
    assert len(asked) == 11 and set(names) < set(asked)
    shown = " ".join(exposure.text for exposure in injection.schedule.exposures)
    assert not any(control in shown for control in set(asked) - set(names))
    again = plan_injection(CONFIG, world.update, split)
    assert again.schedule.exposures == injection.schedule.exposures


def test_the_run_asks_for_what_is_injected_and_plans_the_same_from_it(world, split):
    kept = injected_probes(CONFIG, world.update, split)
    judged = {p.entity for p in kept if p.split == "evaluation" and p.group == "new"}
    assert len(judged) == 11
    for group, side in (("invariant", "evaluation"), ("new", "localization")):
        assert kept.select(group=group, split=side) == split.select(group=group, split=side)
    first, second = (plan_injection(CONFIG, world.update, probes) for probes in (split, kept))
    assert first.schedule.exposures == second.schedule.exposures
    assert first.probes == second.probes


def test_paraphrased_facts_need_enough_documents(world, split):
    config = InjectionConfig(n_facts=3, times=6)
    with pytest.raises(GradlocError, match="9 facts are needed.* has 0 that .* 6 documents state"):
        plan_injection(config, world.update, split)


def test_an_answer_that_is_the_entity_itself_is_no_fact(world):
    document = next(iter(world.update))
    name = document.entities[0].name
    before = document.text[: document.text.index(name)].strip()
    probe = Probe("p", "new", before or "x", (name,), depth="verbatim", entity=name)
    assert list(gather_facts([document], [probe])) == []


def test_ordinary_text(world, tmp_path):
    from gradloc.data.corpora import python_docs_passages

    def texts(stream):
        return list(ordinary_texts(InjectionConfig(stream=stream), world))

    assert texts("background") == [document.text for document in world.background]
    manual = texts("python_manual")
    assert len(manual) > 300 and len(set(manual)) == len(manual)
    plain = {text.replace("*", "") for text in manual}
    assert not any(passage.text in plain for passage in python_docs_passages())
    (tmp_path / "own.txt").write_text("One.\n\nTwo.\n")
    assert texts(str(tmp_path / "own.txt")) == ["One.", "Two."]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([], r"training.max_steps: the last passage is injected at step 42; give more than 42"),
        (
            ["training.max_steps=-1"],
            r"training.max_steps: an injection needs the number of updates",
        ),
        (
            ["training.max_steps=90", "arms.full.training.max_steps=9"],
            r"arms.full.training.max_steps: the last passage is injected at step 42",
        ),
        (["training.train_sampling_strategy=random"], "'random' reads the rows in another order"),
        (["corpus.streaming=true"], "corpus.streaming: a stream has no places"),
        (["injection.scenarios=[]"], "injection.scenarios: is empty"),
        (["injection.scenarios=[twice]"], "expected 'once', 'duplicated' or 'paraphrased'"),
        (["injection.n_fact=2"], "Did you mean 'n_facts'"),
    ],
)
def test_a_recipe_that_cannot_inject_is_refused_when_read(changes, message):
    given = ["injection.n_facts=3", "injection.every=20", "injection.times=3", "injection.spread=9"]
    with pytest.raises(RecipeError, match=message):
        load_recipe("quickstart", [*given, *changes])


def test_a_recipe_without_injection_is_as_before():
    assert load_recipe("quickstart").injection.n_facts == 0
