"""The command ``gradloc evaluate``. Heavy imports happen inside."""

import sys
from pathlib import Path
from typing import Annotated

from pydantic import Field
from tyro.conf import Positional, arg

from gradloc.cli.options import Dtype, Json, comma_list, refuse_overwrite, show
from gradloc.errors import GradlocError


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
