"""From a recipe and a plan to a checkpoint: a thin layer over the Trainer."""

import functools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from datasets import Dataset, IterableDataset
from safetensors import SafetensorError
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from gradloc.config.default import GradLocConfig
from gradloc.config.recipe import ArmConfig, Recipe, save_resolved
from gradloc.data.batches import collate, pad_token_id, training_rows
from gradloc.data.corpora import Corpus
from gradloc.data.corpora.readers import read_corpus
from gradloc.data.preparation import build_probes, training_documents
from gradloc.data.probes import ProbeSet
from gradloc.errors import CorpusError, GradlocError, MethodError
from gradloc.localization.plan import LayerPlan, as_plan
from gradloc.localization.probe_profile import recipe_reference
from gradloc.models import load_model, load_tokenizer
from gradloc.models.units import find_units
from gradloc.training.callback import GradLocCallback
from gradloc.training.methods.base import Method, TrainContext
from gradloc.training.methods.method_table import build_methods
from gradloc.training.monitoring import (
    ProbeCurve,
    Progress,
    Stopwatch,
    curve_columns,
    followed_probes,
    remove_default_progress,
)
from gradloc.training.trainer_hooks import shows_progress
from gradloc.utils.io import PLAN_FILE, TRAINING_FILE, write_json
from gradloc.utils.memory import PeakMemory

CHECKPOINT_DIR = "checkpoint"
CACHE_DIR = "prefix-cache"
# With a cache, batches are as wide as a multiple of this: a row is stored once for each width of
# a batch that it was in, since the last bits of attention depend on the width.
CACHED_WIDTH = 32


def train(
    recipe: Recipe,
    plan: LayerPlan | str | Path,
    *,
    arm: str | None = None,
    out_dir: str | Path | None = None,
    probes: ProbeSet | None = None,
) -> Path:
    """Train one arm of a recipe under a plan.

    An interrupted training continues from its last Trainer checkpoint, if the recipe's
    ``training`` asks for any (``save_strategy``), and starts anew otherwise.

    Args:
        recipe: The recipe.
        plan: The plan, or the path of its file.
        arm: Which arm's training arguments and methods to use; default: the first.
        out_dir: Folder of the checkpoint; default: ``checkpoint`` in the run folder.
        probes: The run's probes; default: built from the recipe.

    Returns:
        ``out_dir``, with safetensors weights, tokenizer, ``plan.json``, ``recipe.yaml`` and,
        written last, ``training.json``.

    Raises:
        PlanMismatchError: The plan is for a model with other units; nothing is written.
        GradlocError: Other bad input, or a disk that is full while saving.
    """
    plan = as_plan(plan)
    arm = arm or next(iter(recipe.arms))
    out_dir = Path(out_dir) if out_dir is not None else recipe.run_dir / CHECKPOINT_DIR
    corpus = read_corpus(recipe.corpus, seed=recipe.seed)
    probes = probes if probes is not None else build_probes(recipe, corpus)
    model = load_model(recipe.model, dtype=recipe.dtype)
    # Before methods record what the base predicts, which takes long.
    plan.check_units(tuple(unit.info for unit in find_units(model, plan.granularity)))
    methods = list(build_methods(recipe.arms[arm].methods).values())
    arguments = _arguments(recipe, recipe.arms[arm], methods, out_dir)
    reference = recipe_reference(recipe, corpus) if methods else ()
    context = _context(recipe, plan, model, arguments, reference, probes)
    watch = Stopwatch()
    with watch:
        for method in methods:
            method.prepare(context)
    context.dataset = _dataset(recipe, context, methods, corpus, probes, watch)
    with watch:
        for method in methods:
            model = method.wrap(model, context)
        added = [callback for method in methods for callback in method.callbacks(context)]
    callback = GradLocCallback(plan, config=_computing(recipe, plan))
    curve = ProbeCurve(
        context.tokenizer,
        *followed_probes(probes, recipe.evaluation.n_curve_probes),
        n_points=recipe.evaluation.n_curve_points,
    )
    width = CACHED_WIDTH if callback.config.cache else 1
    trainer = _trainer(context, methods, model, [callback, *added, curve, Progress(arm)], width)
    seconds, peak_mib = _fit(trainer, out_dir)
    seconds -= curve.seconds
    with watch:
        for method in methods:
            assert trainer.model is not None  # it was given
            trainer.model = method.finish(trainer.model, context)
    log = {
        "arm": arm,
        "policy": plan.policy,
        "methods": recipe.arms[arm].methods,
        "learning_rate": trainer.args.learning_rate,
        "n_steps": trainer.state.global_step,
        "train_seconds": round(seconds + watch.seconds, 2),
        "method_seconds": round(watch.seconds, 2),
        "curve_seconds": round(curve.seconds, 2),
        "peak_rss_mib": round(peak_mib, 1),
        "trainable_fraction": round(callback.trainable_fraction, 6),
        "n_frozen_tensors_verified": callback.n_verified,
        "n_passes_from_cache": callback.prefix_cache.n_hits if callback.prefix_cache else 0,
        "curve": curve_columns(trainer.state.log_history),
    }
    if trainer.is_world_process_zero():
        _save(trainer, recipe, plan, log, out_dir)
    return out_dir


def _context(
    recipe: Recipe,
    plan: LayerPlan,
    model: nn.Module,
    arguments: TrainingArguments,
    reference: Sequence[str],
    probes: ProbeSet,
) -> TrainContext:
    """What methods see of the training."""
    return TrainContext(
        model=model,
        tokenizer=load_tokenizer(recipe.model),
        plan=plan,
        arguments=arguments,
        reference=reference,
        facts=tuple(probe for probe in probes if probe.split == "localization"),
        max_length=recipe.corpus.max_length,
        progress=None if shows_progress(arguments) else False,
    )


def _dataset(
    recipe: Recipe,
    context: TrainContext,
    methods: Sequence[Method],
    corpus: Corpus,
    probes: ProbeSet,
    watch: Stopwatch,
) -> Dataset | IterableDataset:
    """Token rows of the update documents; re-read at every epoch where the corpus streams."""
    changing = [method for method in methods if type(method).rows is not Method.rows]

    def rows() -> Iterator[dict]:
        return training_rows(
            context.tokenizer,
            (document.text for document in training_documents(recipe, corpus, probes)),
            max_length=recipe.corpus.max_length,
            packing=recipe.corpus.packing,
        )

    if recipe.corpus.streaming:
        if changing:
            raise MethodError(
                f"{type(changing[0]).__name__} changes the rows that are trained on, which a "
                "streamed corpus does not hold. Set corpus.streaming to false."
            )
        return IterableDataset.from_generator(rows)
    held = list(rows())
    if not held:
        raise CorpusError("the update documents hold no text of two tokens or more to train on.")
    with watch:
        for method in changing:
            held = method.rows(held, context)
    return Dataset.from_list(held)


def _trainer(
    context: TrainContext,
    methods: Sequence[Method],
    model: nn.Module,
    callbacks: list[TrainerCallback],
    width: int,
) -> Trainer:
    """The Trainer of what the methods made of model and rows."""
    trainer = _trainer_class(methods, context)(
        model=model,
        args=context.arguments,
        train_dataset=context.dataset,
        data_collator=functools.partial(
            collate,
            pad_token_id=pad_token_id(context.tokenizer),
            pad_to_multiple_of=width,
        ),
        processing_class=context.tokenizer,
        callbacks=callbacks,
    )
    remove_default_progress(trainer)
    return trainer


def _fit(trainer: Trainer, out_dir: Path) -> tuple[float, float]:
    """Train, on from the last checkpoint; seconds and peak memory in MiB."""
    last = get_last_checkpoint(str(out_dir)) if out_dir.is_dir() else None
    with PeakMemory() as memory:
        start = time.perf_counter()
        trainer.train(resume_from_checkpoint=last)
        seconds = time.perf_counter() - start
    return seconds, memory.mib


def _trainer_class(methods: Sequence[Method], context: TrainContext) -> type[Trainer]:
    """The Trainer, with the loss of the method that has one."""
    losses = [loss for method in methods if (loss := method.loss(context)) is not None]
    if not losses:
        return Trainer  # as it is, so that logits are computed where a label counts and only there

    class TrainerWithLoss(Trainer):
        """A Trainer whose training loss is a method's."""

        # A mean over the micro-batch: the Trainer is to divide it by their number.
        loss_is_scaled_for_ga = False

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            """The method's loss."""
            loss = losses[0](model, inputs)
            return (loss, {}) if return_outputs else loss

    return TrainerWithLoss


def _computing(recipe: Recipe, plan: LayerPlan) -> GradLocConfig:
    """Cache and bfloat16 parts, where the plan leaves blocks; methods protect, not the callback."""
    cache, parts, has_prefix = recipe.prefix_cache, recipe.bfloat16, bool(plan.lowest_block)
    return GradLocConfig(
        protect=False,
        bfloat16=[part for part in parts if part != "prefix" or has_prefix],
        cache=str(recipe.run_dir / CACHE_DIR) if cache.enabled and has_prefix else None,
        cache_dtype=cache.dtype,
        cache_max_gib=cache.max_gib,
    )


def _arguments(
    recipe: Recipe, arm: ArmConfig, methods: Sequence[Method], out_dir: Path
) -> TrainingArguments:
    ours = {
        "logging_strategy": "steps",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "remove_unused_columns": False,  # a row may hold weights of its tokens
        # Pinned memory speeds up copies to an accelerator; without one torch only warns.
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    given = {**recipe.training, **arm.training}
    for method in methods:
        given = method.training_arguments(given)
    if "save_steps" in given:
        ours["save_strategy"] = "steps"
    try:
        return TrainingArguments(
            output_dir=str(out_dir), seed=recipe.seed, data_seed=recipe.seed, **{**ours, **given}
        )
    except (TypeError, ValueError) as error:
        raise GradlocError(f"recipe {recipe.name}: training: {error}") from error


def _save(trainer: Trainer, recipe: Recipe, plan: LayerPlan, log: dict, out_dir: Path) -> None:
    try:
        trainer.save_model(str(out_dir))
    except (OSError, SafetensorError) as error:
        raise GradlocError(
            f"{out_dir}: the weights cannot be saved: {getattr(error, 'strerror', None) or error}. "
            "Free some space and run again; nothing else of the run has changed."
        ) from error
    plan.save(out_dir / PLAN_FILE)
    save_resolved(recipe, out_dir / "recipe.yaml")
    # Last, since its presence says that the checkpoint is complete.
    write_json(out_dir / TRAINING_FILE, log)
