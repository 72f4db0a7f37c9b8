import dataclasses
import gzip
import json
import random

import pytest

from gradloc.data.probes import Probe, ProbeSet, join, load_probes, read_probe_rows
from gradloc.data.probes.parsing import FIELDS
from gradloc.errors import FileError, GradlocError, ProbeError

ROW = {"prompt": "The capital of France is", "targets": ["Paris"], "group": "invariant"}


def write(path, *rows):
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def some_probes(n, **values):
    return [
        Probe(f"{n}-{i}", "new", f"The mayor of {n}-{i} is", ("X",), entity=f"{n}-{i}", **values)
        for i in range(n)
    ]


def test_reader_knows_the_fields_of_a_probe():
    assert tuple(field.name for field in dataclasses.fields(Probe)) == FIELDS


def test_saved_set_loads_back_equal(tmp_path):
    probes = ProbeSet(
        (
            Probe(
                "a",
                "updated",
                "The currency of Croatia is the",
                ("euro", "Euro"),
                "verbatim",
                ("kuna",),
                ".",
                ("euro", "yen"),
                "Croatia",
                "2023-01-01",
                "evaluation",
            ),  # fmt: skip
            Probe("b", "new", "東京は\n", ("日本",)),
        )
    )
    path = probes.save(tmp_path / "probes.jsonl")
    assert ProbeSet.load(path) == load_probes(path) == probes
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2
    assert "東京" in path.read_text(encoding="utf-8")


def test_lists_ids_and_gzip_are_read_as_people_write_them(tmp_path):
    rows = [{**ROW, "id": 7, "targets": "Paris"}, "", {**ROW, "targets": [1994, "x"], "date": None}]
    plain = load_probes(write(tmp_path / "facts.jsonl", *rows))
    assert [p.id for p in plain] == ["7", "facts:3"]
    assert [p.targets for p in plain] == [("Paris",), ("1994", "x")]
    packed = tmp_path / "facts.jsonl.gz"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + (tmp_path / "facts.jsonl").read_bytes()))
    assert load_probes(packed) == plain


def test_fields_and_defaults_fit_a_file_of_another_form(tmp_path):
    path = write(
        tmp_path / "leaders.jsonl",
        {"prefix": "The president of X is", "target": "A", "previous": "B", "country": "X"},
        {"prefix": "The president of Y is", "target": "A", "previous": None, "group": "new"},
    )
    fields = {"prompt": "prefix", "targets": "target", "old_targets": "previous"}
    probes = read_probe_rows(path, {**fields, "entity": "country"}, {"group": "updated"})
    assert list(probes) == [
        Probe(
            "leaders:1", "updated", "The president of X is", ("A",), old_targets=("B",), entity="X"
        ),
        Probe("leaders:2", "new", "The president of Y is", ("A",)),
    ]


def test_rows_of_another_form_may_share_the_id_of_their_document(tmp_path):
    path = write(tmp_path / "p.jsonl", *[{**ROW, "id": "doc", "n": n} for n in range(3)])
    probes = read_probe_rows(path, {"entity": "subject"})
    assert [p.id for p in probes] == ["doc", "doc#2", "doc#3"]
    with pytest.raises(ProbeError, match="line 2: id 'doc' is taken by line 1"):
        read_probe_rows(write(tmp_path / "q.jsonl", *[{**ROW, "id": "doc"}] * 2))


def test_mapping_of_fields_that_a_probe_lacks_is_refused(tmp_path):
    path = write(tmp_path / "p.jsonl", ROW)
    with pytest.raises(ProbeError) as error:
        read_probe_rows(path, {"promt": "x"}, {"grup": "new"})
    assert "fields: unknown key 'promt'. Did you mean 'prompt'?" in str(error.value)
    assert "defaults: unknown key 'grup'. Did you mean 'group'?" in str(error.value)


def test_all_problems_of_a_file_are_reported_together(tmp_path):
    path = write(
        tmp_path / "p.jsonl",
        {**ROW, "id": "a"},
        {"prompt": "x", "group": "new"},
        {**ROW, "targets": []},
        {**ROW, "targets": ["Paris", " "]},
        {**ROW, "id": "a"},
        {**ROW, "group": "update"},
        {**ROW, "depth": "verbatm"},
        {**ROW, "split": "train"},
        {**ROW, "group": "updated", "old_targets": ["Lyon", "paris"]},
        {**ROW, "sufix": "."},
        {**ROW, "date": "2023"},
        {**ROW, "targets": 1.5},
        '{"prompt": ',
        '["a"]',
        '{"prompt": "half \\ud800", "targets": "a", "group": "new"}',
    )
    with pytest.raises(ProbeError) as error:
        load_probes(path)
    assert list(error.value.problems) == [
        "line 2: targets: is missing or empty; every probe needs it",
        "line 3: targets: is missing or empty; every probe needs it",
        "line 4: targets: holds an empty text",
        "line 5: id 'a' is taken by line 1",
        "line 6: group: 'update' is unknown. Did you mean 'updated'?",
        "line 7: depth: 'verbatm' is unknown. Did you mean 'verbatim'?",
        "line 8: split: 'train' is unknown. Known: localization, evaluation.",
        "line 9: old_targets: 'paris' is a target too; an answer cannot be both right and out of "
        "date",
        "line 10: unknown key 'sufix'. Did you mean 'suffix'? A suite or recipe can name other "
        "columns ('fields: {targets: COLUMN}'), or a benchmark's own form ('format: NAME')",
        "line 11: date: expected YYYY-MM-DD, found '2023'",
        "line 12: targets: expected text or a list of texts, found 1.5",
        "line 13: is not JSON: Expecting value: line 1 column 12 (char 11)",
        "line 14: expected an object in braces, found a list",
        "line 15: is not JSON: '\\ud800' is half of a surrogate pair and no character",
    ]


def test_problems_name_the_column_and_are_cut_at_fifty(tmp_path):
    path = write(tmp_path / "p.jsonl", *[{"prefix": "x", "group": "new"}] * 60)
    with pytest.raises(ProbeError) as error:
        read_probe_rows(path, {"prompt": "prefix", "targets": "target"})
    assert len(error.value.problems) == 51
    assert "line 1: targets (column 'target'): is missing" in error.value.problems[0]
    assert error.value.problems[-1] == "... and 10 more"


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "no such file; expected a probe file"),
        (b"", "the file is empty"),
        (b"\n \n", "the file is empty"),
        (b"\xff\xfe", "is not UTF-8 text"),
    ],
)
def test_unreadable_file_is_one_clear_error(tmp_path, content, message):
    path = tmp_path / "p.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(GradlocError, match=message):
        load_probes(path)


@pytest.mark.parametrize("content", [b"plain text", gzip.compress(b"{}" * 50, mtime=0)[:-12]])
def test_broken_gzip_is_one_clear_error(tmp_path, content):
    (tmp_path / "p.jsonl.gz").write_bytes(content)
    with pytest.raises(FileError, match="cannot be read"):
        load_probes(tmp_path / "p.jsonl.gz")


def test_set_refuses_one_id_twice_and_takes_any_iterable():
    assert len(ProbeSet(iter(some_probes(3)))) == 3
    with pytest.raises(ProbeError, match="id '3-0' stands for 2 probes"):
        ProbeSet((*some_probes(3), some_probes(3)[0]))


def test_select_combines_its_conditions():
    probes = ProbeSet(
        Probe(f"{g}{d}{s}", g, "x", ("y",), depth=d, split=s)
        for g in ("new", "updated") for d in ("verbatim", "paraphrase")
        for s in ("localization", "evaluation")
    )  # fmt: skip
    assert [p.id for p in probes.select(group="new", split="evaluation")] == [
        "newverbatimevaluation", "newparaphraseevaluation",
    ]  # fmt: skip
    assert probes.select() == probes and not len(probes.select(group="invariant"))
    with pytest.raises(ProbeError, match="depth 'shallow' is unknown"):
        probes.select(depth="shallow")


def test_split_does_not_depend_on_the_other_probes():
    many = ProbeSet(some_probes(400))
    split = {p.id: p.split for p in many.split_by_entity(0.3, seed=1)}
    share = sum(side == "localization" for side in split.values()) / len(split)
    assert abs(share - 0.3) < 0.07
    shuffled = list(many)
    random.Random(0).shuffle(shuffled)
    for subset in (many.probes[:200], many.probes[100:], shuffled):
        assert all(p.split == split[p.id] for p in ProbeSet(subset).split_by_entity(0.3, seed=1))
    other = {p.id: p.split for p in many.split_by_entity(0.3, seed=2)}
    assert sum(other[name] != split[name] for name in split) > 100


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
@pytest.mark.parametrize("n_entities", [2, 3, 10])
def test_both_sides_have_an_entity_where_there_are_two(fraction, n_entities):
    for seed in range(10):
        split = ProbeSet(some_probes(n_entities)).split_by_entity(fraction, seed)
        assert len(split.select(split="localization")) == (1 if fraction < 0.5 else n_entities - 1)
    assert len({p.split for p in ProbeSet(some_probes(1)).split_by_entity(fraction, 0)}) == 1


def test_fraction_zero_or_one_is_meant():
    probes = ProbeSet(some_probes(5))
    assert {p.split for p in probes.split_by_entity(0, 0)} == {"evaluation"}
    assert {p.split for p in probes.split_by_entity(1, 0)} == {"localization"}


def test_given_splits_and_invariant_probes_decide_for_their_entity():
    probes = ProbeSet(
        (
            Probe("a", "new", "x", ("y",), entity="Ada", split="localization"),
            Probe("b", "new", "x", ("y",), entity="ADA "),
            Probe("c", "invariant", "x", ("y",), entity="Chad"),
            Probe("d", "updated", "x", ("y",), entity="Chad"),
            Probe("e", "invariant", "x", ("y",)),
            *some_probes(20),
        )
    )
    split = probes.split_by_entity(0.9, seed=0)
    assert [p.split for p in split][:5] == [
        "localization", "localization", "evaluation", "evaluation", "evaluation",
    ]  # fmt: skip
    assert [dataclasses.replace(p, split="") for p in split][1:] == list(probes)[1:]
    for seed in range(20):
        assert probes.split_by_entity(0.9, seed).probes[3].split == "evaluation"
    split.check_disjoint()
    assert split.split_by_entity(0.1, seed=5) == split


def test_every_split_is_disjoint_and_a_shared_entity_is_named():
    entities = [f"e{i % 7}" for i in range(40)]
    probes = ProbeSet(
        Probe(str(i), "new", "x", ("y",), entity=entity) for i, entity in enumerate(entities)
    )
    for seed in range(20):
        split = probes.split_by_entity(0.5, seed)
        split.check_disjoint()
        sides = {p.entity: set() for p in split}
        for p in split:
            sides[p.entity].add(p.split)
        assert all(len(found) == 1 for found in sides.values())
        assert {p.split for p in split} == {"localization", "evaluation"}
    broken = ProbeSet(
        (
            Probe("a", "new", "x", ("y",), entity="Zürich", split="localization"),
            Probe("b", "new", "x", ("y",), entity="zu\u0308rich", split="evaluation"),
            Probe("c", "new", "x", ("y",), entity="Bern", split="evaluation"),
        )
    )
    with pytest.raises(ProbeError, match="'Zürich' has localization and evaluation") as error:
        broken.check_disjoint()
    assert "Bern" not in str(error.value)


@pytest.mark.parametrize(
    "prompt, answer, expected",
    [
        ("The capital of France is", "Paris", "The capital of France is Paris"),
        ("The capital of France is ", "Paris", "The capital of France is Paris"),
        ("The capital of France is", " Paris", "The capital of France is Paris"),
        ("", "Paris", "Paris"),
        ("Paris", "", "Paris"),
        ("Paris", ", France", "Paris, France"),
        ("Paris", "'s mayor", "Paris's mayor"),
        ("Paris", "’s mayor", "Paris’s mayor"),
        ("He lives in", "'s-Hertogenbosch", "He lives in 's-Hertogenbosch"),
        ("It runs on", ".NET", "It runs on .NET"),
        ("The film (", "1994", "The film (1994"),
        ("The film (1994", ")", "The film (1994)"),
        ('He said "', "yes", 'He said "yes'),
        ('He said "yes', '".', 'He said "yes".'),
        ('The word "yes"', "means", 'The word "yes" means'),
        ("The film", '"Heat"', 'The film "Heat"'),
        ("Das Wort „ja“", "heißt", "Das Wort „ja“ heißt"),
        ("Er sagte »", "ja", "Er sagte »ja"),
        ("Er sagte »ja", "«", "Er sagte »ja«"),
        ("¿", "Quién", "¿Quién"),
        ("It costs $", "5", "It costs $5"),
        ("The Franco-", "Prussian War", "The Franco-Prussian War"),
        ("A Paris", "-based firm", "A Paris-based firm"),
        ("It is", "-5 degrees", "It is -5 degrees"),
        ("日本の首都は", "東京", "日本の首都は東京"),
        ("เมืองหลวงคือ", "กรุงเทพ", "เมืองหลวงคือกรุงเทพ"),
        ("ရန်ကုန်", "မြို့", "ရန်ကုန်မြို့"),
        ("日本の首都は東京", "。", "日本の首都は東京。"),
        ("The Japanese name is", "東京", "The Japanese name is 東京"),
        ("대한민국의 수도는", "서울", "대한민국의 수도는 서울"),
        ("عاصمة مصر هي", "القاهرة", "عاصمة مصر هي القاهرة"),
        ("القاهرة", "؟", "القاهرة؟"),
        ("The letter e", "\u0301", "The letter e\u0301"),
    ],
)
def test_join_writes_as_people_do(prompt, answer, expected):
    assert join(prompt, answer) == expected


@pytest.mark.parametrize("answer", ["Paris", " Paris", "Paris ", "the city of Paris"])
@pytest.mark.parametrize("suffix", ["", ".", "and more", " and more"])
def test_text_marks_the_answer_alone(answer, suffix):
    probe = Probe("a", "new", "The capital of France is", ("Paris",), suffix=suffix)
    text, start, end = probe.text(answer)
    assert text[start:end] == answer.strip()
    assert text.startswith(probe.prompt + " ") and text.endswith(suffix)
    assert "  " not in text or (answer[-1] == " " and suffix[0] == " ")
