"""The runs of a sweep: one arm, one learning rate, one seed, one corpus; each an ordinary run.

<output_dir>/<sweep>/<corpus>/seed-0/shared/        probes, profile, scores of the base
<output_dir>/<sweep>/<corpus>/seed-0/<arm>-1e-4/    an ordinary run folder, one arm
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from gradloc.config.recipe import ArmConfig, Recipe
from gradloc.config.shipped import find_data
from gradloc.errors import GradlocError
from gradloc.experiments.recipes import load_recipe
from gradloc.experiments.run import differing_keys
from gradloc.experiments.sweep.sweep_config import Sweep, corpus_overrides
from gradloc.utils.names import did_you_mean

# Corpus readers whose paths are files; those of ``datasets`` may be names on a hub.
_FILE_READERS = ("jsonl", "parquet")


class SweepRun(NamedTuple):
    """One run of a sweep.

    Args:
        corpus: Name of its corpus.
        arm: Name of its arm.
        rate: Peak learning rate.
        seed: Seed of everything.
        recipe: Recipe of its run folder, with this one arm.
        after: The run without which it cannot begin: none.
    """

    corpus: str
    arm: str
    rate: float
    seed: int
    recipe: Recipe
    after: str = ""

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.corpus} · {self.arm} at {self.rate:g} · seed {self.seed}"

    @property
    def state(self) -> str:
        """``done``, ``open``, or ``stale``: done, but with another recipe than the sweep's."""
        folder = self.recipe.run_dir
        if not (folder / "report.html").is_file():
            return "open"
        kept = folder / "recipe.yaml"
        same = kept.is_file() and not differing_keys(load_recipe(kept), self.recipe)
        return "done" if same else "stale"


def sweep_runs(
    sweep: Sweep,
    *,
    corpora: Collection[str] = (),
    arms: Collection[str] = (),
    seeds: Collection[int] = (),
) -> list[SweepRun]:
    """The runs of a sweep, seed by seed, so that the first seed gives a whole picture early.

    Args:
        sweep: The sweep.
        corpora: Only these; empty: all.
        arms: Only these; empty: all.
        seeds: Only these; empty: all.

    Raises:
        GradlocError: A name that the sweep does not have.
    """
    for asked, known in ((corpora, sweep.corpora), (arms, sweep.arms)):
        for name in asked:
            if name not in known:
                raise GradlocError(f"{name!r} is not in the sweep. {did_you_mean(name, known)}")
    runs = [
        run
        for name in sweep.corpora
        if not corpora or name in corpora
        for run in _corpus_runs(sweep, name)
        if (not arms or run.arm in arms) and (not seeds or run.seed in seeds)
    ]
    if not runs:
        raise GradlocError("no run of the sweep is left; see its corpora, arms and seeds.")
    return sorted(runs, key=lambda run: run.seed)  # stable: corpora and arms keep their order


def check_files(runs: Iterable[SweepRun]) -> None:
    """See that the files are there which the runs' recipes name, before the first is run.

    Raises:
        GradlocError: Some are missing; all of them are named.
    """
    named = dict.fromkeys(path for run in runs for path in _files(run.recipe))
    if missing := [path for path in named if not Path(find_data(path)).exists()]:
        lines = "\n".join(f"  {path}" for path in missing)
        raise GradlocError(
            f"files that the sweep needs are missing; paths are relative to {Path.cwd()}:\n{lines}"
        )


def _files(recipe: Recipe) -> Iterator[str]:
    """Files of documents, probes and texts that a recipe names."""
    if recipe.corpus.source in _FILE_READERS:
        yield from recipe.corpus.paths
    yield from (source.path for source in recipe.probes.sources)
    yield from (source.path for source in recipe.evaluation.general_text)
    if recipe.measure.reference not in ("background", "general"):
        yield recipe.measure.reference


def _corpus_runs(sweep: Sweep, name: str) -> Iterator[SweepRun]:
    corpus = sweep.corpora[name]
    base = load_recipe(corpus.recipe, corpus_overrides(corpus))
    for arm_name, arm in sweep.arms_on(name).items():
        for seed in sweep.seeds:
            for rate in arm.rates:
                training = {**arm.training, "learning_rate": rate}
                recipe = replace(
                    base,
                    name=f"{arm_name}-{rate:g}",
                    seed=seed,
                    output_dir=str(sweep.folder / name / f"seed-{seed}"),
                    arms={arm_name: ArmConfig(arm.policy, arm.options, arm.methods, training)},
                )
                yield SweepRun(name, arm_name, rate, seed, recipe)
