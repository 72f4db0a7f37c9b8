"""What a recipe trains on: token rows of its documents, and what follows injected facts."""

import functools
from collections.abc import Callable, Iterator, Sequence

from datasets import Dataset, IterableDataset

from gradloc.config.recipe import Recipe
from gradloc.data.batches import training_rows
from gradloc.data.corpora import Corpus
from gradloc.data.corpora.documents import Document
from gradloc.data.injection import InjectedRows, ordinary_texts, plan_injection
from gradloc.data.preparation import training_documents
from gradloc.data.probes import ProbeSet
from gradloc.errors import CorpusError, MethodError
from gradloc.training.acquisition.callback import AcquisitionCallback
from gradloc.training.methods.base import Method, TrainContext
from gradloc.training.monitoring import Stopwatch


def training_data(
    recipe: Recipe,
    context: TrainContext,
    methods: Sequence[Method],
    corpus: Corpus,
    probes: ProbeSet,
    watch: Stopwatch,
) -> tuple[Dataset | IterableDataset | InjectedRows, list[AcquisitionCallback]]:
    """What is trained on, and the callbacks that follow it.

    Args:
        recipe: The recipe.
        context: The training.
        methods: Its methods; those that change rows do so, under ``watch``.
        corpus: The recipe's corpus.
        probes: The run's probes.
        watch: Counts the time that methods take.

    Raises:
        CorpusError: There is no text to train on.
        MethodError: A method changes the rows of a corpus that streams.
    """
    tokenizer = context.tokenizer
    if not recipe.injection.n_facts:
        documents = functools.partial(training_documents, recipe, corpus, probes)
        return _dataset(recipe, context, methods, documents, watch), []
    injection = plan_injection(recipe.injection, corpus.update, probes)
    length = recipe.corpus.max_length
    texts = ordinary_texts(recipe.injection, corpus)
    # Packed, so that every row has room for a passage; the rest at the end is left out.
    rows = [
        row
        for row in training_rows(tokenizer, texts, max_length=length, packing=True)
        if len(row["input_ids"]) == length
    ]
    tracker = AcquisitionCallback(
        injection.probes, recipe.injection.measure_every, exposures=injection.schedule
    )
    return InjectedRows(injection.schedule, rows, context.arguments, tokenizer), [tracker]


def _dataset(
    recipe: Recipe,
    context: TrainContext,
    methods: Sequence[Method],
    documents: Callable[[], Iterator[Document]],
    watch: Stopwatch,
) -> Dataset | IterableDataset:
    """Token rows of the update documents; re-read at every epoch where the corpus streams."""
    changing = [method for method in methods if type(method).rows is not Method.rows]

    def rows() -> Iterator[dict]:
        return training_rows(
            context.tokenizer,
            (document.text for document in documents()),
            max_length=recipe.corpus.max_length,
            packing=recipe.corpus.packing,
        )

    if recipe.corpus.streaming:
        if changing:
            raise MethodError(
                f"{type(changing[0]).__name__} changes the rows that are trained on, which a "
                "streamed corpus does not hold. Set corpus.streaming to false."
            )
        return IterableDataset.from_generator(rows)
    held = list(rows())
    if not held:
        raise CorpusError("the update documents hold no text of two tokens or more to train on.")
    with watch:
        for method in changing:
            held = method.rows(held, context)
    return Dataset.from_list(held)
