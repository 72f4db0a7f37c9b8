"""Readers, the split at the cut-off, and every message for a bad corpus."""

import datetime
import gzip
import json

import pytest

from gradloc.config.recipe import CorpusConfig
from gradloc.data.corpora import Corpus, Document, Reiterable, require_documents, split_at_cutoff
from gradloc.data.corpora.readers import READERS, read_corpus
from gradloc.errors import GradlocError

CUTOFF = "2023-01-01"
ROWS = [
    {"id": "a", "date": "2022-12-31", "text": "The day before."},
    {"id": "b", "date": "2023-01-01", "text": "Ana Dov wins.", "entities": [[0, 7, "Ana Dov", 1]]},
    {"date": "2024-02-29", "text": "Straße nach Zürich", "topic": "a key nobody asked for"},
]


def write_jsonl(path, rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def read_file(path, source="jsonl", **settings):
    config = CorpusConfig(source=source, paths=(str(path),), cutoff=CUTOFF, **settings)
    return read_corpus(config, seed=0)


def problem(call, *arguments, **settings):
    with pytest.raises(GradlocError) as caught:
        call(*arguments, **settings)
    return str(caught.value)


# ---- what comes out of a good file --------------------------------------------------------------


def test_documents_fall_on_the_right_side_of_the_cutoff(tmp_path):
    corpus = read_file(write_jsonl(tmp_path / "news.jsonl", ROWS))
    assert [document.id for document in corpus.background] == ["a"]
    # The cut-off day itself belongs to the update; a missing id is file stem and line.
    assert [document.id for document in corpus.update] == ["b", "news:3"]


def test_fields_of_a_document_survive_reading(tmp_path):
    corpus = read_file(write_jsonl(tmp_path / "news.jsonl", ROWS))
    first, second = corpus.update
    assert first == Document("b", "2023-01-01", "Ana Dov wins.", ((0, 7, "Ana Dov", True),))
    assert second.text == "Straße nach Zürich" and second.entities == ()


@pytest.mark.parametrize("name", ["news.jsonl", "news.jsonl.gz"])
def test_plain_and_compressed_lines_read_the_same(tmp_path, name):
    rows = [ROWS[0], "", *ROWS[1:]]  # a blank line is skipped but counts
    documents = list(read_file(write_jsonl(tmp_path / name, rows)).update)
    assert [document.id for document in documents] == ["b", "news:4"]


def test_several_files_are_read_in_order(tmp_path):
    paths = (
        write_jsonl(tmp_path / "one.jsonl", ROWS[:2]),
        write_jsonl(tmp_path / "two.jsonl", ROWS[2:]),
    )
    corpus = read_corpus(CorpusConfig(source="jsonl", paths=paths, cutoff=CUTOFF), seed=0)
    assert [document.id for document in corpus.update] == ["b", "two:1"]


def test_a_corpus_can_be_read_again_and_does_not_hold_its_documents(tmp_path):
    path = write_jsonl(tmp_path / "news.jsonl", ROWS)
    corpus = read_file(path)
    assert list(corpus.update) == list(corpus.update)
    write_jsonl(tmp_path / "news.jsonl", ROWS[1:2])
    assert [document.id for document in corpus.update] == ["b"]


def test_a_bad_line_far_down_does_not_stop_reading_before_it(tmp_path):
    path = write_jsonl(tmp_path / "news.jsonl", [*ROWS, "{"])
    documents = iter(read_file(path).update)
    assert next(documents).id == "b" and next(documents).id == "news:3"
    assert "news.jsonl:4" in problem(next, documents)


def test_nothing_is_handed_on_after_a_problem(tmp_path):
    """What is read after a bad line is read to report on it, not to be trained on."""
    path = write_jsonl(tmp_path / "news.jsonl", [ROWS[1], "{", ROWS[2]])
    documents = iter(read_file(path).update)
    assert next(documents).id == "b"
    assert "news.jsonl:2" in problem(next, documents)


def test_columns_can_have_other_names(tmp_path):
    rows = [{"published": "2023-05-01T08:30:00Z", "body": "Rain.", "key": 7, "text": 1, "date": 2}]
    fields = {"date": "published", "text": "body", "id": "key"}
    (document,) = read_file(write_jsonl(tmp_path / "n.jsonl", rows), fields=fields).update
    assert document == Document("7", "2023-05-01", "Rain.")


@pytest.fixture
def parquet_file(tmp_path):
    import pyarrow
    import pyarrow.parquet

    mention = {"start": 0, "end": 3, "name": "Dov", "novel": True}
    table = pyarrow.table(
        {
            "text": ["Old.", "Dov came.", "Dov left."],
            "date": [datetime.date(2022, 1, 1), datetime.date(2023, 1, 1), None],
            "stamp": [datetime.datetime(2022, 1, 1, 23), datetime.datetime(2023, 1, 1, 0)] * 1
            + [datetime.datetime(2023, 6, 1, 12)],
            "entities": [[], [mention], [mention]],
        }
    )
    path = tmp_path / "news.parquet"
    pyarrow.parquet.write_table(table, path)
    return path


def test_parquet_dates_and_mentions(parquet_file):
    corpus = read_file(parquet_file, "parquet", fields={"date": "stamp"})
    assert [document.date for document in corpus.background] == ["2022-01-01"]
    assert [(d.id, d.date) for d in corpus.update] == [
        ("news:2", "2023-01-01"),
        ("news:3", "2023-06-01"),
    ]
    assert next(iter(corpus.update)).entities == ((0, 3, "Dov", True),)
    assert "row 3: date: expected a date" in problem(
        list, read_file(parquet_file, "parquet").update
    )


def test_datasets_source_with_options(tmp_path):
    path = write_jsonl(tmp_path / "rows.json", [{"text": "T.", "date": "2023-02-03"}])
    config = CorpusConfig(
        source="datasets", paths=("json",), cutoff=CUTOFF, options={"data_files": path}
    )
    corpus = read_corpus(config, seed=0)
    assert [(d.id, d.date, d.text) for d in corpus.update] == [("json:1", "2023-02-03", "T.")]
    assert len(list(corpus.update)) == len(list(corpus.update)) == 1


def test_datasets_of_a_local_folder(parquet_file):
    config = CorpusConfig(
        source="datasets",
        paths=(str(parquet_file.parent),),
        cutoff=CUTOFF,
        fields={"date": "stamp"},
    )
    assert [document.date for document in read_corpus(config, seed=0).background] == ["2022-01-01"]


# ---- what is said of a bad one ------------------------------------------------------------------


def test_unknown_reader_suggests_a_live_key():
    message = problem(read_corpus, CorpusConfig(source="jsonlines"), seed=0)
    assert "'jsonlines'" in message and "Did you mean 'jsonl'?" in message
    message = problem(read_corpus, CorpusConfig(source="x"), seed=0)
    assert all(reader in message for reader in READERS)


def test_added_readers_are_suggested(monkeypatch):
    monkeypatch.setitem(READERS, "almanac", lambda config, *, seed: None)
    assert "'almanac'" in problem(read_corpus, CorpusConfig(source="almanach"), seed=0)


def test_missing_files_are_named_together(tmp_path):
    config = CorpusConfig(source="jsonl", paths=("nowhere.jsonl", "never.jsonl"), cutoff=CUTOFF)
    message = problem(read_corpus, config, seed=0)
    assert "nowhere.jsonl, never.jsonl" in message and "relative to" in message


def test_no_path_at_all():
    message = problem(read_corpus, CorpusConfig(source="parquet", cutoff=CUTOFF), seed=0)
    assert "'parquet' needs at least one path" in message


def test_empty_corpus(tmp_path):
    assert "no documents at all" in problem(read_file, write_jsonl(tmp_path / "e.jsonl", []))


def test_nothing_after_the_cutoff(tmp_path):
    message = problem(read_file, write_jsonl(tmp_path / "old.jsonl", ROWS[:1]))
    assert "no document is dated 2023-01-01 (the cut-off) or later" in message


def test_nothing_before_the_cutoff_is_an_error_only_when_asked_for(tmp_path):
    corpus = read_file(write_jsonl(tmp_path / "new.jsonl", ROWS[1:]))
    require_documents(corpus)
    message = problem(require_documents, corpus, background=True)
    assert "no document is dated before 2023-01-01" in message and "reference" in message


def test_all_problems_of_a_file_come_together(tmp_path):
    rows = [
        ROWS[1],
        "{not json",
        '["a list"]',
        {"date": "2023-01-01", "text": ""},
        {"text": "No date."},
        {"text": "Bad date.", "date": "2023-02-30"},
        {"text": "Short.", "date": "2023-01-01", "entities": [[0, 99, "Long", 1]]},
        {"text": "Empty span.", "date": "2023-01-01", "entities": [[3, 3, "", 0]]},
        {"text": "Bad row.", "date": "2023-01-01", "entities": [[0, 3, "Bad"]]},
    ]
    path = write_jsonl(tmp_path / "bad.jsonl", rows)
    lines = problem(lambda: list(read_file(path).update)).splitlines()
    expected = [
        (2, "not JSON"),
        (3, "expected an object in braces, found a list"),
        (4, "text: expected text, found ''"),
        (5, "date: missing; the columns are text"),
        (6, "date: expected a date YYYY-MM-DD, found '2023-02-30'"),
        (7, "entities[0]: span 0:99 of 'Long' lies outside the text (6 characters)"),
        (8, "entities[0]: span 3:3"),
        (9, "entities[0]: expected [start, end, name, novel]"),
    ]
    assert len(lines) == len(expected)
    for line, (number, words) in zip(lines, expected, strict=True):
        assert line.startswith(f"{path}:{number}: ") and words in line


def test_reading_stops_after_ten_problems(tmp_path):
    path = write_jsonl(tmp_path / "bad.jsonl", [ROWS[1], *["{"] * 50])
    lines = problem(lambda: list(read_file(path).update)).splitlines()
    assert len(lines) == 11 and "stopped" in lines[-1]


@pytest.mark.parametrize("date", ["20230101", "2023-1-1", "1 May 2023", 20230101, True, ""])
def test_dates_in_other_forms_are_refused_not_guessed(tmp_path, date):
    path = write_jsonl(tmp_path / "bad.jsonl", [{"text": "T.", "date": date}])
    assert "expected a date YYYY-MM-DD" in problem(read_file, path)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "latin.jsonl"
    path.write_bytes(b'{"text": "Z\xfcrich", "date": "2023-01-01"}')
    assert "not UTF-8" in problem(read_file, path)
    path = tmp_path / "fake.jsonl.gz"
    path.write_bytes(b"{}")
    assert "gzip" in problem(read_file, path)


def test_parquet_that_is_none(tmp_path):
    path = tmp_path / "news.parquet"
    path.write_text("text,date")
    assert "a damaged parquet file, or none at all (after row 0: ArrowInvalid" in problem(
        read_file, path, "parquet"
    )


def test_unknown_document_field(tmp_path):
    path = write_jsonl(tmp_path / "n.jsonl", ROWS)
    assert "Did you mean 'text'?" in problem(read_file, path, fields={"txt": "body"})


def test_readers_without_options_refuse_them(tmp_path):
    path = write_jsonl(tmp_path / "n.jsonl", ROWS)
    assert "has no options; found speed" in problem(read_file, path, options={"speed": 1})


def test_a_data_set_that_cannot_be_loaded_names_itself(tmp_path):
    config = CorpusConfig(source="datasets", paths=(str(tmp_path / "none"),), cutoff=CUTOFF)
    assert "load_dataset cannot read it" in problem(read_corpus, config, seed=0)


def test_cutoff_must_be_a_date():
    assert "is no date" in problem(split_at_cutoff, [], "soon")


def test_streams_start_anew():
    stream = Reiterable(lambda: (number for number in range(3)))
    assert list(zip(stream, stream, strict=True)) == [(0, 0), (1, 1), (2, 2)]


def test_corpus_of_lists_is_checked_as_well():
    document = Document("a", "2020-01-01", "Text.")
    require_documents(Corpus([document], [document]), background=True)
    assert "no documents at all" in problem(require_documents, Corpus([], []))
