"""The command ``gradloc merge``.

Comes in: arguments. Goes out: a checkpoint folder, and with ``--solve`` a table. Heavy imports
happen inside.
"""

from pathlib import Path

import click

from gradloc.cli.commands import INPUT, MAX_LENGTH, SHOW_JSON, how_many, show

# Further beyond the tuned model a percentage is meant. assumption
MAX_SCALE = 2.0


@click.command()
@click.argument("base")
@click.argument("tuned")
@click.option("--plan", type=INPUT, help="Unit -> share of the change to keep.")
@click.option("--scale", type=float, help="One share for all weights; 0.7 is 70 % of the way.")
@click.option("--solve", is_flag=True, help="Choose the shares by --probes and --reference.")
@click.option("--out", required=True, type=INPUT, help="Folder to write.")
@click.option("--default-scale", type=float, help="With --plan: share where the plan says nothing.")
@click.option("--probes", type=INPUT, help="With --solve: JSONL of probes on what was learned.")
@click.option(
    "--reference",
    type=INPUT,
    help="With --solve: text to keep, JSONL with 'text' or .txt. Default: the shipped passages.",
)
@click.option(
    "--keep", default=0.95, show_default=True, help="With --solve: share of the uptake to keep."
)
@click.option(
    "--granularity",
    type=click.Choice(["sublayer", "block"]),
    default="sublayer",
    show_default=True,
    help="With --solve: attention and MLP apart, or whole blocks.",
)
@how_many("--n-probes", "Probes solved on, and measured on.")
@how_many("--n-reference", "Texts solved on, and measured on.")
@MAX_LENGTH
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="With --solve: type in which the base is loaded to solve.",
)
@click.option("--seed", default=0, show_default=True)
@SHOW_JSON
def merge(
    base,
    tuned,
    plan,
    scale,
    solve,
    out,
    default_scale,
    probes,
    reference,
    dtype,
    as_json,
    **options,
) -> None:
    """Keep a part of a TUNED checkpoint's change to its BASE: a checkpoint folder.

    \b
      gradloc merge BASE TUNED --plan plan.json --out merged
      gradloc merge BASE TUNED --scale 0.7 --out merged
      gradloc merge BASE TUNED --solve --probes probes.jsonl --keep 0.95 --out merged

    A plan says how much of each layer's change is kept: 1 all of it, 0 nothing. --solve finds
    the plan that keeps the uptake on the probes and disturbs the reference text least; it loads
    the model, and writes merge.json beside the weights. Probes with split 'evaluation' are not
    looked at.

    Folders are merged tensor by tensor, in a few hundred MiB. A BASE or TUNED that is a hub id,
    a .gguf file, an adapter or smollm2-135m-instruct is loaded whole.
    """
    given = [name for name, value in (("plan", plan), ("scale", scale)) if value is not None]
    given += ["solve"] if solve else []
    if len(given) != 1:
        found = " and ".join(f"--{name}" for name in given) or "none of them"
        raise click.UsageError(f"give one of --plan, --scale and --solve; found {found}.")
    for name, value in (("scale", scale), ("default-scale", default_scale)):
        if value is not None and value > MAX_SCALE:
            raise click.UsageError(
                f"--{name} {value:g} goes {value:g} times as far as TUNED, and {MAX_SCALE:g} is "
                f"the most; for {value:g} % write {value / 100:g}."
            )
    if solve != (probes is not None):
        raise click.UsageError("--solve needs --probes, and --probes belongs to --solve.")
    from gradloc.training.merging.streaming import merge_checkpoints

    if not solve:
        chosen = scale if plan is None else plan
        merge_checkpoints(base, tuned, chosen, out, default_scale=default_scale)
        show(as_json, lambda: {"checkpoint": str(out)}, [], out)
        return
    from gradloc.training.merging.table import solution_table

    solution = _solve(base, tuned, probes, reference, dtype, out, options)
    show(as_json, solution.to_dict, [solution_table(solution)], out)


def _solve(base, tuned, probes, reference, dtype, out: Path, options):
    from gradloc.data.probes import load_probes
    from gradloc.localization.probe_profile import reference_texts
    from gradloc.models import load_model, load_tokenizer
    from gradloc.training.merging.folders import weights_folder
    from gradloc.training.merging.solving import solve_merge
    from gradloc.training.merging.streaming import MERGE_FILE, merge_checkpoints, refuse_used

    refuse_used(out)
    probe_set, texts = load_probes(probes), reference_texts(reference)
    with weights_folder(tuned, out.parent, tokenizer=True) as folder:
        solution = solve_merge(
            load_model(base, dtype=dtype),
            folder,
            probe_set,
            texts,
            load_tokenizer(base),
            **options,
        )
        merge_checkpoints(base, folder, solution.plan, out)
    solution.save(out / MERGE_FILE)
    return solution
