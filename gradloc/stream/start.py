"""What all arms of a stream share: periods, documents, probes and the scores of the base model.

Comes in: a recipe and how its time is divided. Goes out: ``Start``, with its files in the folder
of the stream; what is there is not made again. It trains nothing.

    <output_dir>/<name>/recipe.yaml       the recipe, with every arm that has been run
    <output_dir>/<name>/documents.jsonl   all documents but the evaluation items, dated
    <output_dir>/<name>/probes.jsonl      all probes
    <output_dir>/<name>/periods.json      the stages, and what was left out; written last
    <output_dir>/<name>/profile.json      gradients of the base model on the first stage's probes
    <output_dir>/<name>/base_scores.json  scores of the base model on all items
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from gradloc.artifacts import read_json, write_json
from gradloc.corpus import Corpus, Document, read_corpus
from gradloc.errors import GradlocError, ProbeError, RunError
from gradloc.preparation import build_probes, training_documents
from gradloc.probes import Probe, ProbeSet, load_probes
from gradloc.recipe import Recipe, load_recipe, save_resolved
from gradloc.stream.periods import Period, calendar_periods, period_end, period_of, stretch

RECIPE_FILE = "recipe.yaml"
DOCUMENTS_FILE = "documents.jsonl"
PROBES_FILE = "probes.jsonl"
PERIODS_FILE = "periods.json"
BASE_SCORES_FILE = "base_scores.json"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Division:
    """How a stream divides time, and when it measures.

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
class Start:
    """What every arm begins with.

    Args:
        recipe: The recipe.
        division: How time is divided.
        periods: All periods from the first to the last.
        stages: Those that are trained on, in order.
        probes: All probes; those that choose layers are dated, or serve in every stage.
        notes: What was left out, and why.
    """

    recipe: Recipe
    division: Division
    periods: tuple[Period, ...]
    stages: tuple[Period, ...]
    probes: ProbeSet
    notes: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Folder of the stream."""
        return self.recipe.run_dir

    def stage_probes(self, stage: Period) -> ProbeSet:
        """The probes of a stage: every evaluation probe, and what may choose its layers.

        Evaluation probes of all periods are there because they say which documents are left out
        of training.
        """
        local = [probe for probe in self.probes if _chooses_layers_of(probe, stage)]
        judged = [probe for probe in self.probes if probe.split == "evaluation"]
        return ProbeSet((*judged, *local[: self.recipe.probes.max_localization]))


def open_stream(recipe: Recipe, division: Division, say: Say = lambda text: None) -> Start:
    """Make what the arms share, or read it where it has been made.

    Args:
        recipe: The recipe. Its ``cutoff`` and ``until`` bound the stream where ``division`` does
            not.
        division: How time is divided.
        say: Told what is done, for people.

    Raises:
        RunError: The folder holds another stream, or the recipe injects facts.
        ProbeError: No dated evaluation probe, or a stage without probes to choose layers by.
        GradlocError: Bad input.
    """
    if recipe.injection.n_facts:
        raise RunError(
            f"recipe {recipe.name}: a stream trains on dated documents, and 'injection' on single "
            "facts in ordinary text. Remove 'injection', or use 'gradloc run'."
        )
    folder = recipe.run_dir
    if (folder / PERIODS_FILE).is_file():
        _check_same(recipe, division, folder)
        return _read(recipe, division, folder)
    start = _plan_stages(recipe, division, folder)
    start.probes.save(folder / PROBES_FILE)
    save_resolved(recipe, folder / RECIPE_FILE)
    # Last, since its presence says that the others are complete.
    write_json(folder / PERIODS_FILE, {
        "division": asdict(division),
        "periods": start.periods,
        "stages": [stage.name for stage in start.stages],
        "notes": start.notes,
    })  # fmt: skip
    say(f"stages     {len(start.stages)}: {start.stages[0].name} to {start.stages[-1].name}")
    return start


def _plan_stages(recipe: Recipe, division: Division, folder: Path) -> Start:
    """Read the corpus, write its documents and see which periods can be trained on."""
    first = stretch(division.first, "--from")[0] if division.first else recipe.corpus.cutoff
    until = stretch(division.last, "--to")[1] if division.last else recipe.corpus.until
    if until and until <= first:
        raise GradlocError(f"the stream would end ({until}) before it begins ({first}).")
    whole = replace(
        recipe,
        corpus=replace(recipe.corpus, cutoff=first, until=until, max_update_documents=None),
        # Every period needs its own; each stage takes as many as the recipe says.
        probes=replace(recipe.probes, max_localization=10**9),
    )
    corpus = read_corpus(whole.corpus, seed=recipe.seed)
    probes, notes = _dated(build_probes(whole, corpus), first, until)
    last = _write_documents(folder / DOCUMENTS_FILE, whole, corpus, probes)
    periods = calendar_periods(first, until or period_end(last, division.by), division.by)
    n_documents: Counter[str] = Counter()
    for document in training_documents(whole, corpus, probes):
        n_documents[period_of(document.date, periods).name] += 1
    stages = tuple(period for period in periods if n_documents[period.name])
    notes += [
        f"{period.name} is left out: no document to train on"
        + (" mentions an entity of the probes." if recipe.corpus.about_probes else ".")
        for period in periods
        if period not in stages
    ]
    asked = {
        period_of(p.date, periods)
        for p in probes
        if p.split == "evaluation" and p.group != "invariant"
    }
    notes += [
        f"{stage.name} is trained on, but no evaluation probe is dated in it."
        for stage in stages
        if stage not in asked
    ]
    start = Start(recipe, division, periods, stages, probes, tuple(notes))
    _check_can_choose(start)
    return start


def _dated(probes: ProbeSet, first: str, until: str) -> tuple[ProbeSet, list[str]]:
    """The probes without evaluation probes on new facts that no period can claim."""

    def is_outside(probe: Probe) -> bool:
        judged = probe.split == "evaluation" and probe.group != "invariant"
        return judged and (probe.date < first or bool(until and probe.date >= until))

    outside = [probe for probe in probes if is_outside(probe)]
    kept = ProbeSet(probe for probe in probes if not is_outside(probe))
    if not any(p.split == "evaluation" and p.group != "invariant" for p in kept):
        raise ProbeError(
            "stream",
            [
                f"none of {len(outside)} evaluation probes on new and updated facts is dated from "
                f"{first}{f' to before {until}' if until else ' on'}; give probes a 'date', or "
                "move --from and --to"
            ],
        )
    n_undated = sum(not probe.date for probe in outside)
    notes = []
    if n_undated:
        notes.append(f"{n_undated} evaluation probes are left out: they have no date.")
    if len(outside) > n_undated:
        notes.append(f"{len(outside) - n_undated} evaluation probes lie outside the periods.")
    return kept, notes


def _chooses_layers_of(probe: Probe, stage: Period) -> bool:
    return probe.split == "localization" and (not probe.date or stage.holds(probe.date))


def _check_can_choose(start: Start) -> None:
    stages = start.stages if start.division.measure == "each" else start.stages[:1]
    lacking = [
        stage.name
        for stage in stages
        if not any(_chooses_layers_of(probe, stage) for probe in start.probes)
    ]
    if lacking:
        raise ProbeError(
            f"recipe {start.recipe.name}",
            [
                f"no probe can choose the layers of {', '.join(lacking)}: choose longer periods "
                "(--by quarter), measure the first stage alone (--measure once), raise "
                "probes.localization_fraction, or set probes.from_documents"
            ],
        )


def _write_documents(path: Path, whole: Recipe, corpus: Corpus, probes: ProbeSet) -> str:
    """Write all documents but the evaluation items; the date of the last is given back.

    In an ordinary run an evaluation item is left out of the update documents alone. Here the
    documents of one stage are background in the next, from where methods replay them, so it must
    be in neither. A copy also keeps the data of all stages the same while a long stream runs.
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


def _check_same(recipe: Recipe, division: Division, folder: Path) -> None:
    """See that the folder was made for this stream; arms may be added, trained ones not changed."""
    kept = read_json(folder / PERIODS_FILE, "the periods of a stream")["division"]
    differing = [f"--{name}" for name, value in asdict(division).items() if kept[name] != value]
    found = load_recipe(folder / RECIPE_FILE)
    differing += [
        field.name
        for field in fields(recipe)
        if field.compare
        and field.name != "arms"
        and getattr(found, field.name) != getattr(recipe, field.name)
    ]
    changed = [name for name, arm in recipe.arms.items() if found.arms.get(name) != arm]
    differing += [f"arms.{name}" for name in changed if (folder / name).is_dir()]
    if differing:
        flags = {"--first": "--from", "--last": "--to"}
        names = ", ".join(flags.get(name, name) for name in differing)
        raise RunError(
            f"{folder} holds another stream (it differs in {names}). Give this one another name "
            "(--set name=...), or remove the folder."
        )
    if changed:
        save_resolved(replace(found, arms={**found.arms, **recipe.arms}), folder / RECIPE_FILE)


def _read(recipe: Recipe, division: Division, folder: Path) -> Start:
    data: dict[str, Any] = read_json(folder / PERIODS_FILE, "the periods of a stream")
    periods = tuple(Period(*period) for period in data["periods"])
    return Start(
        recipe=recipe,
        division=division,
        periods=periods,
        stages=tuple(period for period in periods if period.name in data["stages"]),
        probes=load_probes(folder / PROBES_FILE),
        notes=tuple(data["notes"]),
    )
