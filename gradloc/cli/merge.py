"""The command ``gradloc merge``. Heavy imports happen inside."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from tyro.conf import Positional, arg

from gradloc.cli.options import Count, Dtype, Json, show
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
    solve: bool = False,
    default_scale: float | None = None,
    probes: Path | None = None,
    reference: Path | None = None,
    min_uptake: float = 0.95,
    granularity: Literal["sublayer", "block"] = "sublayer",
    n_probes: Count = 24,
    n_reference: Count = 24,
    max_length: Annotated[int, Field(ge=2)] = 128,
    dtype: Dtype = "float32",
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Keep a part of a TUNED checkpoint's change to its BASE: a checkpoint folder.

    Give one of --interpolation, --plan and --solve:
      gradloc merge BASE TUNED --plan plan.json --out merged
      gradloc merge BASE TUNED --interpolation 0.75 --out merged
      gradloc merge BASE TUNED --solve --probes probes.jsonl --out merged

    A plan says how much of each layer's change is kept: 1 all of it, 0 nothing. --solve finds
    the plan that keeps the uptake on the probes and disturbs the reference text least; it loads
    the model, and writes merge.json beside the weights. Probes with split 'evaluation' are not
    looked at.

    Folders are merged tensor by tensor, in a few hundred MiB. A BASE or TUNED that is a hub id,
    a .gguf file, an adapter or smollm2-135m-instruct is loaded whole.

    Args:
        base: Model before the tuning; gradloc --help says what it may be.
        tuned: Model after it.
        plan: Unit -> share of the change to keep.
        interpolation: Share of every weight's change: 0 is BASE, 1 is TUNED.
        solve: Choose the shares by --probes and --reference.
        out: Folder to write.
        default_scale: With --plan: share where the plan says nothing.
        probes: With --solve: JSONL of probes on what was learned.
        reference: With --solve: text to keep, JSONL with 'text' or .txt. Default: the shipped
            passages.
        min_uptake: With --solve: share of the uptake to keep at least.
        granularity: With --solve: attention and MLP apart, or whole blocks.
        n_probes: Probes solved on, and measured on.
        n_reference: Texts solved on, and measured on.
        max_length: Tokens a sequence at most.
        dtype: With --solve: type in which the base is loaded to solve.
        seed: Seed of the draw.
    """
    chosen = interpolation if plan is None else plan
    asked = {"plan": plan is not None, "interpolation": interpolation is not None, "solve": solve}
    given = [name for name, is_given in asked.items() if is_given]
    if len(given) != 1:
        found = " and ".join(f"--{name}" for name in given) or "none of them"
        raise GradlocError(f"give one of --interpolation, --plan and --solve; found {found}.")
    for name, value in (("interpolation", interpolation), ("default-scale", default_scale)):
        if value is not None and value > MAX_SCALE:
            raise GradlocError(
                f"--{name} {value:g} goes {value:g} times as far as TUNED, and {MAX_SCALE:g} is "
                f"the most; for {value:g} % write {value / 100:g}."
            )
    if solve != (probes is not None):
        raise GradlocError("--solve needs --probes, and --probes belongs to --solve.")
    from gradloc.training.merging.streaming import merge_checkpoints

    if chosen is not None:
        merge_checkpoints(base, tuned, chosen, out, default_scale=default_scale)
        show(as_json, lambda: {"checkpoint": str(out)}, [], out)
        return
    from gradloc.cli.terminal import solution_table

    options = {
        "min_uptake": min_uptake,
        "granularity": granularity,
        "n_probes": n_probes,
        "n_reference": n_reference,
        "max_length": max_length,
        "seed": seed,
    }
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
