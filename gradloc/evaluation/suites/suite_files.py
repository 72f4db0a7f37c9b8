"""Suites from their sources."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gradloc.config.recipe import Recipe, TextSource, read_recipe
from gradloc.config.schema import build
from gradloc.config.shipped import shipped_names, shipped_path
from gradloc.config.yaml_source import Source, read_mapping
from gradloc.data.benchmarks import BENCHMARKS
from gradloc.data.corpora import held_out_texts
from gradloc.data.corpora.readers import read_corpus
from gradloc.data.corpora.texts import read_texts
from gradloc.data.preparation import build_probes, read_source
from gradloc.data.probes import Probe, ProbeSet, load_probes
from gradloc.errors import CorpusError, GradlocError, SuiteError
from gradloc.evaluation.suites.suite import Suite
from gradloc.evaluation.suites.suite_config import SuiteConfig, SuiteSource
from gradloc.utils.names import did_you_mean


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
        return build_suite(SuiteConfig(name=name, probes=(SuiteSource(str(path)),)))
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
    gathered: list[tuple[Probe, int]] = []
    metrics: dict[str, tuple[str, ...]] = {}
    for source in config.probes:
        own = [replace(probe, task=source.task or probe.task) for probe in read_source(source)]
        gathered += [(probe, source.max_probes or config.max_probes) for probe in own]
        for task in dict.fromkeys(probe.task for probe in own):
            if named := source.metrics or config.metrics:
                metrics[task] = tuple(dict.fromkeys((*metrics.get(task, ()), *named)))
    if config.recipe:
        recipe = read_recipe(config.recipe)
        probes = build_probes(recipe, read_corpus(recipe.corpus, seed=recipe.seed))
        gathered += [(probe, config.max_probes) for probe in probes]
        if config.metrics:
            metrics.setdefault("", config.metrics)
    room: dict[tuple[str, str, str], int] = {}
    kept = []
    for probe, limit in gathered:
        if probe.split == "localization" or (config.groups and probe.group not in config.groups):
            continue
        key = (probe.task, probe.group, probe.kind)
        room[key] = room.get(key, limit) - 1
        if room[key] >= 0:
            kept.append(probe)
    if not kept:
        why = "but those that choose layers"
        why += f", or none of the groups {', '.join(config.groups)}" if config.groups else ""
        raise SuiteError(config.name, [f"no probe to ask: the files hold none {why}"])
    return Suite(
        name=config.name,
        # A ProbeSet refuses two probes of the same id.
        probes=tuple(ProbeSet(tuple(kept))),
        texts=general_texts(config.general_text),
        screen_invariant=config.screen_invariant,
        metrics=metrics,
        ambiguous=config.ambiguous,
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
        return recipe_suite(read_recipe(recipe), load_probes(probes))
    return build_suite(SuiteConfig(name=run_dir.resolve().name, probes=(SuiteSource(str(probes)),)))


def _shipped(path: Path) -> Path:
    parts = path.parts[2:] if path.parts[:2] == ("evaluation", "suites") else path.parts
    try:
        return shipped_path("suites", Path(*parts).as_posix())
    except GradlocError as error:
        beside = path.with_name(f"{path.name}.yaml")
        hint = did_you_mean(path.stem, shipped_names("suites"))
        hint = f"Did you mean '{beside}'?" if beside.is_file() else hint
        raise SuiteError(path, [f"no such file, and no shipped suite. {hint}"]) from error


def _read_suite(file: Path, name: str) -> SuiteConfig:
    needs = "a suite needs at least 'name: ...' and probes"
    source = read_mapping(file, name, SuiteError, needs)
    suite = build(SuiteConfig, source)
    if suite is not None:
        suite = _with_found_files(suite, file.parent, source)
    if suite is None or source.problems:
        raise SuiteError(name, source.problem_lines())
    return suite


def _with_found_files(suite: SuiteConfig, folder: Path, source: Source) -> SuiteConfig:
    """The suite with paths that exist; what is missing is reported to ``source``."""
    if not suite.probes and not suite.recipe:
        source.report("probes", "is missing; list probe files here, or name a 'recipe'")
    for number, entry in enumerate(suite.probes):
        where = f"probes.{number}"
        if entry.format and entry.format not in BENCHMARKS:
            hint = did_you_mean(entry.format, BENCHMARKS)
            source.report(f"{where}.format", f"there is no benchmark '{entry.format}'. {hint}")
        elif entry.format and (entry.fields or entry.defaults):
            why = f"has no effect with 'format: {entry.format}', which knows its own columns"
            source.report(f"{where}.{'fields' if entry.fields else 'defaults'}", why)
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
