"""The stages of a run, one command each, and the run itself. Heavy imports happen inside."""

import json
import sys
from pathlib import Path
from typing import Annotated

from pydantic import Field
from tyro.conf import Positional, arg

from gradloc.cli.options import (
    Dtype,
    Json,
    Overrides,
    PolicyOptions,
    comma_list,
    fields_of,
    policy_options,
    refuse_overwrite,
    show,
)
from gradloc.config.recipe import MeasureConfig
from gradloc.errors import GradlocError


def run(
    recipe: Annotated[str, Positional, arg(metavar="RECIPE")],
    *,
    overrides: Overrides = (),
    force: bool = False,
    as_json: Json = False,
) -> None:
    """Run a RECIPE from its corpus to report.html; finished stages are kept.

    RECIPE is a YAML file or the name of a shipped one (quickstart). Killed at any point, the same
    command continues.

    Args:
        recipe: Recipe file or name.
        overrides: Override a recipe value, such as training.max_steps=20; may be repeated.
        force: Start the run over; its stages are overwritten.
    """
    from gradloc.cli.terminal import result_table
    from gradloc.evaluation.results import EvalResult
    from gradloc.experiments.recipes import load_recipe
    from gradloc.experiments.run import run as run_pipeline

    run_dir = run_pipeline(load_recipe(recipe, overrides), force=force)
    result = EvalResult.load(run_dir / "results.json")
    show(as_json, result.to_dict, [result_table(result)], run_dir / "report.html")


def measure(
    model: Annotated[str, Positional, arg(metavar="MODEL")],
    *,
    probes: Path,
    config: Annotated[MeasureConfig, fields_of(MeasureConfig, reference="general")],
    dtype: Dtype = "float32",
    seed: int = 0,
    out: Path = Path("profile.json"),
    force: bool = False,
    as_json: Json = False,
) -> None:
    """Measure each layer's gradients on probes and on reference text: profile.json.

    Against the shipped passages, or your own texts:
      gradloc measure MODEL --probes probes.jsonl
      gradloc measure MODEL --probes probes.jsonl --reference news.txt

    Args:
        model: Model to measure; gradloc --help says what it may be.
        probes: JSONL of probes (docs: how-to/write-probes).
        dtype: Type of the weights.
        seed: Seed of the draw of probes and texts.
        out: File to write.
        force: Overwrite the file.
    """
    from gradloc.cli.terminal import profile_table
    from gradloc.data.probes import load_probes
    from gradloc.localization.probe_profile import profile_probes, reference_texts
    from gradloc.models import load_model, load_tokenizer

    refuse_overwrite(out, force)
    if config.reference == "background":
        raise GradlocError(
            "--reference background: only a recipe has background documents; give a file of texts, "
            "or general for the shipped passages."
        )
    probe_set = load_probes(probes)
    texts = reference_texts(None if config.reference == "general" else config.reference)
    profile = profile_probes(
        load_model(model, dtype=dtype),
        load_tokenizer(model),
        probe_set,
        texts,
        config,
        seed=seed,
    )
    profile.save(out)
    show(as_json, lambda: json.loads(out.read_text()), [profile_table(profile)], out)


def select(
    profile: Annotated[Path, Positional, arg(metavar="PROFILE")],
    *,
    policy: str = "interference_ratio",
    options: PolicyOptions = (),
    out: Path = Path("plan.json"),
    force: bool = False,
    as_json: Json = False,
) -> None:
    """Choose the layers to train from a profile: plan.json.

    Args:
        profile: profile.json of gradloc measure.
        policy: Selection policy (docs: reference/policies), or the import path of yours
            (my_module:mine).
        out: File to write.
        force: Overwrite the file.
    """
    from gradloc.cli.terminal import plan_table
    from gradloc.localization.policies.selection import select_layers
    from gradloc.localization.profile import GradientProfile

    refuse_overwrite(out, force)
    plan = select_layers(GradientProfile.load(profile), policy, **policy_options(options))
    plan.save(out)
    show(as_json, plan.to_dict, [plan_table(plan)], out)


def train(
    recipe: Annotated[str, Positional, arg(metavar="RECIPE")],
    *,
    plan: Path,
    arm: str | None = None,
    out: Path | None = None,
    overrides: Overrides = (),
    force: bool = False,
    as_json: Json = False,
) -> None:
    """Train one arm of a RECIPE under a plan: a checkpoint folder.

    Args:
        recipe: Recipe file or name.
        plan: plan.json of gradloc select.
        arm: Arm whose training arguments and methods are used; its policy is not. Default: the
            first.
        out: Checkpoint folder. Default: checkpoint/ of the run.
        overrides: Override a recipe value, such as training.learning_rate=1e-4; may be repeated.
        force: Overwrite a finished checkpoint.
    """
    from gradloc.experiments.recipes import load_recipe
    from gradloc.experiments.run import train_stage
    from gradloc.localization.plan import LayerPlan

    folder = train_stage(
        load_recipe(recipe, overrides), LayerPlan.load(plan), arm=arm, out_dir=out, force=force
    )
    log = json.loads((folder / "training.json").read_text())
    text = (
        f"{log['arm']}: {log['n_steps']} steps in {log['train_seconds']:.0f} s, "
        f"{log['trainable_fraction']:.1%} of the parameters trained, "
        f"peak {log['peak_rss_mib']:,.0f} MiB; "
        f"{log['n_frozen_tensors_verified']} frozen tensors verified unchanged"
    )
    show(as_json, lambda: {"checkpoint": str(folder), **log}, [text], folder)


def evaluate(
    checkpoints: Annotated[
        tuple[str, ...], Positional, arg(metavar="CHECKPOINT ..."), Field(min_length=1)
    ],
    *,
    suite: str = "temporal",
    baseline: str | None = None,
    dtype: Dtype = "float32",
    out: Path = Path("results.json"),
    scores: Path | None = None,
    conditions: Annotated[tuple[str, ...], arg(name="fail-if", metavar="CONDITION")] = (),
    lm_eval: Annotated[str, arg(name="lm-eval", metavar="TASKS")] = "",
    lm_eval_include: Path | None = None,
    lm_eval_limit: int | None = None,
    force: bool = False,
    as_json: Json = False,
) -> None:
    """Ask CHECKPOINTS what they learned and what they forgot: results.json.

    Folders, hub ids and adapters, with names or without:
      gradloc evaluate runs/a/checkpoint --suite temporal --baseline MODEL
      gradloc evaluate full=out/full lora=out/lora --suite mine.yaml --baseline MODEL

    Suites that come with gradloc: temporal, temporal-full, abilities, knowledge-edits,
    fictional-knowledge. One of your own is ten lines of YAML (docs: how-to/evaluate).

    A checkpoint may be given a name, as in full=runs/a/checkpoint; a folder of checkpoint-* stands
    for all of them. gradloc report results.json draws the result.

    Exit code: 0; 3 if a --fail-if holds; 2 for bad input.

    Args:
        checkpoints: Models or adapters; gradloc --help says what they may be.
        suite: Suite name or YAML, a probes .jsonl, or a run folder.
        baseline: Model that 'before' means; without it only scores are given.
        dtype: Type of the weights.
        out: File to write.
        scores: Folder of the scores of single items, kept so that an evaluation that was broken
            off continues. Default: beside --out.
        conditions: Exit with 3 if this holds of a checkpoint, such as "forgetting.known_facts >
            0.05" or "uptake.new_paraphrase_nll.low < 0.5"; may be repeated.
        lm_eval: Also run these tasks of lm-evaluation-harness, such as hellaswag,lambada_openai.
        lm_eval_include: Folder of your own harness tasks.
        lm_eval_limit: Documents of each harness task at most.
        force: Write the result again; scores of single items are reused.
    """
    refuse_overwrite(out, force, "scores of single items are kept and reused")
    from gradloc.cli.terminal import result_table
    from gradloc.evaluation.evaluate import evaluate as evaluate_checkpoints
    from gradloc.evaluation.thresholds import parse_threshold, require_baseline

    thresholds = [parse_threshold(condition) for condition in conditions]
    if baseline is None:
        require_baseline(thresholds)
    result = evaluate_checkpoints(
        _with_names(checkpoints),
        suite,
        baseline=baseline,
        dtype=dtype,
        scores_dir=scores or out.with_suffix(".scores"),
        lm_eval=comma_list(lm_eval),
        lm_eval_options={"include_path": lm_eval_include, "limit": lm_eval_limit},
    )
    result.save(out)
    show(as_json, result.to_dict, [result_table(result)], out)
    try:
        caught = [line for threshold in thresholds for line in threshold.caught(result)]
    except GradlocError as error:
        raise GradlocError(f"{error}\n{out} is written; correct it and add --force.") from error
    if caught:
        print("\n".join(["failed:", *(f"  {line}" for line in caught)]), file=sys.stderr)
        sys.exit(3)


def report(
    runs: Annotated[tuple[Path, ...], Positional, arg(metavar="RUN ..."), Field(min_length=1)],
) -> None:
    """Write one self-contained page for each of RUNS: report.html, or NAME.html of NAME.json.

    Args:
        runs: Run folders, or files that gradloc evaluate wrote.
    """
    from gradloc.report import write_report

    for run_dir in runs:
        print(write_report(run_dir))


def _with_names(checkpoints: tuple[str, ...]) -> list[str] | dict[str, str]:
    """Checkpoints as ``NAME=PATH`` by name, or as they are where none has a name."""
    pairs = [
        (name, source) if equals and not Path(text).exists() else ("", text)
        for text in checkpoints
        for name, equals, source in [text.partition("=")]
    ]
    if not any(name for name, _ in pairs):
        return list(checkpoints)
    named = {name or source: source for name, source in pairs}
    if len(named) < len(pairs):
        raise GradlocError("two checkpoints have the same name; give each its own, as NAME=PATH.")
    return named
