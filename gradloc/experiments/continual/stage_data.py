"""From a recipe to the stages of continual training: which periods, documents and probes."""

import json
from dataclasses import asdict, replace
from pathlib import Path

from gradloc.config.recipe import Recipe
from gradloc.data.corpora import Corpus, Document
from gradloc.data.corpora.readers import read_corpus
from gradloc.data.preparation import build_probes, training_documents
from gradloc.data.probes import Probe, ProbeSet
from gradloc.errors import GradlocError, ProbeError
from gradloc.experiments.continual.periods import calendar_periods, period_end, period_of, stretch
from gradloc.experiments.continual.shared_inputs import Division, SharedInputs, chooses_layers_of
from gradloc.utils.io import DOCUMENTS_FILE


def plan_stages(recipe: Recipe, division: Division) -> SharedInputs:
    """Read the corpus, write its documents and see which periods can be trained on.

    Raises:
        ProbeError: No dated evaluation probe, or a stage without probes to choose layers by.
        GradlocError: Bad input.
    """
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
    probes, notes = _dated(build_probes(whole, corpus), first, until)
    last = _write_documents(recipe.run_dir / DOCUMENTS_FILE, whole, corpus, probes)
    periods = calendar_periods(first, until or period_end(last, division.by), division.by)
    dated = {period_of(d.date, periods) for d in training_documents(whole, corpus, probes)}
    stages = tuple(period for period in periods if period in dated)
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
    shared = SharedInputs(recipe, division, periods, stages, probes, tuple(notes))
    _check_can_choose(shared)
    return shared


def _dated(probes: ProbeSet, first: str, until: str) -> tuple[ProbeSet, list[str]]:
    """The probes without evaluation probes on new facts that no period can claim."""

    def is_outside(probe: Probe) -> bool:
        judged = probe.split == "evaluation" and probe.group != "invariant"
        return judged and (probe.date < first or bool(until and probe.date >= until))

    outside = [probe for probe in probes if is_outside(probe)]
    kept = ProbeSet(tuple(probe for probe in probes if not is_outside(probe)))
    if not any(p.split == "evaluation" and p.group != "invariant" for p in kept):
        raise ProbeError(
            "continual training",
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


def _check_can_choose(shared: SharedInputs) -> None:
    stages = shared.stages if shared.division.measure == "each" else shared.stages[:1]
    lacking = [
        stage.name
        for stage in stages
        if not any(chooses_layers_of(probe, stage) for probe in shared.probes)
    ]
    if lacking:
        raise ProbeError(
            f"recipe {shared.recipe.name}",
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
