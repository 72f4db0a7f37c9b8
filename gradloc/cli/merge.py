"""The command ``gradloc merge``. Heavy imports happen inside."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from gradloc.cli.options import Json, show
from gradloc.errors import GradlocError

# Further beyond the tuned model a percentage is meant. assumption
MAX_SCALE = 2.0


def merge(
    base: Annotated[str, Positional, arg(metavar="BASE")],
    tuned: Annotated[str, Positional, arg(metavar="TUNED")],
    *,
    out: Path,
    plan: Path | None = None,
    interpolation: float | None = None,
    default_scale: float | None = None,
    as_json: Json = False,
) -> None:
    """Keep a part of a TUNED checkpoint's change to its BASE: a checkpoint folder.

    Give --interpolation or --plan:
      gradloc merge BASE TUNED --interpolation 0.75 --out merged
      gradloc merge BASE TUNED --plan plan.json --out merged

    A plan says how much of each layer's change is kept: 1 all of it, 0 nothing.

    Folders are merged tensor by tensor, in 2 to 3 GiB however large they are. A BASE or TUNED
    that is a hub id, a .gguf file, an adapter or smollm2-135m-instruct is loaded whole.

    Args:
        base: Model before the tuning; gradloc --help says what it may be.
        tuned: Model after it.
        plan: Unit -> share of the change to keep.
        interpolation: Share of every weight's change: 0 is BASE, 1 is TUNED.
        out: Folder to write.
        default_scale: With --plan: share where the plan says nothing.
    """
    if (plan is None) == (interpolation is None):
        found = "neither" if plan is None else "both"
        raise GradlocError(f"give one of --interpolation and --plan; found {found}.")
    for name, value in (("interpolation", interpolation), ("default-scale", default_scale)):
        if value is not None and value > MAX_SCALE:
            raise GradlocError(
                f"--{name} {value:g} goes {value:g} times as far as TUNED, and {MAX_SCALE:g} is "
                f"the most; for {value:g} % write {value / 100:g}."
            )
    from gradloc.training.merging import merge_checkpoints

    scales = plan or interpolation
    assert scales is not None  # one of them is given
    merge_checkpoints(base, tuned, scales, out, default_scale=default_scale)
    show(as_json, lambda: {"checkpoint": str(out)}, [], out)
