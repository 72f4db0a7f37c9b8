"""The command ``gradloc bench``.

Comes in: arguments. Goes out: a table on the terminal or JSON, ``bench.json`` and its picture.
Heavy imports happen inside the command.
"""

import contextlib
import tempfile

import click

from gradloc.cli.commands import INPUT, SHOW_JSON, refuse_overwrite, show

QUICK_ROTATIONS = 3


@click.command()
@click.argument("model")
@click.option(
    "--arms",
    metavar="A,B,...",
    help="Arms to compare, with commas between; `full` is always there. Names: full, full_bf16, "
    "top4, middle4, scattered4, bottom4 (whole blocks, as many as --k says), top4_cached, "
    "top4_cached_bf16, top4_cached_bf16_frozen (prefix and head alone), middle4_cached, ten_mlps, "
    "ten_mlps_projected, plan, plan_cached, plan_projected (these with --plan), lora_r16, masking, "
    "lisa (with ms-swift), badam (with badam), callback_overhead. Default: all that can "
    "run but middle4_cached and callback_overhead, and those in bfloat16 where the "
    "processor has no instructions for it.",
)
@click.option("--plan", "plan_path", type=INPUT, help="A plan.json of yours, as arms of its own.")
@click.option("--k", default=4, show_default=True, help="Whole blocks that block arms train.")
@click.option("--batch-size", default=8, show_default=True, help="Sequences a step.")
@click.option("--sequence-length", default=128, show_default=True, help="Tokens a sequence.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Type of the weights in all arms. Arms named _bf16 have float32 weights and compute in "
    "bfloat16 autocast, as TrainingArguments(bf16=True) does.",
)
@click.option("--rotations", type=int, help="Turns of every arm.  [default: 5; 3 with --quick]")
@click.option("--steps", default=3, show_default=True, help="Timed steps of an arm in each turn.")
@click.option(
    "--memory-repeats",
    type=click.IntRange(min=0),
    help="Processes in which each arm's peak memory is measured; 0 leaves it out.  "
    "[default: 2; 1 with --quick]",
)
@click.option(
    "--quick",
    is_flag=True,
    help="A first look in two to three minutes: full training, top blocks plain and cached, LoRA.",
)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=INPUT, default="bench.json", show_default=True, help="Result file.")
@click.option("--force", is_flag=True, help="Overwrite the result file.")
@SHOW_JSON
def bench(model, arms, plan_path, quick, out, force, as_json, **options) -> None:
    """Measure what plans save on this machine: time and peak memory against full training.

    Every arm is an ordinary Trainer on random tokens. All are timed in one process, in turns;
    each arm's memory is measured in a process of its own. MODEL is as for the other commands.
    A model of 135M parameters takes about 15 minutes on two cores, with --quick two to three. Let
    the machine do nothing else meanwhile.

    Writes the result file, and its picture beside it as .svg and .png.
    """
    from tqdm import tqdm

    from gradloc.experiments.bench.benchmark import run_bench
    from gradloc.experiments.bench.picture import write_picture
    from gradloc.experiments.bench.settings import BenchSettings
    from gradloc.experiments.bench.table import bench_table
    from gradloc.localization.plan import LayerPlan
    from gradloc.utils.io import write_json

    refuse_overwrite(out, force)
    names = tuple(name.strip() for name in (arms or "").split(",") if name.strip())
    k = options["k"]
    defaults = {"rotations": 5, "memory_repeats": 2}
    if quick:
        names = names or ("full", f"top{k}", f"top{k}_cached", "lora_r16")
        names += ("plan",) * (plan_path is not None and "plan" not in names)
        defaults = {"rotations": QUICK_ROTATIONS, "memory_repeats": 1}
    options = {**options, **{n: v for n, v in defaults.items() if options[n] is None}}
    plan = LayerPlan.load(plan_path).to_dict() if plan_path is not None else None
    bar = None
    with (
        tempfile.TemporaryDirectory(prefix="gradloc-bench-") as folder,
        contextlib.ExitStack() as stack,
    ):

        def begin(n_runs, table):
            # Not before: what cannot be run at all is an error without a bar in front of it.
            nonlocal bar
            bar = stack.enter_context(tqdm(desc="bench", total=n_runs, unit="run", leave=False))

        def after_run(name):
            bar.set_description(f"bench {name}")
            bar.update()

        settings = BenchSettings(model, folder, names, plan=plan, **options)
        result = run_bench(settings, begin=begin, after_run=after_run)
    write_json(out, result)
    write_picture(result, out)
    show(as_json, lambda: result, bench_table(result), out)
