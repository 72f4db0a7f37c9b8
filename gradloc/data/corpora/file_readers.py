"""Readers of the user's own documents: JSON lines, parquet, and any ``datasets`` source."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from gradloc.config.recipe import CorpusConfig
from gradloc.config.shipped import find_data
from gradloc.data.corpora.corpus import Corpus, Reiterable, split_at_cutoff
from gradloc.data.corpora.document_rows import check_fields, to_document
from gradloc.data.corpora.documents import Document
from gradloc.errors import CorpusError
from gradloc.utils.io import parse_json, read_lines

# What a reader makes of one file: (place for messages, id to use where none is given, record).
# A record that cannot be read at all is a string that says why.
Records = Iterator[tuple[str, str, dict[str, Any] | str]]

# One look at a broken file should show whether one line or every line is wrong.
MAX_PROBLEMS = 10


def read_jsonl(config: CorpusConfig, *, seed: int = 0) -> Corpus:
    """Read JSON lines, one document a line, plain or ``.gz``; other keys are ignored.

    Args:
        config: ``paths``, ``fields`` and ``cutoff`` are used.
        seed: Not used.

    Raises:
        CorpusError: A file is missing; while iterating: bad JSON, a missing or invalid date or
            text, an entity outside its text (the first ten problems of the file together).
    """
    return _corpus(config, _existing(config), _jsonl_records)


def read_parquet(config: CorpusConfig, *, seed: int = 0) -> Corpus:
    """Read parquet files, one document a row, in batches; other columns are ignored.

    Args:
        config: ``paths``, ``fields`` and ``cutoff`` are used.
        seed: Not used.

    Raises:
        CorpusError: A file is missing or no parquet; while iterating: as ``read_jsonl``.
    """
    return _corpus(config, _existing(config), _parquet_records)


def read_datasets(config: CorpusConfig, *, seed: int = 0) -> Corpus:
    """Read whatever ``datasets.load_dataset`` can, streaming.

    Args:
        config: Each of ``paths`` is a data set's name or folder; ``options`` go to
            ``load_dataset`` (``{split: train, name: en}``, ``{data_files: news.csv}``).
            ``split`` is ``train`` unless given.
        seed: Not used.

    Raises:
        CorpusError: The source cannot be loaded; while iterating: as ``read_jsonl``.
    """
    paths = _named(config)
    options = {"split": "train", **config.options}
    if not isinstance(options["split"], str):
        raise CorpusError(
            f"corpus.options.split: {options['split']!r} is no name of a split; write one such "
            "as 'train' or 'train+test'."
        )
    return _corpus(config, paths, lambda path: _dataset_records(path, options))


def _corpus(config: CorpusConfig, paths: list[str], records: Callable[[str], Records]) -> Corpus:
    check_fields(config.fields)

    def documents() -> Iterator[Document]:
        for path in paths:
            yield from _checked(records(path), config.fields, config.default_date)

    background, update = split_at_cutoff(Reiterable(documents), config.cutoff)
    return Corpus(background, update, (), config.cutoff, ", ".join(paths))


def _checked(records: Records, fields: dict[str, str], default_date: str) -> Iterable[Document]:
    """Documents up to the first problem; then read on and report the first problems together."""
    problems: list[str] = []
    for place, default_id, record in records:
        if isinstance(record, str):
            problems.append(f"{place}: {record}")
        else:
            document, found = to_document(record, fields, default_id, default_date)
            problems += [f"{place}: {problem}" for problem in found]
            if document is not None and not problems:
                yield document
        if len(problems) >= MAX_PROBLEMS:
            problems = [*problems[:MAX_PROBLEMS], "(reading stopped here)"]
            break
    if problems:
        raise CorpusError("\n".join(problems))


def _jsonl_records(path: str) -> Records:
    stem = _stem(path)
    for number, line in read_lines(path, "corpus in JSON lines"):
        place, default_id = f"{path}:{number}", f"{stem}:{number}"
        try:
            record = parse_json(line)
        except ValueError as error:
            yield place, default_id, f"not JSON: {error}"
            continue
        if not isinstance(record, dict):
            record = f"expected an object in braces, found a {type(record).__name__}"
        yield place, default_id, record


def _parquet_records(path: str) -> Records:
    def rows() -> Iterator[dict[str, Any]]:
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()

    return _table_records(path, rows, "a damaged parquet file, or none at all")


def _dataset_records(path: str, options: dict[str, Any]) -> Records:
    def rows() -> Iterable[dict[str, Any]]:
        import datasets

        return datasets.load_dataset(path, streaming=True, **options)

    return _table_records(path, rows, f"datasets.load_dataset cannot read it with {options}")


def _table_records(path: str, rows: Callable[[], Iterable[dict]], problem: str) -> Records:
    number = 0
    try:
        for number, record in enumerate(rows(), start=1):
            yield f"{path}: row {number}", f"{_stem(path)}:{number}", record
    except Exception as error:  # dozens of kinds, for a wrong name as for a damaged page
        raise CorpusError(
            f"{path}: {problem} (after row {number}: {type(error).__name__}: {error})."
        ) from error


def _stem(path: str) -> str:
    name = Path(path).name.removesuffix(".gz")
    return name.rsplit(".", 1)[0] or name


def _named(config: CorpusConfig) -> list[str]:
    if not config.paths:
        raise CorpusError(
            f"corpus.paths: the reader {config.source!r} needs at least one path, found none."
        )
    return [str(path) for path in config.paths]


def _existing(config: CorpusConfig) -> list[str]:
    """The files of a reader without options."""
    if config.options:
        raise CorpusError(
            f"corpus.options: the reader {config.source!r} has no options; found "
            f"{', '.join(config.options)}."
        )
    paths = [find_data(path) for path in _named(config)]
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise CorpusError(
            f"corpus.paths: no such file: {', '.join(missing)}. Paths are relative to {Path.cwd()}."
        )
    return paths
