"""What all arms of continual training share: made from the recipe, or read where it has been made.

<output_dir>/<name>/recipe.yaml       the recipe, with every arm that has been run
<output_dir>/<name>/documents.jsonl   all documents but the evaluation items, dated
<output_dir>/<name>/probes.jsonl      all probes
<output_dir>/<name>/periods.json      the stages, and what was left out; written last
<output_dir>/<name>/profile.json      gradients of the base model on the first stage's probes
<output_dir>/<name>/base_scores.json  scores of the base model on all items
"""

import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

from gradloc.config.recipe import Recipe, save_resolved
from gradloc.data.corpora import Corpus, Document
from gradloc.data.corpora.readers import read_corpus
from gradloc.data.preparation import build_probes, training_documents
from gradloc.data.probes import Probe, ProbeSet, load_probes
from gradloc.errors import GradlocError, ProbeError, RunError
from gradloc.experiments.continual.periods import (
    Period,
    calendar_periods,
    period_end,
    period_of,
    stretch,
)
from gradloc.experiments.recipes import load_recipe
from gradloc.experiments.run import STAGE_FILES, differing_keys
from gradloc.utils.io import DOCUMENTS_FILE
from gradloc.utils.records import Record

RECIPE_FILE = "recipe.yaml"
PROBES_FILE = "probes.jsonl"
PERIODS_FILE = "periods.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Division:
    """How continual training divides time, and when it measures.

    Args:
        by: ``month``, ``quarter`` or ``year``: one stage each.
        first: First period, such as ``2025-03``; empty: that of the recipe's cut-off.
        last: Last period; empty: that of the last document.
        measure: ``each``: the plan of every stage is measured anew, on the stage's own probes with
            its model; ``once``: all stages take the plan of the first.
    """

    by: str = "month"
    first: str = ""
    last: str = ""
    measure: str = "each"


@dataclass(frozen=True)
class Timeline(Record):
    """The periods of a continual training.

    Args:
        division: How time is divided.
        periods: All periods from the first to the last.
        stages: Names of those that are trained on, in order.
        notes: What was left out, and why.
    """

    KIND: ClassVar[str] = "periods"
    WHAT: ClassVar[str] = "record of the periods of continual training"

    division: Division
    periods: tuple[Period, ...]
    stages: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SharedInputs:
    """What every arm begins with.

    Args:
        recipe: The recipe.
        timeline: Its periods.
        probes: All probes; those that choose layers are dated, or serve in every stage.
    """

    recipe: Recipe
    timeline: Timeline
    probes: ProbeSet

    @property
    def folder(self) -> Path:
        """Folder of the training."""
        return self.recipe.run_dir

    @property
    def stages(self) -> tuple[Period, ...]:
        """The periods that are trained on, in order."""
        return tuple(p for p in self.timeline.periods if p.name in self.timeline.stages)

    def stage_probes(self, stage: Period) -> ProbeSet:
        """The probes of a stage: every evaluation probe, and what may choose its layers.

        Evaluation probes of all periods are there because they say which documents are left out
        of training.
        """
        judged = [probe for probe in self.probes if probe.split == "evaluation"]
        local = [probe for probe in self.probes if _chooses_layers_of(probe, stage)]
        return ProbeSet((*judged, *local[: self.recipe.probes.max_localization]))


def open_continual(recipe: Recipe, division: Division) -> SharedInputs:
    """Make what the arms share, or read it where it has been made.

    Args:
        recipe: The recipe. Its ``cutoff`` and ``until`` bound the time where ``division`` does
            not.
        division: How time is divided.

    Raises:
        RunError: The folder holds another continual training or a run.
        ProbeError: No dated evaluation probe, or a stage without probes to choose layers by.
        GradlocError: Bad input.
    """
    folder = recipe.run_dir
    if (folder / PERIODS_FILE).is_file():
        timeline = Timeline.load(folder / PERIODS_FILE)
        _check_same(recipe, division, timeline.division)
        return SharedInputs(recipe, timeline, load_probes(folder / PROBES_FILE))
    _refuse_run(folder)
    shared = _plan_stages(recipe, division)
    shared.probes.save(folder / PROBES_FILE)
    save_resolved(recipe, folder / RECIPE_FILE)
    # Last, since its presence says that the others are complete.
    shared.timeline.save(folder / PERIODS_FILE)
    stages = shared.timeline.stages
    logger.info(f"stages     {len(stages)}: {stages[0]} to {stages[-1]}")
    return shared


def _refuse_run(folder: Path) -> None:
    """See that the folder is no run's; one that was killed has at least its documents."""
    found = [name for name in STAGE_FILES[1:] if (folder / name).exists()]
    if found and not (folder / DOCUMENTS_FILE).is_file():
        raise RunError(
            f"{folder} holds {', '.join(found)} of a run. Give this one another name "
            "(--set name=...), or remove the folder."
        )


def _check_same(recipe: Recipe, division: Division, kept: Division) -> None:
    """See that the folder was made for this; arms may be added, trained ones not changed."""
    folder = recipe.run_dir
    found = load_recipe(folder / RECIPE_FILE)
    changed = [name for name, arm in recipe.arms.items() if found.arms.get(name) != arm]
    flags = {"by": "--by", "first": "--from", "last": "--to", "measure": "--measure"}
    differing = [
        *(flag for name, flag in flags.items() if getattr(kept, name) != getattr(division, name)),
        *(key for key in differing_keys(found, recipe) if key != "arms"),
        *(f"arms.{name}" for name in changed if (folder / name).is_dir()),
    ]
    if differing:
        raise RunError(
            f"{folder} holds another continual training (it differs in {', '.join(differing)}). "
            "Give this one another name (--set name=...), or remove the folder."
        )
    if changed:
        save_resolved(replace(found, arms={**found.arms, **recipe.arms}), folder / RECIPE_FILE)


def _plan_stages(recipe: Recipe, division: Division) -> SharedInputs:
    """Read the corpus, write its documents and see which periods can be trained on."""
    first = stretch(division.first, "--from")[0] if division.first else recipe.corpus.cutoff
    until = stretch(division.last, "--to")[1] if division.last else recipe.corpus.until
    if until and until <= first:
        raise GradlocError(f"continual training would end ({until}) before it begins ({first}).")
    whole = replace(
        recipe,
        corpus=replace(recipe.corpus, cutoff=first, until=until, max_update_documents=None),
        # Every period needs its own; each stage takes as many as the recipe says.
        probes=replace(recipe.probes, max_localization=10**9),
    )
    corpus = read_corpus(whole.corpus, seed=recipe.seed)
    probes, n_outside = _dated(build_probes(whole, corpus), first, until)
    last = _write_documents(recipe.run_dir / DOCUMENTS_FILE, whole, corpus, probes)
    periods = calendar_periods(first, until or period_end(last, division.by), division.by)
    dated = {period_of(d.date, periods) for d in training_documents(whole, corpus, probes)}
    lacking = "no document to train on"
    if recipe.corpus.about_probes:
        lacking += " mentions an entity of the probes"
    notes = [f"{p.name} is left out: {lacking}." for p in periods if p not in dated]
    if n_outside:
        notes.append(f"{n_outside} evaluation probes are left out: no date in any period.")
    stages = tuple(period.name for period in periods if period in dated)
    shared = SharedInputs(recipe, Timeline(division, periods, stages, tuple(notes)), probes)
    _check_can_choose(shared)
    return shared


def _asks_for_news(probe: Probe) -> bool:
    return probe.split == "evaluation" and probe.group != "invariant"


def _chooses_layers_of(probe: Probe, stage: Period) -> bool:
    """Whether a probe may choose the layers of a stage: dated in it, or without a date."""
    return probe.split == "localization" and (not probe.date or stage.holds(probe.date))


def _dated(probes: ProbeSet, first: str, until: str) -> tuple[ProbeSet, int]:
    """The probes without evaluation probes on new facts that no period claims, and their number."""

    def is_outside(probe: Probe) -> bool:
        is_late = bool(until and probe.date >= until)
        return _asks_for_news(probe) and (probe.date < first or is_late)

    outside = [probe for probe in probes if is_outside(probe)]
    kept = ProbeSet(tuple(probe for probe in probes if not is_outside(probe)))
    if not any(_asks_for_news(probe) for probe in kept):
        span = f"{first} to before {until}" if until else f"{first} on"
        raise ProbeError("continual training", [
            f"none of {len(outside)} evaluation probes on new and updated facts is dated from "
            f"{span}; give probes a 'date', or move --from and --to"
        ])  # fmt: skip
    return kept, len(outside)


def _check_can_choose(shared: SharedInputs) -> None:
    is_each = shared.timeline.division.measure == "each"
    lacking = [
        stage.name
        for stage in (shared.stages if is_each else shared.stages[:1])
        if not any(_chooses_layers_of(probe, stage) for probe in shared.probes)
    ]
    if lacking:
        raise ProbeError(f"recipe {shared.recipe.name}", [
            f"no probe can choose the layers of {', '.join(lacking)}: choose longer periods (--by "
            "quarter), measure the first stage alone (--measure once), raise "
            "probes.localization_fraction, or set probes.from_documents"
        ])  # fmt: skip


def _write_documents(path: Path, whole: Recipe, corpus: Corpus, probes: ProbeSet) -> str:
    """Write all documents but the evaluation items; the date of the last is given back.

    In an ordinary run an evaluation item is left out of the update documents alone. Here the
    documents of one stage are background in the next, from where methods replay them, so it must
    be in neither. A copy also keeps the data of all stages the same while a long training runs.
    """
    every = replace(whole, corpus=replace(whole.corpus, about_probes=False))
    last = ""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        for document in corpus.background:
            file.write(_line(document))
        for document in training_documents(every, corpus, probes):
            file.write(_line(document))
            last = max(last, document.date)
    part.replace(path)
    return last


def _line(document: Document) -> str:
    return json.dumps(asdict(document), ensure_ascii=False) + "\n"
