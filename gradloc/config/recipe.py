"""A recipe: one YAML file that says what is trained, on what, and how it is judged."""

from collections.abc import Callable, Iterable
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from pydantic.functional_validators import AfterValidator

from gradloc.config.checks import (
    check_arm_name,
    check_date,
    check_date_or_empty,
    check_file_name,
    check_streaming,
    check_training,
    training_key,
)
from gradloc.config.default import PRESETS, GradLocConfig
from gradloc.config.schema import build
from gradloc.config.shipped import shipped_names, shipped_path
from gradloc.config.yaml_source import Source, apply_overrides, dump_yaml, read_mapping
from gradloc.errors import GradlocError, RecipeError
from gradloc.utils.environment import current_environment
from gradloc.utils.io import to_jsonable, write_text
from gradloc.utils.names import did_you_mean

_STRICT = ConfigDict(extra="forbid", strict=True)

# Beyond any corpus or machine: a larger number is a slip, and would only fail later.
MOST = 10**9

Count = Annotated[int, Field(ge=1, le=MOST)]
CountOrZero = Annotated[int, Field(ge=0, le=MOST)]
Fraction = Annotated[float, Field(ge=0, le=1)]
# A next-token loss needs one token before the one it scores.
Length = Annotated[int, Field(ge=2, le=MOST)]
IsoDate = Annotated[str, AfterValidator(check_date)]
FileName = Annotated[str, AfterValidator(check_file_name)]
ArmName = Annotated[str, AfterValidator(check_arm_name)]


@dataclass(frozen=True, config=_STRICT)
class CorpusConfig:
    """Where the dated documents come from.

    Args:
        source: Key of a corpus reader (``jsonl``, ``parquet``, ``datasets``), or the import
            path of your own (``my_module:read_mine``).
        paths: Files or data set names for the reader; relative to the working directory, or
            data of a shipped recipe (``data/quickstart/documents.jsonl``) from anywhere.
        cutoff: ISO date. Documents dated before it are background, from it on update.
        until: ISO date; documents dated then or later are left out. Empty: none are.
        fields: Document field -> column of the source, where they differ
            (``{text: body, date: published}``).
        default_date: ISO date of documents that have none; empty: every document needs one.
        options: Options of the reader (for ``datasets``: ``split``, ``name``, ...).
        about_probes: Train only on update documents that mention an entity of the probes.
        max_update_documents: At most so many update documents, the earliest first.
        max_length: Tokens a sequence at most; longer documents are cut into several.
        packing: Fill sequences with several documents instead of padding.
        streaming: Read the update documents while training instead of before, for corpora that
            do not fit in memory; needs ``training.max_steps``.
    """

    source: str = "jsonl"
    paths: tuple[str, ...] = ()
    cutoff: IsoDate = "2023-01-01"
    until: Annotated[str, AfterValidator(check_date_or_empty)] = ""
    fields: dict[str, str] = field(default_factory=dict)
    default_date: Annotated[str, AfterValidator(check_date_or_empty)] = ""
    options: dict[str, Any] = field(default_factory=dict)
    about_probes: bool = False
    max_update_documents: Count | None = None
    max_length: Length = 128
    packing: bool = False
    streaming: bool = False


@dataclass(frozen=True, config=_STRICT)
class ProbeSource:
    """One file of probes.

    Args:
        path: The file, found as those of ``corpus.paths`` are.
        format: Key of a benchmark whose form the file has (``knowedit``, ``ecbd``, ...); empty:
            probes as JSONL.
        fields: Probe field -> column of the file, where they differ (``{prompt: prefix}``).
        defaults: Probe field -> value for rows that lack it (``{group: invariant}``).
    """

    path: str
    format: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, config=_STRICT)
class ProbesConfig:
    """Which facts are asked for.

    Args:
        sources: Probe files. Empty: the probes that the corpus reader itself makes.
        from_corpus: Take the corpus reader's own probes as well where there are ``sources``.
        from_documents: Make localisation probes from novel entity mentions of the update
            documents (everything before the mention is the prompt).
        localization_fraction: Share of entities whose probes choose the layers; the others judge.
        max_localization: At most so many localisation probes.
        max_evaluation: At most so many evaluation probes for each group.
        screen_invariant: Keep only invariant probes that the base model has right.
    """

    sources: tuple[ProbeSource, ...] = ()
    from_corpus: bool = False
    from_documents: bool = False
    localization_fraction: Fraction = 0.3
    max_localization: Count = 64
    max_evaluation: Count = 400
    screen_invariant: bool = True


@dataclass(frozen=True, config=_STRICT)
class MeasureConfig:
    """How the gradient profile is measured.

    Args:
        granularity: ``sublayer`` (attention and MLP apart) or ``block``.
        reduction: ``mean_of_norms`` or ``norm_of_mean``.
        n_probes: Localisation probes used at most.
        n_reference: Reference texts used at most.
        reference: ``background`` (documents from before the cut-off), ``general`` (the passages
            that ship with gradloc) or a file of texts.
        reference_loss: ``all`` tokens (the published method) or ``random_span``, spans as long
            as the probes' answers (a control for their noisier gradients).
        max_length: Tokens a sequence at most.
    """

    granularity: Literal["sublayer", "block"] = GradLocConfig.granularity
    reduction: Literal["mean_of_norms", "norm_of_mean"] = GradLocConfig.reduction
    n_probes: Count = GradLocConfig.n_probes
    n_reference: Count = GradLocConfig.n_reference
    reference: str = "background"
    reference_loss: Literal["all", "random_span"] = GradLocConfig.reference_loss
    max_length: Length = GradLocConfig.max_tokens


@dataclass(frozen=True, config=_STRICT)
class ArmConfig:
    """One way of training that the recipe compares.

    Args:
        preset: ``protected``: methods and training arguments of the default (``GradLocConfig``),
            beside which the arm's own come in, one by one. The recipe of a run spells them out.
        policy: Selection policy.
        options: Options of the policy (``{k: 10}``).
        methods: Training methods and their options (``{reference_kl: {weight: 0.5}}``), in the
            order in which they act; keys of ``gradloc.training.methods.METHODS``.
        training: ``TrainingArguments`` that differ from the recipe's ``training``.
    """

    policy: str = GradLocConfig.policy
    options: dict[str, Any] = field(default_factory=dict)
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    preset: Literal["", "protected"] = ""

    def resolved(self, given: Iterable[str] = ()) -> "ArmConfig":
        """The arm with its preset spelt out.

        Args:
            given: Training arguments that the recipe gives to every arm; they go before the
                preset's.
        """
        if not self.preset:
            return self
        preset = PRESETS[self.preset]
        training = {n: v for n, v in preset.training_arguments().items() if n not in given}
        methods = preset.methods()
        for name, options in self.methods.items():
            methods[name] = {**methods.get(name, {}), **options}
        return replace(
            self,
            methods=methods,
            training={**training, **self.training},
            preset="",
        )

    @property
    def training_but_rate(self) -> dict[str, Any]:
        """Its training arguments without the rate, which records keep in a field of its own."""
        return {name: value for name, value in self.training.items() if name != "learning_rate"}


@dataclass(frozen=True, config=_STRICT)
class TextSource:
    """General text whose likelihood must not fall.

    Args:
        name: Name of the domain in the results.
        path: A ``.txt`` file (split at blank lines) or JSONL with ``text``.
        max_texts: At most so many texts.
    """

    name: str
    path: str
    max_texts: Count = 64


@dataclass(frozen=True, config=_STRICT)
class EvaluationConfig:
    """How checkpoints are judged.

    Args:
        general_text: Texts for nats per token; empty: the held-out half of the shipped passages.
        n_curve_points: How often probes are scored during training (0: never).
        n_curve_probes: Probes followed during training, for each of new and invariant.
        n_examples: Probes shown with every arm's own answer.
        n_bootstrap: Resamples for intervals.
    """

    general_text: tuple[TextSource, ...] = ()
    n_curve_points: CountOrZero = 6
    n_curve_probes: CountOrZero = 24
    n_examples: CountOrZero = 6
    n_bootstrap: Count = 2000


@dataclass(frozen=True, config=_STRICT)
class PrefixCacheConfig:
    """Whether hidden states below the lowest trained block are kept between epochs.

    Args:
        enabled: Keep them, in ``prefix-cache/`` of the run, for every arm whose plan leaves
            blocks below it frozen.
        dtype: ``float32`` (the same bits as without a cache) or ``bfloat16`` (half the size).
        max_gib: Size on disk at most, for each arm.
    """

    enabled: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_gib: Annotated[float, Field(gt=0, le=MOST)] = 20.0


@dataclass(frozen=True, config=_STRICT)
class Recipe:
    """Everything that one run needs.

    Args:
        name: Name of the run; its folder is ``<output_dir>/<name>``.
        model: Base model: folder, hub id, ``.gguf`` file or ``smollm2-135m-instruct``.
        seed: Seed of the corpus, the splits, the measurement and the training.
        output_dir: Folder of all runs.
        dtype: ``float32``, ``bfloat16``: type in which the weights are held.
        bfloat16: Parts of each arm's model to train in bfloat16 while its other parts keep the
            type of the weights: ``prefix`` (below the lowest trained block), ``suffix``, ``head``.
        corpus, probes, measure, evaluation: The stages' settings.
        training: ``transformers.TrainingArguments`` by name, for every arm.
        prefix_cache: Hidden states kept between epochs; off unless enabled.
        arms: Name -> arm. The first is the main one: its plan is ``plan.json`` and its weights
            are ``checkpoint/``. Arms with policy ``all`` and no method are the line to compare
            with. None given: one, ``protected``, with the preset of that name.
        environment: Written by gradloc into the recipe of a run: versions of Python and the
            libraries, git revision. Two recipes that differ in it alone are equal.
    """

    name: FileName
    model: str = "smollm2-135m-instruct"
    # What numpy takes for a seed.
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    output_dir: str = "runs"
    dtype: Literal["float32", "bfloat16"] = "float32"
    bfloat16: tuple[Literal["prefix", "suffix", "head"], ...] = ()
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    probes: ProbesConfig = field(default_factory=ProbesConfig)
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    training: dict[str, Any] = field(default_factory=dict)
    prefix_cache: PrefixCacheConfig = field(default_factory=PrefixCacheConfig)
    arms: Annotated[dict[ArmName, ArmConfig], Field(min_length=1)] = field(
        default_factory=lambda: {"protected": ArmConfig(preset="protected")}
    )
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    environment: dict[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self):
        arms = {name: arm.resolved(self.training) for name, arm in self.arms.items()}
        object.__setattr__(self, "arms", arms)

    @property
    def run_dir(self) -> Path:
        """Folder of this run."""
        return Path(self.output_dir) / self.name

    def save(self, path: str | Path) -> Path:
        """Write the recipe as YAML that ``load`` reads back."""
        return write_text(path, dump_recipe(self))


def read_recipe(
    path: str | Path,
    overrides: Iterable[str] = (),
    checks: Iterable[Callable[[Source, Recipe | None], None]] = (),
) -> Recipe:
    """Read a recipe and check its keys, types and bounds.

    Args:
        path: YAML file, the name of a shipped recipe (``quickstart``), or its path in a clone
            (``recipes/quickstart.yaml``) from any working directory.
        overrides: ``key.path=value`` each, set before the checks; values are YAML
            (``training.learning_rate=1.0e-4``, ``arms.full.policy=all``).
        checks: Further checks, each given the file's data and the recipe (``None`` where keys or
            types are wrong). They note problems in the first; what a name may be is known to
            those who hold the tables.

    Returns:
        The recipe, with every default filled in.

    Raises:
        RecipeError: The file is missing or no YAML, or any of its keys and values is wrong; all
            problems are reported at once.
    """
    needs = "a recipe needs at least the line 'name: ...'"
    source = read_mapping(find_recipe(path), path, RecipeError, needs)
    if "corpora" in source.data:
        raise RecipeError(path, [f"is a sweep; run it with: gradloc sweep {path}"])
    former = source.data.get("injection")
    if isinstance(former, dict) and not former.get("n_facts"):
        del source.data["injection"]  # in recipes that gradloc 0.1 completed, and switched off
    apply_overrides(source, overrides)
    recipe = build(Recipe, source, training_key)
    for check in checks:
        check(source, recipe)
    check_training(source)
    check_streaming(source)
    if source.problems:
        raise RecipeError(path, source.problem_lines())
    return recipe


def find_recipe(path: str | Path) -> Path:
    """The file that a user means by a path or by the name of a shipped recipe.

    Raises:
        RecipeError: There is no such file and no such shipped recipe.
    """
    path = Path(path)
    if path.is_file():
        return path
    if path.is_dir():
        raise RecipeError(path, ["is a folder; name a recipe file in it"])
    parts = path.parts[1:] if path.parts[:1] == ("recipes",) else path.parts
    try:
        return shipped_path("recipes", Path(*parts).as_posix())
    except GradlocError as error:
        known = shipped_names("recipes")
        problem = f"no such file, and no shipped recipe. {did_you_mean(path.stem, known)}"
        raise RecipeError(path, [problem]) from error


def dump_recipe(recipe: Recipe) -> str:
    """Write a recipe as YAML text, every default filled in, that loads back to an equal one."""
    data = to_jsonable(recipe)
    for arm in data["arms"].values():
        del arm["preset"]  # it is spelt out
    if not recipe.environment:
        del data["environment"]
    return dump_yaml(data)


def save_resolved(recipe: Recipe, path: str | Path) -> Path:
    """Write a recipe together with the environment that it runs in.

    Args:
        recipe: The recipe of the run.
        path: The run's ``recipe.yaml``; ``read_recipe`` reads it back to an equal recipe.

    Returns:
        The path.

    Raises:
        GradlocError: The file cannot be written; what was there before is unchanged.
    """
    return replace(recipe, environment=current_environment()).save(path)
