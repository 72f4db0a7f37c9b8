"""KnowEdit as a corpus: documents that state its edits, once each, and its own probes."""

from collections.abc import Iterator
from dataclasses import replace

from gradloc.config.recipe import CorpusConfig
from gradloc.data.benchmarks import read_benchmark
from gradloc.data.corpora.corpus import Corpus, Reiterable
from gradloc.data.corpora.documents import Document, EntityMention
from gradloc.data.probes import Probe
from gradloc.errors import CorpusError
from gradloc.utils.numbers import check_number

_EDIT = "knowedit_edit"
# The same question about the subject by another of its names.
_ALIAS = "Subject_Aliasing"
_CHOOSES_EVERY = 3


def read_knowedit(config: CorpusConfig, *, seed: int) -> Corpus:
    """Read the edits of KnowEdit as documents: the prompt and its new answer, as a sentence.

    Probes are ``updated``: the sentence itself (``verbatim``), the subject by another name
    (``paraphrase``), what follows from the edit (``composition``); and ``invariant``, where it
    should change nothing (still to be screened to what the base model has right). Every third
    subject chooses layers and is not asked what should stay, the others judge.

    Args:
        config: ``paths``, ``cutoff`` (which dates all edits) and ``options`` are used;
            ``options.n_edits`` takes the first so many cases of each file.
        seed: Not used.

    Raises:
        CorpusError: No path, a file without edits, or an unknown or unusable option.
        ProbeError: As ``gradloc.data.benchmarks.read_benchmark``.
    """
    n_edits = _n_edits(config)
    if not config.paths:
        raise CorpusError(
            "corpus.paths: the reader 'knowedit' needs at least one path, found none."
        )
    probes: list[Probe] = []
    for path in config.paths:
        asked = list(read_benchmark("knowedit", path))
        edits = [probe for probe in asked if probe.task == _EDIT][:n_edits]
        if not edits:
            raise CorpusError(f"{path}: no edits found.")
        cases = {edit.case for edit in edits}
        probes += [_ordinary(probe) for probe in asked if probe.case in cases]
    choosing = set(list(dict.fromkeys(probe.entity for probe in probes))[::_CHOOSES_EVERY])
    probes = [
        replace(probe, split="localization" if probe.entity in choosing else "evaluation")
        for probe in probes
        if probe.entity not in choosing or probe.group != "invariant"
    ]

    def update() -> Iterator[Document]:
        for probe in probes:
            if probe.depth == "verbatim":
                yield _statement(probe, config.cutoff)

    source = ", ".join(map(str, config.paths))
    return Corpus((), Reiterable(update), tuple(probes), config.cutoff, source)


def _statement(probe: Probe, date: str) -> Document:
    text = f"{probe.prompt} {probe.targets[0]}."
    start = text.find(probe.entity)
    mentions = (EntityMention(start, start + len(probe.entity), probe.entity, novel=False),)
    return Document(probe.id, date, text, mentions if probe.entity and start >= 0 else ())


def _ordinary(probe: Probe) -> Probe:
    """The probe at its depth and without the benchmark's own ways of counting it."""
    depth = "verbatim" if probe.task == _EDIT else probe.depth
    if probe.kind == _ALIAS:
        depth = "paraphrase"
    return replace(probe, depth=depth, task="", kind="", case="")


def _n_edits(config: CorpusConfig) -> int | None:
    unknown = sorted(set(config.options) - {"n_edits"})
    if unknown or config.fields:
        raise CorpusError(
            "corpus: the reader 'knowedit' has one option, n_edits, and takes no fields; found "
            f"{', '.join(unknown or config.fields)}."
        )
    n_edits = config.options.get("n_edits")
    if n_edits is not None:
        check_number("corpus.options.n_edits", n_edits, 1, whole=True, error=CorpusError)
    return n_edits
