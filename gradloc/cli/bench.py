"""The command ``gradloc bench``. Heavy imports happen inside."""

from functools import partial
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from gradloc.cli.options import Json, fields_of, refuse_overwrite, show
from gradloc.experiments.bench_config import BenchConfig


def bench(
    config: Annotated[BenchConfig, fields_of(BenchConfig, positional="model")],
    *,
    plan_path: Annotated[Path, arg(name="plan")],
    out: Path = Path("bench.json"),
    force: bool = False,
    as_json: Json = False,
) -> None:
    """Measure what a plan saves on this machine: step time and peak memory against full training.

    Full training, the plan, and the plan with a prefix cache are timed in turns, as ordinary
    Trainers on random tokens; each one's memory is measured in a process of its own. A model of
    135M parameters takes about five minutes on two cores. Let the machine do nothing else.

    Args:
        plan_path: A plan.json of yours.
        out: Result file.
        force: Overwrite the result file.
    """
    from gradloc.experiments.bench import bench_table, plan_arms, run_bench
    from gradloc.localization.plan import LayerPlan
    from gradloc.utils.io import write_json

    refuse_overwrite(out, force)
    result = run_bench(partial(plan_arms, LayerPlan.load(plan_path)), config)
    write_json(out, result)
    show(as_json, lambda: result, [bench_table(result)], out)
