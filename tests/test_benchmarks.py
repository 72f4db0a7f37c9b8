"""Loaders of benchmarks: invented rows in each released form, real files, and bad files."""

import csv
import gzip
import inspect
import json
import logging
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from gradloc.data.benchmarks import BENCHMARKS, read_benchmark, unfolding
from gradloc.data.benchmarks.filling import RULES
from gradloc.data.probes import Probe, ProbeSet
from gradloc.data.probes.parsing import FIELDS
from gradloc.errors import ProbeError

DATA = Path(__file__).parents[2] / "shared" / "data"


def lines(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    return path


def table(path, *rows, delimiter=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def problems(name, path):
    with pytest.raises(ProbeError) as error:
        read_benchmark(name, path)
    assert str(path) in str(error.value)
    return list(error.value.problems)


# The table


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_says_what_it_is(name):
    benchmark = BENCHMARKS[name]
    assert benchmark.about.endswith(".") and 30 <= len(benchmark.about) <= 100
    assert re.search(r"arXiv:\d{4}\.\d{5}$", benchmark.source)
    assert benchmark.files and all(ending.startswith(".") for ending in benchmark.files)
    assert not benchmark.rows or inspect.getdoc(getattr(unfolding, benchmark.rows))
    for fields in (benchmark.fields, *benchmark.forms):
        assert set(fields) <= {*FIELDS, "cloze", "question", "has"}
        rules = [rule for rule in fields.values() if isinstance(rule, dict)]
        assert all(set(rule) <= set(RULES) for rule in rules)


def test_reading_benchmarks_needs_no_torch():
    code = (
        "import sys, gradloc.data.benchmarks; print(*{'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


# ECBD

ECBD = {
    "ex_id": "Blue_Ridge (band)_4711_3_0",
    "masked_sentence": "In May, Blue_Ridge released <extra_id_0>, which sold well.",
    "answer_str": "<extra_id_0> a second album <extra_id_1>",
    "answer_d": {"<extra_id_0>": "a second album"},
    "span_type": "NP-COMMON",
    "definition": ["[ENT_START]Blue_Ridge[ENT_END] is a band."],
    "year": "2019",
    "entity_span_str": "Blue_Ridge",
    "entity_span_loc": [3, 4],
}


def test_ecbd_release(tmp_path):
    other = {**ECBD, "ex_id": "Blue_Ridge (band)_4711_3_1", "span_type": "RANDOM"}
    path = lines(tmp_path / "2019" / "np_spans_dev.json", ECBD, other)
    first, second = read_benchmark("ecbd", path)
    assert first == Probe(
        id="np_spans_dev:Blue_Ridge (band)_4711_3_0",
        group="new",
        prompt="In May, Blue_Ridge released",
        targets=("a second album",),
        suffix=", which sold well.",
        entity="Blue_Ridge (band)",
        date="2019-01-01",
        task="ecbd",
        kind="NP",
    )
    assert first.text("a second album")[0] == (
        "In May, Blue_Ridge released a second album, which sold well."
    )
    assert second.kind == "random"


@pytest.mark.parametrize(
    "where", ["popular/np_spans_dev.json", "specificity_popular_np.json", "year"]
)
def test_popular_entities_are_invariant(tmp_path, where):
    row = {**ECBD, "year": "popular"} if where == "year" else ECBD
    file = "np_spans_dev.json" if where == "year" else where
    (probe,) = read_benchmark("ecbd", lines(tmp_path / file, row))
    assert (probe.group, probe.task) == ("invariant", "ecbd_popular")


def test_pages_of_one_title_stay_two_entities(tmp_path):
    ids = ("Nova_1_0_0", "Nova_2_0_0", "Terra_3_0_0")
    path = lines(tmp_path / "x.json", *({**ECBD, "ex_id": name} for name in ids))
    assert [p.entity for p in read_benchmark("ecbd", path)] == ["Nova (1)", "Nova (2)", "Terra"]


PROPAGATION = {
    "ex_id": "Nova_Prize_815_2_1",
    "definition": "The Nova Prize is <extra_id_0>.",
    "def_target": "<extra_id_0> an award <extra_id_1>",
    "ent_str": "Nova Prize",
    "probe_sentences": {
        "template_0": {
            "probe_sentence": "The Nova Prize is given by <extra_id_0> of Pern.",
            "label": "<extra_id_0> the mayor <extra_id_1>",
        }
    },
}


def test_ecbd_in_the_form_of_knowledge_propagation(tmp_path):
    path = lines(tmp_path / "all_ent_np_easy.json", PROPAGATION, PROPAGATION)
    first, second = read_benchmark("ecbd", path)
    assert (first.prompt, first.suffix) == ("The Nova Prize is given by", " of Pern.")
    assert (first.targets, first.entity, first.kind) == (("the mayor",), "Nova_Prize", "NP")
    # The augmented release repeats ids; the same file always gets the same ids.
    assert [first.id, second.id] == [
        "all_ent_np_easy:Nova_Prize_815_2_1",
        "all_ent_np_easy:Nova_Prize_815_2_1#2",
    ]
    assert read_benchmark("ecbd", path) == ProbeSet((first, second))


# Entity Inferences


def inference(**changes):
    labels = [f"<extra_id_0> {word} <extra_id_1>" for word in ("funny", "sad", "wet")]
    return {
        "ex_id": "tv_dev_0",
        "category": "tv_show",
        "ent_str": "The Harbour",
        "probe_sentences": {
            "template_0": {
                "probe_sentence": "Many find The Harbour <extra_id_0>.",
                "labels": labels,
            }
        },
        "label": "funny",
        "augmented_probes": ["The Harbour is a comedy."],
        **changes,
    }


def test_entity_inferences(tmp_path):
    path = lines(tmp_path / "tv.json", inference(), inference(ex_id="b", label=["sad", "wet"]))
    first, second = read_benchmark("entity_inferences", path)
    assert first == Probe(
        id="tv:tv_dev_0",
        group="new",
        prompt="Many find The Harbour",
        targets=("funny",),
        suffix=".",
        candidates=("funny", "sad", "wet"),
        entity="The Harbour",
        task="entity_inferences",
        kind="tv_show",
    )
    assert second.targets == ("sad", "wet")


def test_a_label_outside_the_labels_is_refused(tmp_path):
    path = lines(tmp_path / "tv.json", inference(label="dry"))
    assert problems("entity_inferences", path) == [
        "line 1: targets: 'dry' is none of the 3 candidates",
    ]


# CKL


def test_invariant_lama(tmp_path):
    path = table(
        tmp_path / "invariantLAMA.csv",
        ["id", "input", "output"],
        ["7", "Mora was born in <extra_id_0> .", "<extra_id_0> Pern"],
        ["8", 'The "Globe" is in <extra_id_0>', "Oss; north"],
    )
    first, second = read_benchmark("ckl", path)
    assert first == Probe(
        "invariantLAMA:7", "invariant", "Mora was born in", ("Pern",), suffix=" ."
    )
    # Only the answers of the other tables are lists.
    assert (second.prompt, second.targets) == ('The "Globe" is in', ("Oss; north",))


UPDATED = (
    ["unique_id", "statement", "old_answer", "new_answer"],
    ["3", "Mora plays for <extra_id_0> in Pern.", "Oss FC;FC Oss", "Pern United; Oss FC"],
)


def test_updated_lama_by_its_cells(tmp_path):
    (probe,) = read_benchmark("ckl", table(tmp_path / "updatedLAMA.csv", *UPDATED))
    assert probe == Probe(
        "updatedLAMA:3",
        "updated",
        "Mora plays for",
        ("Pern United", "Oss FC"),
        old_targets=("FC Oss",),  # what is right again is not out of date
        suffix=" in Pern.",
    )


@pytest.mark.parametrize("folder", ["data", "data/updatedlama"])
def test_updated_lama_by_the_answers_of_the_release(tmp_path, folder):
    answers = {"3": [{"old": ["Oss FC"], "new": ["Pern United", "PU"]}]}
    lines(tmp_path / "data" / "updatedlama_val_answers.json", answers)
    (probe,) = read_benchmark("ckl", table(tmp_path / folder / "updatedLAMA.csv", *UPDATED))
    assert (probe.targets, probe.old_targets) == (("Pern United", "PU"), ("Oss FC",))


def test_new_lama_and_its_easy_version(tmp_path):
    rows = (
        ["unique_id", "statement", "question", "answer"],
        ["1", "The tower in Oss is <extra_id_0> metres high.", "How high?", "90;ninety"],
        ["2", "The tower stands.", "Where is the tower?", "Oss"],
    )
    path = table(tmp_path / "newLAMA.csv", *rows)
    first, second = read_benchmark("ckl", path)
    assert first == Probe(
        "newLAMA:1", "new", "The tower in Oss is", ("90", "ninety"), suffix=" metres high."
    )
    assert second.prompt == "Question: Where is the tower?\nAnswer:"
    # The two versions have answer files of their own.
    lines(tmp_path / "recentlama_h_val_answers.json", {"1": ["90 m"], "2": ["Oss"]})
    lines(tmp_path / "recentlama_val_answers.json", {"1": ["91 m"], "2": ["Oss"]})
    easy = table(tmp_path / "newLAMA_easy.csv", *rows)
    assert read_benchmark("ckl", path).probes[0].targets == ("90 m",)
    assert read_benchmark("ckl", easy).probes[0].targets == ("91 m",)


def test_ckl_reports_what_it_cannot_use(tmp_path):
    bare = table(tmp_path / "updatedLAMA.csv", ["unique_id", "statement", "new_answer"],
                 ["1", "A is <extra_id_0>.", "b"])  # fmt: skip
    assert problems("ckl", bare) == [
        "line 2: old_answer: is missing; or put updatedlama_val_answers.json beside the table"
    ]
    lines(tmp_path / "updatedlama_val_answers.json", {"2": [{"old": ["c"], "new": ["b"]}]})
    assert problems("ckl", bare) == [
        "line 2: unique_id: updatedlama_val_answers.json lists no answers for '1'"
    ]
    lines(tmp_path / "updatedlama_val_answers.json", {"1": ["c"]})
    assert problems("ckl", bare)[0] == (
        "line 2: updatedlama_val_answers.json.0: expected an object in braces, found 'c'"
    )
    lines(tmp_path / "updatedlama_val_answers.json", ["c"])
    with pytest.raises(ProbeError, match="expected an object in braces, found a list"):
        read_benchmark("ckl", bare)
    # A file that the table does not need may be broken.
    (tmp_path / "recentlama_h_val_answers.json").write_text("{")
    other = table(tmp_path / "other.csv", ["a", "b"], ["1", "2"])
    assert problems("ckl", other) == [
        "line 2: expected 'input', 'new_answer' or 'answer', found a, b"
    ]


def test_rows_whose_gap_stands_first_are_counted_and_left_out(tmp_path, caplog):
    head = ["id", "input", "output"]
    path = table(
        tmp_path / "i.csv",
        head,
        ["1", "<extra_id_0> is big.", "A"],
        ["2", "B is <extra_id_0>", "b"],
    )
    with caplog.at_level(logging.WARNING):
        (probe,) = read_benchmark("ckl", path)
    assert probe.id == "i:2"
    assert "1 of 2 rows left out: the gap stands first" in caplog.text
    alone = table(tmp_path / "alone.csv", head, ["1", "<extra_id_0> is big.", "A"])
    assert problems("ckl", alone) == [
        "1 of 1 rows left out: the gap stands first, so nothing leads up to the answer"
    ]


# EvolvingQA


def test_evolvingqa(tmp_path):
    head = ["question", "answer", "question_time"]
    row = ["Who leads Oss?", "Mora", "In May 2020 and March 2023, who leads Oss?"]
    expected = {"prompt": "Question: Who leads Oss?\nAnswer:", "targets": ("Mora",)}
    for name, group in (("unchanged_eval", "invariant"), ("new_0203", "new")):
        (probe,) = read_benchmark("evolvingqa", table(tmp_path / f"{name}.csv", head, row))
        assert probe == Probe(id=f"{name}:1", group=group, date="2023-03-01", **expected)
    edited = table(
        tmp_path / "edited_0203.csv",
        ["question", "answer1", "answer2", "question_time"],
        ["Who leads Oss?", "Tern", "Mora", "2023-03-15"],
        ["How many?", "three", "Three", "in 2023"],
        ["When?", "May", "June", ""],
    )
    first, second, third = read_benchmark("evolvingqa", edited)
    assert first == Probe(
        id="edited_0203:1", group="updated", old_targets=("Tern",), date="2023-03-15", **expected
    )
    assert (second.old_targets, second.date, third.date) == ((), "2023-01-01", "")


def test_evolvingqa_must_know_which_knowledge_a_file_asks_for(tmp_path):
    path = table(tmp_path / "eval.csv", ["question", "answer"], ["Who?", "Mora"])
    assert problems("evolvingqa", path) == [
        "its name does not say what its rows ask for; rename it so that its name says "
        "'unchanged' or 'new'"
    ]


# KnowEdit

RELEASED_EDIT = {
    "subject": "Mora",
    "prompt": "Mora plays for",
    "target_new": "Pern United",
    "ground_truth": ["Oss FC", "pern united"],
    "rephrase_prompt": "Mora is under contract with",
    "portability": {
        "Reasoning": [
            {"prompt": "Mora's club plays in", "ground_truth": [["Pern", "Pern Town"], ["P."]]},
            {"prompt": "Nobody knows", "ground_truth": [[""]]},
        ],
        "Subject_Aliasing": [{"prompt": "M. plays for", "ground_truth": "Pern United"}],
    },
    "locality": {"Forgetfulness": [{"prompt": "Mora was born in", "ground_truth": [["Oss"]]}]},
}


def test_knowedit_release(tmp_path):
    path = tmp_path / "test_cf.json"
    wikibio = {"concept": "Tern", "text": "Tern was", "labels": "a poet.", "locality": {}}
    path.write_text(json.dumps([RELEASED_EDIT, wikibio], indent=1))
    case = {"entity": "Mora", "case": "test_cf:1"}
    port = {**case, "depth": "composition", "task": "knowedit_portability"}
    assert list(read_benchmark("knowedit", path)) == [
        Probe("test_cf:1-edit", "updated", "Mora plays for", ("Pern United",),
              old_targets=("Oss FC",), task="knowedit_edit", **case),
        Probe("test_cf:1-portability-Reasoning-0", "updated", "Mora's club plays in",
              ("Pern", "Pern Town", "P."), kind="Reasoning", **port),
        Probe("test_cf:1-portability-Subject_Aliasing-0", "updated", "M. plays for",
              ("Pern United",), kind="Subject_Aliasing", **port),
        Probe("test_cf:1-locality-Forgetfulness-0", "invariant", "Mora was born in", ("Oss",),
              task="knowedit_locality", kind="Forgetfulness", **case),
        Probe("test_cf:2-edit", "updated", "Tern was", ("a poet.",), task="knowedit_edit",
              entity="Tern", case="test_cf:2"),
    ]  # fmt: skip


def test_knowedit_with_parallel_lists(tmp_path):
    row = {
        "subject": "Mora",
        "prompt": "Mora plays for",
        "target_new": "Pern United",
        "case_id": 9,
        "portability": {"reasoning": {"prompt": ["A is", "B is"], "ground_truth": ["a", "b"]}},
        "locality": {"Relation_Specificity": {"prompt": ["C is"], "ground_truth": ["c"]}},
    }
    probes = read_benchmark("knowedit", lines(tmp_path / "cf.jsonl", row))
    assert [(p.task, p.kind, p.prompt, p.targets) for p in probes] == [
        ("knowedit_edit", "", "Mora plays for", ("Pern United",)),
        ("knowedit_portability", "Reasoning", "A is", ("a",)),
        ("knowedit_portability", "Reasoning", "B is", ("b",)),
        ("knowedit_locality", "Relation_Specificity", "C is", ("c",)),
    ]
    assert {p.case for p in probes} == {"cf:1"}


def test_knowedit_reports_broken_sections(tmp_path):
    base = {"subject": "M", "prompt": "M is", "target_new": "x"}
    path = lines(
        tmp_path / "cf.jsonl",
        {**base, "portability": ["a"]},
        {**base, "locality": {"Forgetfulness": "a"}},
        {**base, "locality": {"Forgetfulness": {"prompt": ["a", "b"], "ground_truth": ["c"]}}},
        {**base, "locality": {"Forgetfulness": [{"ground_truth": "c"}]}},
        {"subject": "M", "target": "x"},
    )
    assert problems("knowedit", path) == [
        "line 1: portability: expected an object in braces, found ['a']",
        "line 2: locality.Forgetfulness: expected objects with 'prompt' and 'ground_truth'",
        "line 3: locality.Forgetfulness: 2 prompts and 1 answers",
        "line 4: locality.Forgetfulness.0.prompt: is missing. Known: ground_truth.",
        "line 5: target_new or labels: is missing. Did you mean 'target'?",
        "line 5: prompt or text: is missing. Known: subject, target.",
    ]


# TemporalWiki


@pytest.mark.parametrize("form", ["csv", "tsv", "scv", "jsonl", "lists"])
@pytest.mark.parametrize(("name", "group"), [("changed", "updated"), ("unchanged", "invariant")])
def test_temporalwiki(tmp_path, form, name, group):
    head, values = ["subject", "relation", "object"], ["Mora, J.", "occupation", "poet"]
    path = tmp_path / f"0801-0901_{name}.{'json' if form == 'lists' else form}"
    if form in ("csv", "tsv", "scv"):
        table(path, head, values, delimiter="\t" if form == "tsv" else ",")
    else:
        row = dict(zip(head, values, strict=True))
        path.write_text(json.dumps(row if form == "jsonl" else [values]))
    assert list(read_benchmark("temporalwiki", path)) == [
        Probe(
            f"0801-0901_{name}:1",
            group,
            "Mora, J. occupation",
            ("poet",),
            entity="Mora, J.",
            task=f"temporalwiki_{name}",
        )
    ]


def test_temporalwiki_must_know_whether_triples_changed(tmp_path):
    path = table(tmp_path / "0801.csv", ["subject", "relation", "object"], ["a", "b", "c"])
    assert problems("temporalwiki", path) == [
        "its name does not say what its rows ask for; rename it so that its name says "
        "'unchanged' or 'changed'"
    ]
    path = lines(tmp_path / "changed.json", json.dumps([["a", "b"]]))
    assert problems("temporalwiki", path) == [
        "item 1 (line 1): expected an object in braces or a list of 3, found a list"
    ]


# TempLAMA


def held(year, *names, query="Mora plays for _X_.", fact="Q5_P54"):
    answer = [{"wikidata_id": "Q0", "name": name} for name in names]
    row = {"query": query, "answer": answer, "date": str(year), "id": f"{fact}_{year}"}
    return {**row, "relation": fact.split("_")[1]}


def test_templama_compares_each_year_with_the_last_earlier_one(tmp_path):
    path = lines(
        tmp_path / "test.json",
        held(2012, "Pern United"),  # the order of the file does not matter
        held(2010, "Oss FC"),
        held(2011, "Oss FC"),
        held(2014, "Pern United", "Oss FC"),
        held(2015, "Tern"),
        held(2017, "Oss FC"),
        held(2012, "Tern", fact="Q6_P54"),
    )
    probes = read_benchmark("templama", path)
    assert [(p.kind, p.group, p.targets, p.old_targets) for p in probes] == [
        ("2012", "updated", ("Pern United",), ("Oss FC",)),
        ("2010", "invariant", ("Oss FC",), ()),
        ("2011", "invariant", ("Oss FC",), ()),
        ("2014", "invariant", ("Pern United", "Oss FC"), ()),  # nothing ceased to hold
        ("2015", "updated", ("Tern",), ("Pern United", "Oss FC")),
        ("2017", "updated", ("Oss FC",), ("Tern",)),
        ("2012", "invariant", ("Tern",), ()),
    ]
    assert probes.probes[0] == Probe(
        "test:Q5_P54_2012",
        "updated",
        "Mora plays for",
        ("Pern United",),
        old_targets=("Oss FC",),
        suffix=".",
        entity="Q5",
        date="2012-01-01",
        kind="2012",
    )


def test_templama_queries_with_the_answer_within_or_first(tmp_path, caplog):
    path = lines(
        tmp_path / "test.json",
        held(2010, "Oss FC", query="Mora joined _X_ in May."),
        held(2010, "Tern", query="_X_ is the head coach of A. S. Oss.", fact="Q7_P286"),
        held(2010, "Tern", query="_X_ won.", fact="Q8_P1"),
    )
    probes = read_benchmark("templama", path)
    assert [(p.prompt, p.suffix) for p in probes] == [
        ("Mora joined", " in May."),
        ("The head coach of A. S. Oss is", "."),
    ]
    assert "1 of 3 rows left out" in caplog.text


def test_templama_also_reads_a_single_answer_and_refuses_other_dates(tmp_path):
    script = {**held(2010), "answer": {"name": "Oss FC"}}
    assert read_benchmark("templama", lines(tmp_path / "a.json", script)).probes[0].targets == (
        "Oss FC",
    )
    path = lines(tmp_path / "b.json", held("May 2010", "A"), {**held(2010), "answer": "Oss"})
    assert problems("templama", path) == [
        "line 1: date: expected a year, found 'May 2010'",
        "line 2: answer: expected objects with a 'name'",
    ]


# Fictional knowledge


def passage(n):
    row = {"train_context": "Mora founded Oss in 12 AB."}
    for prefix in ("mem", "gen", "hard_gen"):
        row[f"{prefix}_input"] = [f"{prefix} {n} {i} Mora founded" for i in range(2)]
        row[f"{prefix}_target"] = ["Oss", "it"]
    return row


def test_fictional_knowledge(tmp_path):
    path = lines(tmp_path / "fictional.json", passage(0), "", passage(1))
    probes = read_benchmark("fictional_knowledge", path)
    depths = ["verbatim"] * 2 + ["paraphrase"] * 2 + ["composition"] * 2
    assert [p.depth for p in probes] == depths * 2
    assert [p.case for p in probes] == ["0"] * 6 + ["1"] * 6  # blank lines are no passages
    assert probes.probes[7] == Probe(
        "fictional:mem-1-1",
        "new",
        "mem 1 1 Mora founded",
        ("it",),
        "verbatim",
        entity="passage 1",
        case="1",
    )


def test_fictional_knowledge_needs_a_target_for_each_input(tmp_path):
    broken = {**passage(0), "gen_target": ["Oss"]}
    missing = {key: value for key, value in passage(1).items() if key != "mem_target"}
    found = problems("fictional_knowledge", lines(tmp_path / "f.json", broken, missing))
    assert found == [
        "line 1: gen_target: expected one for each input, found 2 inputs and 1 targets",
        "line 2: mem_target: is missing. Did you mean 'gen_target'?",
    ]


# Multiple choice and minimal pairs


def test_multiple_choice_in_both_forms(tmp_path):
    expected = {
        "group": "invariant",
        "prompt": "Question: Which is wet?\nAnswer:",
        "targets": ("rain",),
        "candidates": ("sand", "rain", "rain", "dust"),
        "task": "arc_tiny",
    }
    choices = list(expected["candidates"])
    prepared = {"query": "Question: Which is wet?", "choices": choices, "gold": 1}
    bare = {"query": "Which is wet?", "choices": choices, "gold": "2"}
    hub = {
        "id": "M_7",
        "question": "Which is wet?",
        "choices": {"text": choices, "label": ["1", "2", "3", "4"]},
        "answerKey": "2",
    }
    probes = read_benchmark(
        "multiple_choice", lines(tmp_path / "arc_tiny.jsonl", prepared, bare, hub)
    )
    ids = ["arc_tiny:1", "arc_tiny:2", "arc_tiny:M_7"]
    assert list(probes) == [Probe(id=name, **expected) for name in ids]


def test_multiple_choice_reports_a_gold_answer_that_is_no_choice(tmp_path):
    row = {"query": "Which?", "choices": ["a", "b"]}
    hub = {"question": "Which?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}}
    path = lines(
        tmp_path / "arc.jsonl",
        {**row, "gold": 2},
        {**row, "gold": -1},
        {**row, "gold": "b"},
        {**row, "choices": ["a", " "], "gold": 0},
        {**hub, "answerKey": "C"},
        {**hub, "choices": {"text": ["a", "b"], "label": ["A"]}, "answerKey": "A"},
        row,
    )
    assert problems("multiple_choice", path) == [
        "line 1: gold: expected an index from 0 to 1, found '2'",
        "line 2: gold: expected an index from 0 to 1, found '-1'",
        "line 3: gold: expected an index from 0 to 1, found 'b'",
        "line 4: choices: holds an empty text",
        "line 5: answerKey: 'C' is none of the labels A, B",
        "line 6: choices.label: 1 labels for 2 texts",
        "line 7: gold: is missing. Known: query, choices.",
    ]


def test_minimal_pairs_in_both_forms(tmp_path):
    good, bad = "Cats sleep.", "Cats sleeps."
    path = lines(
        tmp_path / "agreement.jsonl",
        {"good": good, "bad": bad, "UID": "regular_plural", "field": "syntax", "pairID": "41"},
        {"sentence_good": good, "sentence_bad": bad, "UID": "regular_plural", "pair_id": 41},
        {"good": good, "bad": bad},
    )
    expected = {"group": "invariant", "prompt": "", "targets": (good,), "candidates": (good, bad)}
    assert list(read_benchmark("minimal_pairs", path)) == [
        Probe(id=name, task="agreement", kind=kind, **expected)
        for name, kind in (
            ("agreement:regular_plural-41", "regular_plural"),
            ("agreement:regular_plural-41#2", "regular_plural"),
            ("agreement:3", ""),
        )
    ]
    assert problems("minimal_pairs", lines(tmp_path / "b.jsonl", {"good": good})) == [
        "line 1: bad or sentence_bad: is missing. Known: good."
    ]


# Files


PAIR = {"good": "Cats sleep.", "bad": "Cats sleeps.", "UID": "agreement"}
GOOD = json.dumps(PAIR).encode()


def test_all_containers_of_the_same_rows_give_the_same_probes(tmp_path):
    rows = [PAIR, {**PAIR, "good": "Çats\u2028sleep."}]
    plain = read_benchmark("minimal_pairs", lines(tmp_path / "a" / "pairs.jsonl", *rows))
    for folder, content in (
        ("b", json.dumps(rows)),
        ("c", json.dumps(rows, indent=2, ensure_ascii=False) + "\n"),
        ("d", "\ufeff" + "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)),
    ):
        path = tmp_path / folder / "pairs.json"
        path.parent.mkdir()
        path.write_text(content, encoding="utf-8")
        packed = path.with_name("pairs.json.gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        assert read_benchmark("minimal_pairs", path) == plain
        assert read_benchmark("minimal_pairs", packed) == plain


def test_unknown_benchmark_lists_live_names():
    with pytest.raises(ProbeError) as error:
        read_benchmark("know_edit", "x.json")
    assert error.value.problems == ("'know_edit' is unknown. Did you mean 'knowedit'?",)
    with pytest.raises(ProbeError) as error:
        read_benchmark("zzz", "x.json")
    assert error.value.problems == (f"'zzz' is unknown. Known: {', '.join(BENCHMARKS)}.",)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("pairs.parquet", b"x", "minimal_pairs takes .json, .jsonl, each also with .gz"),
        ("pairs.json", b"", "the file is empty; expected at least one row"),
        ("pairs.json", b" [ ] ", "the file is empty; expected at least one row"),
        ("pairs.json", b'["\\ud800"]', "item 1 (line 1): is not JSON: '\\ud800' is half of"),
        ("pairs.json", b"[1, {]", "item 1 (line 1): expected an object in braces, found a int"),
        ("pairs.json", b"[\n%s\n{}]" % GOOD, "item 1 (line 2): is followed by '{'; expected ','"),
        ("pairs.json", b"[%s" % GOOD, "item 1 (line 1): is followed by the end of the file"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content)
    assert problems("minimal_pairs", path)[0].startswith(expected)


def test_all_problems_of_a_file_are_reported_together(tmp_path):
    path = lines(
        tmp_path / "pairs.jsonl",
        PAIR,
        '{"good": ',
        '["a"]',
        {"good": ["a"], "bad": ""},
        {**PAIR, "good": "half \ud800"},
        {**PAIR, "bad": 1.5},
    )
    found = problems("minimal_pairs", path)
    assert found[0].startswith("line 2: is not JSON: Expecting value")
    assert found[1:] == [
        "line 3: expected an object in braces, found a list",
        "line 4: good: expected text, found ['a']",
        "line 4: bad: is empty; every row needs it",
        "line 5: is not JSON: '\\ud800' is half of a surrogate pair and no character",
        "line 6: bad: expected text, found 1.5",
    ]


def test_a_missing_column_is_said_once(tmp_path):
    path = table(tmp_path / "new_0203.csv", ["question", "anser"], *[["Who?", "Mora"]] * 90)
    assert problems("evolvingqa", path) == [
        "all 90 rows: answer: is missing. Did you mean 'anser'?"
    ]
    rows = [{**PAIR, "bad": ""}] * 60
    found = problems("minimal_pairs", lines(tmp_path / "pairs.jsonl", PAIR, *rows))
    assert (len(found), found[-1]) == (51, "... and 10 more")


def test_broken_tables_name_the_line_on_which_a_row_begins(tmp_path):
    path = tmp_path / "new_0203.csv"
    path.write_text('question,answer\n"Who\nwon?",Mora\nWho?,\nWho?,a,b\n"Who?,Tern\n')
    assert problems("evolvingqa", path) == [
        "line 4: answer: is empty; every row needs it",
        "line 5: has 3 cells under 2 column names",
        "line 6: is not CSV: unexpected end of data",
    ]


def test_gaps_are_counted(tmp_path):
    rows = [
        {**ECBD, "masked_sentence": "No gap."},
        {**ECBD, "masked_sentence": "A <extra_id_0> and <extra_id_0>."},
        {**ECBD, "ex_id": "Nova"},
    ]
    assert problems("ecbd", lines(tmp_path / "x.json", *rows)) == [
        "line 1: masked_sentence: expected one gap <extra_id_0>, found 0",
        "line 2: masked_sentence: expected one gap <extra_id_0>, found 2",
        "line 3: ex_id: expected title_pageid_paragraph_sentence, found 'Nova'",
    ]


# Real files


def real(name):
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"no file shared/data/{name} beside the repository")
    return path, [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_real_fictional_knowledge():
    path, rows = real("fictional_knowledge/passages.jsonl")
    probes = read_benchmark("fictional_knowledge", path)
    assert Counter(p.depth for p in probes) == {
        "verbatim": sum(len(row["mem_input"]) for row in rows),
        "paraphrase": sum(len(row["gen_input"]) for row in rows),
        "composition": sum(len(row["hard_gen_input"]) for row in rows),
    }
    # The paper's verbatim probes are parts of their passage.
    for probe in probes:
        passage = rows[int(probe.case)]["train_context"]
        joined = [probe.prompt + space + probe.targets[0] for space in ("", " ")]
        assert probe.depth != "verbatim" or any(text in passage for text in joined)


@pytest.mark.parametrize("name", ["counterfact", "zsre"])
def test_real_knowedit(name):
    path, rows = real(f"knowedit/{name}.jsonl")
    expected = Counter()
    for row in rows:
        expected["knowedit_edit", ""] += 1
        for section in ("portability", "locality"):
            for kind, items in row.get(section, {}).items():
                kind = "Reasoning" if kind == "reasoning" else kind
                expected[f"knowedit_{section}", kind] += len(items["prompt"])
    probes = read_benchmark("knowedit", path)
    assert Counter((p.task, p.kind) for p in probes) == expected
    edits = [p for p in probes if p.task == "knowedit_edit"]
    assert [p.targets for p in edits] == [(row["target_new"],) for row in rows]
    assert {p.group for p in probes if p.task == "knowedit_locality"} == {"invariant"}
    assert len({p.case for p in probes}) == len(rows)


def test_real_arc():
    path, rows = real("retention/arc_easy.jsonl")
    probes = read_benchmark("multiple_choice", path)
    assert len(probes) == len(rows)
    for probe, row in zip(probes, rows, strict=True):
        assert probe.candidates == tuple(row["choices"])
        assert probe.targets == (row["choices"][row["gold"]],)
        assert probe.prompt == row["query"] + "\nAnswer:"
    assert {p.task for p in probes} == {"arc_easy"}


def test_real_blimp():
    path, rows = real("retention/blimp.jsonl")
    probes = read_benchmark("minimal_pairs", path)
    assert [(p.candidates, p.kind) for p in probes] == [
        ((row["good"], row["bad"]), row["UID"]) for row in rows
    ]
    assert all(p.targets == p.candidates[:1] and not p.prompt for p in probes)
