"""Suites: one YAML file that says what a checkpoint is asked.

Comes in: the name of a shipped suite, a YAML file, a probe file, a run folder or a recipe. Goes
out: a ``Suite``, which holds the probes and texts themselves. It scores nothing.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from gradloc.corpus import held_out_texts, read_corpus
from gradloc.corpus.texts import read_texts
from gradloc.errors import CorpusError, GradlocError, SuiteError
from gradloc.metrics import N_BOOTSTRAP
from gradloc.preparation import build_probes
from gradloc.probes import Probe, ProbeSet, load_probes, read_probe_rows
from gradloc.recipe import (
    Count,
    ProbeSource,
    Recipe,
    TextSource,
    load_recipe,
)
from gradloc.schema import build, did_you_mean, report_mismatch
from gradloc.shipped import shipped_names, shipped_path
from gradloc.suite_metrics import CheckpointScores
from gradloc.yaml_source import Source, read_yaml

N_EXAMPLES = 6

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, config=_STRICT)
class SuiteConfig:
    """A suite as its YAML file says it.

    Args:
        name: Name of the suite, as results show it.
        description: What it is for, in a sentence.
        probes: Probe files. Probes marked ``localization`` are left out: layers were chosen by
            them.
        recipe: A recipe, by name or path: the probes that its corpus makes and its arms are
            judged by, and not those that it chooses layers by.
        general_text: Texts for nats per token; empty: the shipped held-out passages.
        screen_invariant: Count only those invariant facts as known that the baseline has right.
        max_probes: At most so many probes of each group, the first of them.
    """

    name: str
    description: str = ""
    probes: tuple[ProbeSource, ...] = ()
    recipe: str = ""
    general_text: tuple[TextSource, ...] = ()
    screen_invariant: bool = True
    max_probes: Count = 400


@dataclasses.dataclass(frozen=True)
class Suite:
    """Everything that a checkpoint is asked, read from its files.

    Args:
        name: Name of the suite.
        probes: The probes.
        texts: Domain -> general texts.
        screen_invariant: Count only those invariant facts as known that the baseline has right.
        n_examples: Probes shown with every checkpoint's own answer.
        n_bootstrap: Resamples for intervals.
        seed: Seed of the resamples.
        example_ids: The probes that are shown; ``None``: chosen when a first model is scored.
        n_invariant_candidates: Invariant probes before screening; ``None``: not screened.
    """

    name: str
    probes: tuple[Probe, ...]
    texts: dict[str, tuple[str, ...]]
    screen_invariant: bool = True
    n_examples: int = N_EXAMPLES
    n_bootstrap: int = N_BOOTSTRAP
    seed: int = 0
    example_ids: tuple[str, ...] | None = None
    n_invariant_candidates: int | None = None

    def screened(self, baseline: CheckpointScores) -> "Suite":
        """The suite to ask the arms: without the invariant facts that the baseline has wrong.

        What the baseline does not know cannot be forgotten. The examples become those that the
        baseline answered.

        Args:
            baseline: Scores of the baseline on all probes of this suite.
        """
        right = dict(zip(baseline.probe_ids, baseline.columns["exact"], strict=True))
        kept = tuple(
            probe
            for probe in self.probes
            if not self.screen_invariant or probe.group != "invariant" or right[probe.id]
        )
        n_invariant = sum(probe.group == "invariant" for probe in self.probes)
        return replace(
            self,
            probes=kept,
            example_ids=tuple(baseline.answers),
            n_invariant_candidates=n_invariant if self.screen_invariant else None,
        )


def load_suite(name_or_path: str | Path) -> Suite:
    """Find a suite, check it and read its probes and texts.

    Args:
        name_or_path: A shipped suite (``temporal``), a YAML file, a probe file (``.jsonl``,
            judged with the shipped passages), or a run folder (its evaluation probes and the
            general text of its recipe). Paths inside a YAML file are looked for beside that
            file first, then in the working directory.

    Raises:
        SuiteError: There is no such suite, its file has problems (all are reported together), or
            no probe is left.
        ProbeError: A probe file has problems, or two files have a probe of the same id.
        CorpusError: A file of general text holds no text.

    Example:
        >>> load_suite("temporal").name
        'temporal'
    """
    path = Path(name_or_path)
    if path.is_dir():
        return _run_suite(path)
    if path.is_file() and path.name.removesuffix(".gz").endswith(".jsonl"):
        name = path.name.removesuffix(".gz").removesuffix(".jsonl")
        return build_suite(SuiteConfig(name=name, probes=(ProbeSource(str(path)),)))
    file = path if path.is_file() else _shipped(path)
    return build_suite(_read_suite(file, str(name_or_path)))


def recipe_suite(recipe: Recipe, probes: ProbeSet) -> Suite:
    """What a recipe's arms are judged by: the evaluation probes of its run.

    Args:
        recipe: The recipe.
        probes: The run's probes; those that chose layers are left out.
    """
    judged = tuple(probe for probe in probes if probe.split != "localization")
    return Suite(
        name=recipe.name,
        probes=judged,
        texts=general_texts(recipe.evaluation.general_text),
        screen_invariant=recipe.probes.screen_invariant,
        n_examples=recipe.evaluation.n_examples,
        n_bootstrap=recipe.evaluation.n_bootstrap,
        seed=recipe.seed,
    )


def build_suite(config: SuiteConfig) -> Suite:
    """Read the probes and texts of a suite.

    Raises:
        ProbeError: A probe file has problems, or two files have a probe of the same id.
        SuiteError: No probe is left.
        CorpusError: A file of general text is missing or holds no text.
    """
    gathered: list[Probe] = []
    for source in config.probes:
        gathered += read_probe_rows(source.path, source.fields, source.defaults)
    if config.recipe:
        recipe = load_recipe(config.recipe)
        gathered += build_probes(recipe, read_corpus(recipe.corpus, seed=recipe.seed))
    room: dict[str, int] = {}
    kept = []
    for probe in gathered:
        if probe.split == "localization":
            continue
        room[probe.group] = room.get(probe.group, config.max_probes) - 1
        if room[probe.group] >= 0:
            kept.append(probe)
    if not kept:
        raise SuiteError(
            config.name, ["no probe to ask: the files hold none but those that choose layers"]
        )
    return Suite(
        name=config.name,
        # A ProbeSet refuses two probes of the same id.
        probes=tuple(ProbeSet(tuple(kept))),
        texts=general_texts(config.general_text),
        screen_invariant=config.screen_invariant,
    )


def general_texts(sources: Sequence[TextSource]) -> dict[str, tuple[str, ...]]:
    """Texts for nats per token: domain -> texts.

    Args:
        sources: Files of texts; none: the shipped held-out passages.

    Raises:
        CorpusError: A file is missing or holds no text, or two sources share a name.
    """
    if not sources:
        return {domain: tuple(texts) for domain, texts in held_out_texts().items()}
    found: dict[str, tuple[str, ...]] = {}
    for source in sources:
        if source.name in found:
            raise CorpusError(
                f"general_text: two sources are called {source.name!r}; give each its own name."
            )
        found[source.name] = tuple(read_texts(source.path))[: source.max_texts]
    return found


def _run_suite(run_dir: Path) -> Suite:
    probes, recipe = run_dir / "probes.jsonl", run_dir / "recipe.yaml"
    if not probes.is_file():
        raise SuiteError(
            run_dir, ["is a folder without probes.jsonl; name a run folder, a suite or a file"]
        )
    if recipe.is_file():
        return recipe_suite(load_recipe(recipe), load_probes(probes))
    return build_suite(SuiteConfig(name=run_dir.resolve().name, probes=(ProbeSource(str(probes)),)))


def _shipped(path: Path) -> Path:
    parts = path.parts[1:] if path.parts[:1] == ("evaluation",) else path.parts
    try:
        return shipped_path("evaluation", Path(*parts).as_posix())
    except GradlocError as error:
        hint = did_you_mean(path.stem, shipped_names("evaluation"))
        raise SuiteError(path, [f"no such file, and no shipped suite. {hint}"]) from error


def _read_suite(file: Path, name: str) -> SuiteConfig:
    try:
        source = read_yaml(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or f"is not UTF-8 text ({error})"
        raise SuiteError(name, [f"cannot be read: {reason}"]) from error
    if source.data is None and not source.problems:
        source.report("", "the file is empty; a suite needs at least 'name: ...' and probes")
    elif source.data is not None and not isinstance(source.data, dict):
        report_mismatch(source, "", ["map"], source.data)
    elif source.data is not None:
        suite = build(SuiteConfig, source)
        if suite is not None:
            suite = _with_found_files(suite, file.parent, source)
        if not source.problems:
            return suite
    raise SuiteError(name, source.problem_lines())


def _with_found_files(suite: SuiteConfig, folder: Path, source: Source) -> SuiteConfig:
    """The suite with paths that exist; what is missing is reported to ``source``."""
    if not suite.probes and not suite.recipe:
        source.report("probes", "is missing; list probe files here, or name a 'recipe'")
    found: dict[str, tuple] = {}
    for section in ("probes", "general_text"):
        entries = []
        for number, entry in enumerate(getattr(suite, section)):
            places = (folder / entry.path, Path(entry.path))
            existing = next((place for place in places if place.is_file()), None)
            if existing is None:
                source.report(
                    f"{section}.{number}.path",
                    f"no file '{entry.path}' beside the suite or in the working directory",
                )
                continue
            entries.append(replace(entry, path=str(existing)))
        found[section] = tuple(entries)
    return replace(suite, **found)
