"""The command ``gradloc bench``. Heavy imports happen inside."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from gradloc.cli.options import Dtype, Json, refuse_overwrite, show


def bench(
    model: Annotated[str, Positional, arg(metavar="MODEL")],
    *,
    plan_path: Annotated[Path, arg(name="plan")],
    batch_size: int = 8,
    sequence_length: int = 128,
    dtype: Dtype = "float32",
    turns: int = 5,
    steps: int = 3,
    memory_repeats: int = 2,
    seed: int = 0,
    out: Path = Path("bench.json"),
    force: bool = False,
    as_json: Json = False,
) -> None:
    """Measure what a plan saves on this machine: step time and peak memory against full training.

    Full training, the plan, and the plan with a prefix cache are timed in turns, as ordinary
    Trainers on random tokens; each one's memory is measured in a process of its own. A model of
    135M parameters takes about five minutes on two cores. Let the machine do nothing else.

    Args:
        model: Model to train; gradloc --help says what it may be.
        plan_path: A plan.json of yours.
        batch_size: Sequences a step.
        sequence_length: Tokens a sequence.
        dtype: Type of the weights.
        turns: Turns; intervals are over these.
        steps: Timed steps of an arm in each turn.
        memory_repeats: How often each arm's peak memory is measured; 0 leaves it out.
        seed: Seed of the tokens and of the order of the arms.
        out: Result file.
        force: Overwrite the result file.
    """
    from gradloc.experiments.bench import bench_plan, bench_table
    from gradloc.experiments.bench_arms import BenchConfig
    from gradloc.localization.plan import LayerPlan
    from gradloc.utils.io import write_json

    refuse_overwrite(out, force)
    config = BenchConfig(
        model,
        batch_size=batch_size,
        sequence_length=sequence_length,
        dtype=dtype,
        turns=turns,
        steps=steps,
        memory_repeats=memory_repeats,
        seed=seed,
    )
    result = bench_plan(LayerPlan.load(plan_path), config)
    write_json(out, result)
    show(as_json, lambda: result, [bench_table(result)], out)
