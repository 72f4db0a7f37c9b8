"""A recipe: one YAML file that says what is trained, on what, and how it is judged.

Comes in: a YAML file and overrides. Goes out: a frozen ``Recipe`` in which every value has been
checked. It opens no corpus and loads no model.
"""

from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, config=_STRICT)
class CorpusConfig:
    """Where the dated documents come from.

    Args:
        source: Key of a corpus reader (``world`` is the shipped generator; ``jsonl``,
            ``parquet``, ``datasets`` read the user's files).
        paths: Files or data set names for the reader; relative to the working directory.
        cutoff: ISO date. Documents dated before it are background, from it on update.
        fields: Document field -> column of the source, where they differ
            (``{text: body, date: published}``).
        options: Options of the reader (for ``world``: ``n_entities``, ``n_phrasings``, ...).
        about_probes: Train only on update documents that mention an entity of the probes.
        max_update_documents: At most so many update documents, the earliest first.
        max_length: Tokens a sequence at most; longer documents are cut into several.
        packing: Fill sequences with several documents instead of padding.
    """

    source: str = "world"
    paths: tuple[str, ...] = ()
    cutoff: str = "2023-01-01"
    fields: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    about_probes: bool = False
    max_update_documents: int | None = None
    max_length: int = 128
    packing: bool = False


@dataclass(frozen=True, config=_STRICT)
class ProbeSource:
    """One file of probes.

    Args:
        path: JSONL file.
        fields: Probe field -> column of the file, where they differ (``{prompt: prefix}``).
        defaults: Probe field -> value for rows that lack it (``{group: invariant}``).
    """

    path: str
    fields: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, config=_STRICT)
class ProbesConfig:
    """Which facts are asked for.

    Args:
        sources: Probe files. Empty: the probes that the corpus reader itself makes.
        from_documents: Make localisation probes from novel entity mentions of the update
            documents (everything before the mention is the prompt).
        localization_fraction: Share of entities whose probes choose the layers; the others judge.
        max_localization: At most so many localisation probes.
        max_evaluation: At most so many evaluation probes for each group.
        screen_invariant: Keep only invariant probes that the base model has right.
    """

    sources: tuple[ProbeSource, ...] = ()
    from_documents: bool = False
    localization_fraction: float = 0.3
    max_localization: int = 64
    max_evaluation: int = 400
    screen_invariant: bool = True


@dataclass(frozen=True, config=_STRICT)
class MeasureConfig:
    """How the gradient profile is measured.

    Args:
        granularity: ``sublayer`` (attention and MLP apart) or ``block``.
        reduction: ``mean_of_norms`` or ``norm_of_mean``.
        n_probes: Localisation probes used at most.
        n_reference: Reference texts used at most.
        reference_path: JSONL of documents; empty: the corpus's background documents.
        reference_loss: ``all`` tokens (the published method) or ``random_span``, spans as long
            as the probes' answers (a control for their noisier gradients).
        max_length: Tokens a sequence at most.
    """

    granularity: Literal["sublayer", "block"] = "sublayer"
    reduction: Literal["mean_of_norms", "norm_of_mean"] = "mean_of_norms"
    n_probes: int = 24
    n_reference: int = 24
    reference_path: str = ""
    reference_loss: Literal["all", "random_span"] = "all"
    max_length: int = 128


@dataclass(frozen=True, config=_STRICT)
class ArmConfig:
    """One way of training that the recipe compares.

    Args:
        policy: Selection policy.
        options: Options of the policy (``{k: 10}``).
        training: ``TrainingArguments`` that differ from the recipe's ``training``.
    """

    policy: str = "interference_ratio"
    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


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
    max_texts: int = 64


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
    n_curve_points: int = 6
    n_curve_probes: int = 24
    n_examples: int = 6
    n_bootstrap: int = 2000


@dataclass(frozen=True, config=_STRICT)
class Recipe:
    """Everything that one run needs.

    Args:
        name: Name of the run; its folder is ``<output_dir>/<name>``.
        model: Base model: folder, hub id, ``.gguf`` file or ``smollm2-135m-instruct``.
        seed: Seed of the corpus, the splits, the measurement and the training.
        output_dir: Folder of all runs.
        dtype: ``float32``, ``bfloat16``: type in which the weights are held.
        corpus, probes, measure, evaluation: The stages' settings.
        training: ``transformers.TrainingArguments`` by name, for every arm.
        arms: Name -> arm. The first is the main one: its plan is ``plan.json`` and its weights
            are ``checkpoint/``. Arms with policy ``all`` are the line to compare with.
    """

    name: str
    model: str = "smollm2-135m-instruct"
    seed: int = 0
    output_dir: str = "runs"
    dtype: Literal["float32", "bfloat16"] = "float32"
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    probes: ProbesConfig = field(default_factory=ProbesConfig)
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    training: dict[str, Any] = field(default_factory=dict)
    arms: dict[str, ArmConfig] = field(
        default_factory=lambda: {"interference_ratio": ArmConfig()}
    )
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    @property
    def run_dir(self) -> Path:
        """Folder of this run."""
        return Path(self.output_dir) / self.name
