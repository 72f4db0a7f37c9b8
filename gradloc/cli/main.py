"""The command line: one verb a stage of the line.

Comes in: arguments. Goes out: files, tables on the terminal, an exit code (0; 2 for bad input
and failed stages; 3 where an evaluation fails its conditions; 130 when interrupted). Heavy
imports happen inside the commands, so that ``gradloc --help`` answers at once.
"""

import json
import logging
import os
import sys
import time
from pathlib import Path

import click

from gradloc import __version__
from gradloc.cli.analyze import analyze
from gradloc.cli.bench import bench
from gradloc.cli.commands import (
    INPUT,
    MAX_LENGTH,
    SHOW_JSON,
    how_many,
    policy_options,
    refuse_overwrite,
    show,
)
from gradloc.cli.continual import stream
from gradloc.cli.merge import merge
from gradloc.cli.plan import plan
from gradloc.cli.sweep import sweep
from gradloc.errors import GradlocError

FORCE = click.option("--force", is_flag=True, help="Overwrite what finished stages left.")


def main() -> None:
    """Entry point: every expected failure is one message and exit code 2."""
    # Accepted behind a command as well, where people put it after a failure.
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    # A recipe may name what stands in a module of the user's own: my_module:Mine.
    sys.path.append(str(Path.cwd()))
    try:
        # click hands back the code of an Exit, and what a command returns, which is nothing.
        code = cli(["--debug", *arguments] if debug else arguments, standalone_mode=False)
        if code:
            sys.exit(code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("\ninterrupted; the same command continues from what is finished.", err=True)
        sys.exit(130)
    except (GradlocError, OSError) as error:
        if debug:
            raise
        click.echo(f"gradloc: {_one_error(error)}", err=True)
        sys.exit(2)


def _one_error(error: Exception) -> str:
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}. What finished stages wrote is unchanged."
    return str(error)


class _InOrder(click.Group):
    """Commands listed in the order of the line, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gradloc")
@click.option("--debug", is_flag=True, help="Show tracebacks and the libraries' own messages.")
def cli(debug: bool) -> None:
    """Train a language model on news where its gradients pull, and see what it forgets.

    \b
    The whole line, from a recipe to a report:
      gradloc run recipes/quickstart.yaml
    Or stage by stage, each on files:
      gradloc measure MODEL --probes probes.jsonl --reference reference.jsonl
      gradloc select profile.json --policy interference_ratio
      gradloc train RECIPE --plan plan.json
      gradloc evaluate CHECKPOINT --suite temporal --baseline MODEL
      gradloc report runs/NAME

    MODEL and CHECKPOINT are a local Hugging Face folder (of a model or a PEFT adapter), a hub id, a
    .gguf file, or smollm2-135m-instruct for the packaged weights.
    """
    if not debug:
        _quiet_libraries()
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(message)s")


@cli.command()
@click.argument("files", nargs=-1, required=True, type=INPUT)
def validate(files: tuple[Path, ...]) -> None:
    """Check recipes, sweeps, suites, probe files, plans and profiles; all problems at once.

    FILES are .yaml (recipe, sweep or suite, or the name of a shipped one), .jsonl (probes) or
    .json (plan, profile, results, record of a sweep).
    """
    from gradloc.cli.validation import validate_file

    failures = []
    for file in files:
        try:
            click.echo(f"{file}: {validate_file(file)}")
        except GradlocError as error:
            failures.append(str(error))
    if failures:
        raise GradlocError("\n".join(failures))


@cli.command()
@click.argument("model")
@click.option("--probes", required=True, type=INPUT, help="JSONL of probes (see docs: concepts).")
@click.option(
    "--reference",
    type=INPUT,
    help="Text to keep: JSONL with 'text', or .txt. Default: the shipped passages.",
)
@click.option(
    "--granularity",
    type=click.Choice(["sublayer", "block"]),
    default="sublayer",
    show_default=True,
    help="Attention and MLP apart, or whole blocks.",
)
@click.option(
    "--reduction",
    type=click.Choice(["mean_of_norms", "norm_of_mean"]),
    default="mean_of_norms",
    show_default=True,
    help="What the relative gradient norm is made of.",
)
@click.option(
    "--reference-loss",
    type=click.Choice(["all", "random_span"]),
    default="all",
    show_default=True,
    help="Loss on reference text; random_span is a control.",
)
@how_many("--n-probes", "Probes measured at most.")
@how_many("--n-reference", "Texts measured at most.")
@MAX_LENGTH
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True
)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=INPUT, default=Path("profile.json"), show_default=True)
@FORCE
@SHOW_JSON
def measure(
    model,
    probes,
    reference,
    granularity,
    reduction,
    reference_loss,
    n_probes,
    n_reference,
    max_length,
    dtype,
    seed,
    out,
    force,
    as_json,
) -> None:
    """Measure each layer's gradients on probes and on reference text: profile.json."""
    from gradloc.cli.terminal import profile_table
    from gradloc.config.recipe import MeasureConfig
    from gradloc.data.probes import load_probes
    from gradloc.localization.probe_profile import profile_probes, reference_texts
    from gradloc.models import load_model, load_tokenizer

    refuse_overwrite(out, force)
    config = MeasureConfig(
        granularity=granularity,
        reduction=reduction,
        n_probes=n_probes,
        n_reference=n_reference,
        reference_loss=reference_loss,
        max_length=max_length,
    )
    probe_set, texts = load_probes(probes), reference_texts(reference)
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


@cli.command()
@click.argument("profile", type=INPUT)
@click.option(
    "--policy",
    default="interference_ratio",
    show_default=True,
    help="Selection policy; a wrong name lists them all.",
)
@click.option(
    "-o",
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the policy, such as k=10; may be repeated.",
)
@click.option("--out", type=INPUT, default=Path("plan.json"), show_default=True)
@FORCE
@SHOW_JSON
def select(profile, policy, options, out, force, as_json) -> None:
    """Choose the layers to train from a profile: plan.json."""
    from gradloc.cli.terminal import plan_table
    from gradloc.localization.policies import select_layers
    from gradloc.localization.profile import GradientProfile

    refuse_overwrite(out, force)
    plan = select_layers(GradientProfile.load(profile), policy, **policy_options(options))
    plan.save(out)
    show(as_json, plan.to_dict, [plan_table(plan)], out)


@cli.command()
@click.argument("recipe")
@click.option("--plan", required=True, type=INPUT, help="plan.json of `gradloc select`.")
@click.option(
    "--arm",
    help="Arm whose training arguments and methods are used; its policy is not. Default: the "
    "first.",
)
@click.option("--out", type=INPUT, help="Checkpoint folder. Default: checkpoint/ of the run.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a recipe value, such as training.learning_rate=1.0e-4.",
)
@FORCE
@SHOW_JSON
def train(recipe, plan, arm, out, overrides, force, as_json) -> None:
    """Train one arm of a RECIPE under a plan: a checkpoint folder."""
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


@cli.command()
@click.argument("checkpoints", nargs=-1, required=True)
@click.option(
    "--suite",
    default="temporal",
    show_default=True,
    help="Suite name or YAML, a probes .jsonl, or a run folder.",
)
@click.option("--baseline", help="Model that 'before' means; without it only scores are given.")
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True
)
@click.option("--out", type=INPUT, default=Path("results.json"), show_default=True)
@click.option(
    "--scores",
    type=INPUT,
    help="Folder of the scores of single items, kept so that a broken off evaluation continues. "
    "Default: beside --out.",
)
@click.option(
    "--fail-if",
    "conditions",
    multiple=True,
    metavar="CONDITION",
    help='Exit with 3 if this holds of a checkpoint, such as "forgetting.known_facts > 0.05" or '
    '"uptake.new_paraphrase_nll.low < 0.5"; may be repeated.',
)
@click.option(
    "--lm-eval",
    metavar="TASKS",
    help="Also run these tasks of lm-evaluation-harness, such as hellaswag,lambada_openai.",
)
@click.option("--lm-eval-include", type=INPUT, help="Folder of your own harness tasks.")
@click.option("--lm-eval-limit", type=int, help="At most so many documents of each task.")
@click.option(
    "--force", is_flag=True, help="Write the result anew; scores of single items are reused."
)
@SHOW_JSON
def evaluate(
    checkpoints,
    suite,
    baseline,
    dtype,
    out,
    scores,
    conditions,
    lm_eval,
    lm_eval_include,
    lm_eval_limit,
    force,
    as_json,
) -> None:
    """Ask CHECKPOINTS what they learned and what they forgot: results.json.

    \b
    gradloc evaluate runs/a/checkpoint --suite temporal --baseline MODEL
    gradloc evaluate full=out/full lora=out/lora --suite mine.yaml --baseline MODEL

    Suites that come with gradloc: temporal, temporal-full, abilities, knowledge-edits,
    fictional-knowledge. One of your own is ten lines of YAML: docs, evaluation.

    A checkpoint may be given a name, as in full=runs/a/checkpoint; a folder of checkpoint-*
    stands for all of them. `gradloc report results.json` draws the result.

    Exit code: 0; 3 if a --fail-if holds; 2 for bad input.
    """
    refuse_overwrite(out, force, "scores of single items are kept and reused")
    from gradloc.cli.terminal import result_table
    from gradloc.evaluation.evaluate import evaluate as evaluate_checkpoints
    from gradloc.evaluation.thresholds import parse_threshold, require_baseline

    gates = [parse_threshold(condition) for condition in conditions]
    if baseline is None:
        require_baseline(gates)
    result = evaluate_checkpoints(
        _with_names(checkpoints),
        suite,
        baseline=baseline,
        dtype=dtype,
        scores_dir=scores or out.with_suffix(".scores"),
        lm_eval=[name.strip() for name in (lm_eval or "").split(",") if name.strip()],
        lm_eval_options={"include_path": lm_eval_include, "limit": lm_eval_limit},
    )
    result.save(out)
    show(as_json, result.to_dict, [result_table(result)], out)
    try:
        caught = [line for gate in gates for line in gate.caught(result)]
    except GradlocError as error:
        raise GradlocError(f"{error}\n{out} is written; correct it and add --force.") from error
    if caught:
        click.echo("\n".join(["failed:", *(f"  {line}" for line in caught)]), err=True)
        raise click.exceptions.Exit(3)


@cli.command()
@click.argument("runs", nargs=-1, required=True, type=INPUT)
def report(runs: tuple[Path, ...]) -> None:
    """Write one self-contained page for each of RUNS: report.html, or NAME.html of NAME.json.

    RUNS are run folders, or files that `gradloc evaluate` wrote.
    """
    from gradloc.report import write_report

    for run_dir in runs:
        click.echo(str(write_report(run_dir)))


cli.add_command(analyze)
cli.add_command(plan)
cli.add_command(bench)
cli.add_command(sweep)
cli.add_command(stream)
cli.add_command(merge)


@cli.command()
@click.argument("recipe")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a recipe value, such as training.max_steps=20.",
)
@click.option("--force", is_flag=True, help="Start the run over; its stages are overwritten.")
@SHOW_JSON
def run(recipe, overrides, force, as_json) -> None:
    """Run a RECIPE from its corpus to report.html; finished stages are kept.

    RECIPE is a YAML file or the name of a shipped one (quickstart). Killed at any point, the same
    command continues.
    """
    from gradloc.cli.terminal import result_table
    from gradloc.evaluation.results import EvalResult
    from gradloc.experiments.recipes import load_recipe
    from gradloc.experiments.run import run as run_line

    loaded = load_recipe(recipe, overrides)
    start = time.monotonic()

    def say(text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - start), 60)
        click.echo(f"[{minutes:2d}:{seconds:02d}] {text}", err=True)

    run_dir = run_line(loaded, force=force, say=say)
    result = EvalResult.load(run_dir / "results.json")
    show(as_json, result.to_dict, [result_table(result)], run_dir / "report.html")


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


def _quiet_libraries() -> None:
    """Keep the libraries' progress bars and advice out of the terminal; errors still show."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


if __name__ == "__main__":
    main()
