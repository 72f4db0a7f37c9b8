"""What a recipe trains on: token rows of its documents."""

from collections.abc import Iterator, Sequence

from datasets import Dataset, IterableDataset

from gradloc.config.recipe import Recipe
from gradloc.data.batches import training_rows
from gradloc.data.corpora import Corpus
from gradloc.data.preparation import training_documents
from gradloc.data.probes import ProbeSet
from gradloc.errors import CorpusError, MethodError
from gradloc.training.methods.base import Method, TrainContext
from gradloc.training.monitoring import Stopwatch


def training_data(
    recipe: Recipe,
    context: TrainContext,
    methods: Sequence[Method],
    corpus: Corpus,
    probes: ProbeSet,
    watch: Stopwatch,
) -> Dataset | IterableDataset:
    """Token rows of the update documents; re-read at every epoch where the corpus streams.

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
    changing = [method for method in methods if type(method).rows is not Method.rows]

    def rows() -> Iterator[dict]:
        return training_rows(
            context.tokenizer,
            (document.text for document in training_documents(recipe, corpus, probes)),
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
