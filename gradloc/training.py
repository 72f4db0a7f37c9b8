"""From a recipe and a plan to a checkpoint: a thin layer over the Trainer.

Comes in: a ``Recipe``, a ``LayerPlan`` and the documents. Goes out: a folder with weights,
tokenizer, plan, recipe and ``training.json`` (what it cost and how it went). It measures no
layers and judges no result.
"""

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from datasets import Dataset, IterableDataset
from safetensors import SafetensorError
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import get_last_checkpoint

from gradloc.acquisition.callback import AcquisitionCallback
from gradloc.artifacts import PLAN_FILE, TRAINING_FILE, write_json
from gradloc.batches import collate, pad_token_id, training_rows
from gradloc.callback import GradLocCallback
from gradloc.corpus import Corpus, read_corpus
from gradloc.corpus.documents import Document
from gradloc.errors import CorpusError, GradlocError, MethodError
from gradloc.injection import InjectedRows, ordinary_texts, plan_injection
from gradloc.measuring import MAX_REFERENCE, recipe_reference
from gradloc.memory import PeakMemory
from gradloc.methods import Method, Setting, build_methods
from gradloc.models import load_model, load_tokenizer
from gradloc.plan import LayerPlan, as_plan
from gradloc.prefix_cache import CacheConfig
from gradloc.preparation import build_probes, training_documents
from gradloc.probes import Probe, ProbeSet
from gradloc.recipe import ArmConfig, Recipe, save_resolved
from gradloc.scoring import probe_span, score_spans

CHECKPOINT_DIR = "checkpoint"
CACHE_DIR = "prefix-cache"
METHODS_DIR = "methods"
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

    With a recipe's ``injection``, ordinary text is trained on with its facts injected, and
    ``acquisition.json`` records their probes; else all update documents are trained on.

    An interrupted training continues from its last Trainer checkpoint, if the recipe's
    ``training`` asks for any (``save_strategy``), and starts anew otherwise.

    Args:
        recipe: The recipe.
        plan: The plan, or the path of its file.
        arm: Which arm's training arguments to use; default: the first.
        out_dir: Folder of the checkpoint; default: ``checkpoint`` in the run folder.
        probes: The run's probes; default: built from the recipe.

    Returns:
        ``out_dir``, with safetensors weights, tokenizer, ``plan.json``, ``recipe.yaml`` and,
        written last, ``training.json``.

    Raises:
        GradlocError: Bad input, or a disk that is full while saving.
    """
    plan = as_plan(plan)
    arm = arm or next(iter(recipe.arms))
    out_dir = Path(out_dir) if out_dir is not None else recipe.run_dir / CHECKPOINT_DIR
    corpus = read_corpus(recipe.corpus, seed=recipe.seed)
    probes = probes if probes is not None else build_probes(recipe, corpus)
    model = load_model(recipe.model, dtype=recipe.dtype)
    tokenizer = load_tokenizer(recipe.model)
    methods = build_methods(recipe.arms[arm].methods)
    arguments = _arguments(recipe, recipe.arms[arm], methods, out_dir)
    setting = Setting(
        model=model,
        tokenizer=tokenizer,
        plan=plan,
        arguments=arguments,
        reference=recipe_reference(recipe, corpus) if methods else (),
        new_texts=_new_texts(recipe, corpus, probes) if methods else (),
        facts=tuple(probe for probe in probes if probe.split == "localization"),
        max_length=recipe.corpus.max_length,
        work_dir=out_dir / METHODS_DIR,
    )
    watch = _Stopwatch()
    with watch:
        for method in methods:
            method.prepare(setting)
    dataset, followers = _data(recipe, setting, methods, corpus, probes, watch)
    with watch:
        for method in methods:
            model = method.wrap(model, setting)
        added = [callback for method in methods for callback in method.callbacks(setting)]
    cache = _prefix_cache(recipe, plan)
    callback = GradLocCallback(plan, cache=cache)
    curve = ProbeCurve(
        tokenizer,
        *_followed(probes, recipe.evaluation.n_curve_probes),
        n_points=recipe.evaluation.n_curve_points,
    )
    trainer = _trainer_class(methods, setting)(
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=functools.partial(
            collate,
            pad_token_id=pad_token_id(tokenizer),
            pad_to_multiple_of=CACHED_WIDTH if cache else 1,
        ),
        processing_class=tokenizer,
        callbacks=[
            callback,
            *added,
            curve,
            *followers,
            Progress(arm),
        ],
    )
    _remove_default_progress(trainer)
    last = get_last_checkpoint(str(out_dir)) if out_dir.is_dir() else None
    with PeakMemory() as memory:
        start = time.perf_counter()
        trainer.train(resume_from_checkpoint=last)
        seconds = time.perf_counter() - start
        seconds -= curve.seconds + sum(follower.seconds for follower in followers)
    trained = trainer.model
    with watch:
        for method in methods:
            trained = method.finish(trained, setting)
    trainer.model = trained
    log = {
        "arm": arm,
        "policy": plan.policy,
        "methods": recipe.arms[arm].methods,
        "learning_rate": trainer.args.learning_rate,
        "n_steps": trainer.state.global_step,
        "train_seconds": round(seconds + watch.seconds, 2),
        "method_seconds": round(watch.seconds, 2),
        "peak_rss_mib": round(memory.mib, 1),
        "trainable_fraction": round(callback.trainable_fraction, 6),
        "n_frozen_tensors_verified": callback.n_verified,
        **_cache_figures(callback),
        "curve": _curve(trainer.state.log_history),
    }
    if trainer.is_world_process_zero():
        _save(trainer, recipe, plan, log, out_dir)
    return out_dir


class _Stopwatch:
    """Seconds of all stretches that ran under it."""

    def __init__(self):
        self.seconds = 0.0

    def __enter__(self):
        self._start = time.perf_counter()

    def __exit__(self, *error: object):
        self.seconds += time.perf_counter() - self._start


def _new_texts(recipe: Recipe, corpus: Corpus, probes: ProbeSet) -> tuple[str, ...]:
    """The update documents, of a stream the first; of injected facts the text around them."""
    if recipe.injection.n_facts:
        return tuple(itertools.islice(ordinary_texts(recipe.injection, corpus), MAX_REFERENCE))
    limit = MAX_REFERENCE if recipe.corpus.streaming else None
    documents = training_documents(recipe, corpus, probes)
    return tuple(document.text for document in itertools.islice(documents, limit))


def _trainer_class(methods: Sequence[Method], setting: Setting) -> type[Trainer]:
    """The Trainer, with the loss of the method that has one."""
    losses = [loss for method in methods if (loss := method.loss(setting)) is not None]
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


class Progress(ProgressCallback):
    """The Trainer's progress bar, with the loss beside it instead of a line for every log."""

    def __init__(self, arm: str):
        super().__init__()
        self.arm = arm

    def on_train_begin(self, args, state, control, **kwargs):
        """Name the bar after the arm."""
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None:
            self.training_bar.set_description(f"train {self.arm}")

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Show the loss on the bar."""
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{float(logs['loss']):.3f}")


class ProbeCurve(TrainerCallback):
    """Follow a few probes during training.

    The points go into the Trainer's log history, so they survive a resume.

    Args:
        tokenizer: The tokenizer.
        new: Probes on new and updated facts.
        invariant: Probes on facts that should stay.
        n_points: How many points over the whole training; 0: none.

    Attributes:
        seconds: Time spent here, which is not training.
    """

    def __init__(self, tokenizer, new: Sequence[Probe], invariant: Sequence[Probe], n_points: int):
        self.tokenizer, self.new, self.invariant = tokenizer, new, invariant
        self.n_points = n_points
        self.seconds = 0.0

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """Measure the starting point."""
        if state.global_step == 0:
            self._measure(state, model)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        """Measure at evenly spaced steps and at the last."""
        every = max(1, round(state.max_steps / max(1, self.n_points)))
        if state.global_step % every == 0 or state.global_step == state.max_steps:
            self._measure(state, model)

    def _measure(self, state, model) -> None:
        if not self.n_points or not state.is_world_process_zero:
            return
        start = time.perf_counter()
        point = {"step": state.global_step}
        for name, probes in (("new_nll", self.new), ("invariant_nll", self.invariant)):
            if probes:
                # The right answers alone, in the same batches each time: with a prefix cache,
                # every measurement but the first begins above the frozen blocks.
                spans = [probe_span(self.tokenizer, probe, probe.targets[0]) for probe in probes]
                scores = score_spans(model, spans, progress=False)
                point[name] = sum(score.nll for score in scores) / len(scores)
        state.log_history.append(point)
        self.seconds += time.perf_counter() - start


def _prefix_cache(recipe: Recipe, plan: LayerPlan) -> CacheConfig | None:
    """The run's cache, where the plan leaves blocks to skip."""
    config = recipe.prefix_cache
    if not config.enabled or not plan.lowest_block:
        return None
    return CacheConfig(str(recipe.run_dir / CACHE_DIR), config.dtype, config.max_gib)


def _cache_figures(callback: GradLocCallback) -> dict[str, float]:
    cache = callback.prefix_cache
    if cache is None:
        return {}
    return {
        "n_passes_from_cache": cache.n_hits,
        "n_passes_cached": cache.n_misses,
        "cache_mib": round(cache.n_bytes / 2**20, 1),
    }


def _remove_default_progress(trainer: Trainer) -> None:
    """Leave ``Progress`` alone to show how training goes."""
    for callback in list(trainer.callback_handler.callbacks):
        # By exact type: remove_callback(type) would take ``Progress``, a subclass, as well.
        if type(callback) in (ProgressCallback, PrinterCallback):
            trainer.remove_callback(callback)


def _followed(probes: ProbeSet, n: int) -> tuple[list[Probe], list[Probe]]:
    """Evaluation probes to follow: paraphrases of new facts first, and invariant ones."""
    judged = [probe for probe in probes if probe.split == "evaluation"]
    new = [p for p in judged if p.group != "invariant"]
    new.sort(key=lambda probe: probe.depth != "paraphrase")
    return _spread(new, n), _spread([p for p in judged if p.group == "invariant"], n)


def _spread(probes: list[Probe], n: int) -> list[Probe]:
    paraphrased = [p for p in probes if p.depth == "paraphrase"] or probes
    step = max(1, len(paraphrased) // max(1, n))
    return paraphrased[::step][:n]


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
    if recipe.injection.n_facts:
        ours["train_sampling_strategy"] = "sequential"
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


def _data(
    recipe: Recipe,
    setting: Setting,
    methods: Sequence[Method],
    corpus: Corpus,
    probes: ProbeSet,
    watch: _Stopwatch,
) -> tuple[Dataset | IterableDataset | InjectedRows, list[AcquisitionCallback]]:
    """What is trained on, and the callbacks that follow it."""
    tokenizer = setting.tokenizer
    if not recipe.injection.n_facts:
        documents = functools.partial(training_documents, recipe, corpus, probes)
        return _dataset(recipe, setting, methods, documents, watch), []
    injection = plan_injection(recipe.injection, corpus.update, probes)
    length = recipe.corpus.max_length
    texts = ordinary_texts(recipe.injection, corpus)
    # Packed, so that every row has room for a passage; the rest at the end is left out.
    rows = [
        row
        for row in training_rows(tokenizer, texts, max_length=length, packing=True)
        if len(row["input_ids"]) == length
    ]
    follower = AcquisitionCallback(
        injection.probes, recipe.injection.measure_every, exposures=injection.schedule
    )
    return injection.schedule.inject(rows, setting.arguments, tokenizer), [follower]


def _dataset(
    recipe: Recipe,
    setting: Setting,
    methods: Sequence[Method],
    documents: Callable[[], Iterator[Document]],
    watch: _Stopwatch,
) -> Dataset | IterableDataset:
    """Token rows of the update documents; re-read at every epoch where the corpus streams."""
    changing = [method for method in methods if type(method).rows is not Method.rows]

    def rows() -> Iterator[dict]:
        return training_rows(
            setting.tokenizer,
            (document.text for document in documents()),
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
            held = method.rows(held, setting)
    return Dataset.from_list(held)


def _curve(log_history: list[dict]) -> dict[str, list]:
    """Columns over steps; ``None`` where a step has no value of that kind."""
    names = ("loss", "new_nll", "invariant_nll")
    by_step: dict[int, dict] = {}
    for entry in log_history:
        found = {name: entry[name] for name in names if name in entry}
        if found:
            by_step.setdefault(int(entry["step"]), {}).update(found)
    steps = sorted(by_step)
    return {"step": steps, **{n: [by_step[s].get(n) for s in steps] for n in names}}


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
