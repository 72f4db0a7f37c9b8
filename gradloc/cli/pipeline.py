"""The stages of a run, one command each, and the run itself. Heavy imports happen inside."""

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field
from tyro.conf import Positional, arg

from gradloc.cli.options import (
    Dtype,
    Json,
    Overrides,
    PolicyOptions,
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
    from gradloc.localization.layer_selection import select_layers
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
