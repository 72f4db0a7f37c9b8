"""What a sweep is: corpora, arms, learning rates and seeds, from one YAML file."""

from collections.abc import Iterable
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from pydantic.functional_validators import AfterValidator

from gradloc.config.checks import check_file_name
from gradloc.config.recipe import ArmConfig, find_recipe
from gradloc.config.schema import build
from gradloc.config.yaml_source import apply_overrides, dump_yaml, read_mapping
from gradloc.errors import GradlocError, RecipeError
from gradloc.experiments.recipes import load_recipe
from gradloc.utils.io import to_jsonable
from gradloc.utils.names import did_you_mean

_STRICT = ConfigDict(extra="forbid", strict=True)
FileName = Annotated[str, AfterValidator(check_file_name)]
Rate = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, config=_STRICT)
class SweepCorpus:
    """A recipe that gives corpus, probes, measurement, training and evaluation.

    Args:
        recipe: Name or path of the recipe; its arms are not used.
        set: Dotted key of the recipe -> value, where the sweep differs
            (``{corpus.options.n_entities: 60}``).
    """

    recipe: str
    set: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, config=_STRICT)
class SweepArm(ArmConfig):
    """An arm of a recipe, at several learning rates.

    Args:
        rates: Peak learning rates.
        corpora: Corpora of this arm; empty: all.
    """

    rates: tuple[Rate, ...] = ()
    corpora: tuple[str, ...] = ()


@dataclass(frozen=True, config=_STRICT)
class Sweep:
    """Arms by learning rates by seeds on each corpus.

    Args:
        name: Name of the sweep; its folder is ``<output_dir>/<name>``.
        corpora: Name -> corpus.
        arms: Name -> arm.
        seeds: Seeds of corpora, splits, measurements and trainings.
        line: The arm that the others are compared with at equal uptake.
        axis: The metric of uptake that arms are matched by.
        output_dir: Folder of all runs.
        keep_weights: Keep every checkpoint; else weights go once they are scored.
    """

    name: FileName
    corpora: Annotated[dict[FileName, SweepCorpus], Field(min_length=1)]
    arms: dict[FileName, SweepArm]
    seeds: tuple[Seed, ...] = (0,)
    line: str = "full"
    axis: str = "new_paraphrase_nll"
    output_dir: str = "runs"
    keep_weights: bool = False

    def __post_init__(self):
        arms = {name: arm.resolved() for name, arm in self.arms.items()}
        object.__setattr__(self, "arms", arms)

    @property
    def folder(self) -> Path:
        """Folder of this sweep."""
        return Path(self.output_dir) / self.name

    def arms_on(self, corpus: str) -> dict[str, SweepArm]:
        """The arms of a corpus."""
        return {
            name: arm for name, arm in self.arms.items() if not arm.corpora or corpus in arm.corpora
        }


def load_sweep(path: str | Path, overrides: Iterable[str] = ()) -> Sweep:
    """Read a sweep and check it, its recipes and its arms.

    Args:
        path: YAML file, or the name of a shipped sweep (``sweeps/frontier``).
        overrides: ``key.path=value`` each, set before the checks.

    Raises:
        RecipeError: The file is missing or no YAML, or any of its keys and values is wrong; all
            problems are reported at once.
    """
    needs = "a sweep has lines such as 'name: ...', 'corpora: ...', 'arms: ...'"
    source = read_mapping(find_recipe(path), path, RecipeError, needs)
    if "corpora" not in source.data and {"corpus", "model"} & source.data.keys():
        raise RecipeError(path, [f"is a recipe; run it with: gradloc run {path}"])
    apply_overrides(source, overrides)
    sweep = build(Sweep, source)
    if sweep is not None and not source.problems:
        for key, problem in _problems(sweep):
            source.report(key, problem)
    if sweep is None or source.problems:
        raise RecipeError(path, source.problem_lines())
    return sweep


def corpus_overrides(corpus: SweepCorpus) -> list[str]:
    """The values that a sweep sets in a recipe, as ``load_recipe`` takes them."""
    return [f"{key}={dump_yaml(value)}" for key, value in corpus.set.items()]


def _problems(sweep: Sweep) -> Iterable[tuple[str, str]]:
    """What is wrong beyond types."""
    if sweep.line not in sweep.arms:
        yield "line", f"no arm is called '{sweep.line}'. {did_you_mean(sweep.line, sweep.arms)}"
    for name, arm in sweep.arms.items():
        if not arm.rates:
            yield f"arms.{name}.rates", "is missing; give at least one learning rate"
        for corpus in arm.corpora:
            if corpus not in sweep.corpora:
                yield f"arms.{name}.corpora", f"unknown. {did_you_mean(corpus, sweep.corpora)}"
    for name, corpus in sweep.corpora.items():
        try:
            load_recipe(corpus.recipe, [*corpus_overrides(corpus), *_arm_overrides(sweep, name)])
        except RecipeError as error:
            for problem in error.problems:
                key, _, text = problem.partition(": ")
                # What an arm gets wrong is said once, whatever the corpus.
                yield key if key.startswith("arms.") else f"corpora.{name}.set.{key}", text
        except GradlocError as error:
            yield f"corpora.{name}", str(error)


def _arm_overrides(sweep: Sweep, corpus: str) -> list[str]:
    """The arms of a corpus in place of its recipe's, so that one reading checks both."""
    arms = {
        name: {k: v for k, v in to_jsonable(arm).items() if k not in ("rates", "corpora")}
        for name, arm in sweep.arms_on(corpus).items()
    }
    return [f"arms={dump_yaml(arms)}"]
