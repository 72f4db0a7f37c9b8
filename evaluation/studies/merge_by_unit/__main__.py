"""Choose how much of each unit's change stays, so that the uptake is kept and least is disturbed.

    python -m evaluation.studies.merge_by_unit BASE TUNED --probes probes.jsonl --out solved

BASE is any model; TUNED a folder of safetensors weights. Writes ``plan.json``, for ``gradloc merge
BASE TUNED --plan``, and ``merge.json`` with what the solution was seen to do. Probes with split
``evaluation`` are not looked at.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from evaluation.studies.merge_by_unit.solving import solve_merge
from gradloc.data.probes import load_probes
from gradloc.localization.probe_profile import reference_texts
from gradloc.models import load_model, load_tokenizer


def main(arguments: Sequence[str]) -> None:
    """Solve, and write ``plan.json`` and ``merge.json`` into ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base")
    parser.add_argument("tuned", type=Path)
    parser.add_argument("--probes", type=Path, required=True, help="on what was learned")
    parser.add_argument("--reference", type=Path, help="texts to keep; default: shipped passages")
    parser.add_argument("--min-uptake", type=float, default=0.95, help="share of it to keep")
    parser.add_argument("--n-probes", type=int, default=24, help="solved on, and measured on")
    parser.add_argument("--n-reference", type=int, default=24, help="solved on, and measured on")
    parser.add_argument("--max-length", type=int, default=128, help="tokens a sequence at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = vars(parser.parse_args(arguments))
    base, tuned, out = (options.pop(name) for name in ("base", "tuned", "out"))
    probes, texts = load_probes(options.pop("probes")), reference_texts(options.pop("reference"))
    solution = solve_merge(load_model(base), tuned, probes, texts, load_tokenizer(base), **options)
    solution.plan.save(out / "plan.json")
    print(solution.save(out / "merge.json"))


if __name__ == "__main__":
    main(sys.argv[1:])
