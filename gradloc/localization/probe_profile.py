"""From probes and texts to a gradient profile: which sequences are drawn and tokenised."""

import random
from pathlib import Path

from torch import nn

from gradloc.config.recipe import MeasureConfig, Recipe
from gradloc.data.batches import IGNORED, probe_rows, text_rows
from gradloc.data.corpora import Corpus, general_passages, require_documents
from gradloc.data.corpora.texts import read_texts
from gradloc.data.probes import Probe, ProbeSet
from gradloc.errors import MeasurementError
from gradloc.localization.gradients.measure import measure_gradients
from gradloc.localization.profile import GradientProfile

# Texts of the reference that training methods may draw from. assumption: more add little
MAX_REFERENCE = 1000


def profile_probes(
    model: nn.Module,
    tokenizer,
    probes: ProbeSet,
    reference: list[str],
    config: MeasureConfig,
    *,
    seed: int = 0,
    progress: bool | None = None,
) -> GradientProfile:
    """Measure a model on the answers of localisation probes and on reference text.

    Args:
        model: The model.
        tokenizer: Its fast tokenizer.
        probes: Probes about new and updated facts; those marked ``evaluation`` and invariant
            ones are left out.
        reference: Texts whose behaviour is to be kept.
        config: Granularity, reduction, counts, lengths, reference loss.
        seed: Which probes and texts are drawn.
        progress: Show a progress bar; ``None``: when on a terminal.

    Raises:
        MeasurementError: No probe or no text is left to measure.
    """
    chosen = draw_probes(probes, config.n_probes, seed)
    texts = [text for text in reference if text.strip()]
    if not texts:
        raise MeasurementError("there is no reference text to measure interference with.")
    texts = random.Random(seed).sample(texts, min(config.n_reference, len(texts)))
    rows = probe_rows(tokenizer, chosen, max_length=config.max_length)
    lengths = [sum(label != IGNORED for label in row["labels"]) for row in rows]
    reference_rows = text_rows(
        tokenizer,
        texts,
        max_length=config.max_length,
        loss=config.reference_loss,
        span_lengths=lengths,
        seed=seed,
    )
    settings = {
        "seed": seed,
        "max_length": config.max_length,
        "probe_loss": "salient span",
        "reference_loss": config.reference_loss,
        "probe_ids": [probe.id for probe in chosen],
    }
    return measure_gradients(
        model,
        rows,
        reference=reference_rows,
        granularity=config.granularity,
        reduction=config.reduction,
        settings=settings,
        progress=progress,
    )


def draw_probes(probes: ProbeSet, n: int, seed: int) -> list[Probe]:
    """Draw probes that may choose layers, turn by turn over their entities.

    Taking one probe of every entity before a second of any gives the widest view of the new
    facts for the same number of sequences.

    Raises:
        MeasurementError: There is none.
    """
    by_entity: dict[str, list[Probe]] = {}
    for probe in probes:
        if probe.group != "invariant" and probe.split != "evaluation":
            by_entity.setdefault(probe.entity or probe.id, []).append(probe)
    if not by_entity:
        raise MeasurementError(
            f"none of the {len(probes)} probes can choose layers: all are invariant or kept for "
            "evaluation. Give probes of group new or updated, without split 'evaluation'."
        )
    generator = random.Random(seed)
    groups = list(by_entity.values())
    generator.shuffle(groups)
    for group in groups:
        generator.shuffle(group)
    turns = max(map(len, groups))
    drawn = [group[turn] for turn in range(turns) for group in groups if turn < len(group)]
    return drawn[:n]


def recipe_reference(recipe: Recipe, corpus: Corpus, n: int = MAX_REFERENCE) -> list[str]:
    """The texts whose behaviour a recipe wants kept: background documents, or those it names.

    Args:
        recipe: The recipe; ``measure.reference`` says which.
        corpus: Its corpus.
        n: Background documents at most.

    Raises:
        CorpusError: There is none.
    """
    named = recipe.measure.reference
    if named == "background":
        return background_texts(corpus, n, recipe.seed)
    return reference_texts(None if named == "general" else named)


def reference_texts(path: str | Path | None) -> list[str]:
    """Texts of a file (JSONL with ``text``, or ``.txt``); ``None``: the shipped passages.

    Raises:
        CorpusError: The file is missing or holds no text.
    """
    if path is None:
        return [passage.text for passage in general_passages("reference")]
    return list(read_texts(path))


def background_texts(corpus: Corpus, n: int, seed: int) -> list[str]:
    """A random sample of the background documents, in one pass and constant memory.

    Raises:
        CorpusError: The corpus has no background document.
    """
    require_documents(corpus, background=True)
    generator = random.Random(seed)
    sample: list[str] = []
    for seen, document in enumerate(corpus.background):  # reservoir sampling (Vitter 1985)
        if seen < n:
            sample.append(document.text)
        elif (place := generator.randrange(seen + 1)) < n:
            sample[place] = document.text
    return sample
