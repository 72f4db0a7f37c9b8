"""The command ``gradloc bench``."""

import click

from gradloc.cli.commands import INPUT, SHOW_JSON, refuse_overwrite, show


@click.command()
@click.argument("model")
@click.option("--plan", "plan_path", type=INPUT, required=True, help="A plan.json of yours.")
@click.option("--batch-size", default=8, show_default=True, help="Sequences a step.")
@click.option("--sequence-length", default=128, show_default=True, help="Tokens a sequence.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Type of the weights.",
)
@click.option("--turns", default=5, show_default=True, help="Turns; intervals are over these.")
@click.option("--steps", default=3, show_default=True, help="Timed steps of an arm in each turn.")
@click.option(
    "--memory-repeats",
    default=2,
    show_default=True,
    help="How often each arm's peak memory is measured; 0 leaves it out.",
)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=INPUT, default="bench.json", show_default=True, help="Result file.")
@click.option("--force", is_flag=True, help="Overwrite the result file.")
@SHOW_JSON
def bench(model, plan_path, out, force, as_json, **options) -> None:
    """Measure what a plan saves on this machine: step time and peak memory against full training.

    Full training, the plan, and the plan with a prefix cache are timed in turns, as ordinary
    Trainers on random tokens; each one's memory is measured in a process of its own. A model of
    135M parameters takes about five minutes on two cores. Let the machine do nothing else.
    """
    from gradloc.experiments.bench import bench_plan, bench_table
    from gradloc.experiments.bench_arms import BenchConfig
    from gradloc.localization.plan import LayerPlan
    from gradloc.utils.io import write_json

    refuse_overwrite(out, force)
    result = bench_plan(LayerPlan.load(plan_path), BenchConfig(model, **options))
    write_json(out, result)
    show(as_json, lambda: result, [bench_table(result)], out)
