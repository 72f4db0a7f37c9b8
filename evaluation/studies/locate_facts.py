"""Where in a model the gradients of new, updated and known facts are large, as a table and JSON.

    python evaluation/studies/locate_facts.py smollm2-135m-instruct --recipe quickstart \
        --max-length 96
    python evaluation/studies/locate_facts.py MODEL --probes probes.jsonl --reference text.jsonl
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from localization.analysis import analyse_localization
from localization.tables import localization_tables
from rich.console import Console

from gradloc import load_probes
from gradloc.data.corpora.readers import read_corpus
from gradloc.data.preparation import build_probes
from gradloc.experiments.recipes import load_recipe
from gradloc.localization.probe_profile import recipe_reference, reference_texts
from gradloc.models import load_model, load_tokenizer
from gradloc.utils.io import write_json


def main(arguments: Sequence[str]) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--probes", type=Path, help="JSONL: new or updated, and invariant facts")
    source.add_argument("--recipe", help="take its probes and its reference text")
    parser.add_argument("--reference", type=Path, help="ordinary text; default: shipped passages")
    parser.add_argument("--n", type=int, default=24, help="probes a group, and texts, at most")
    parser.add_argument("--max-length", type=int, default=128, help="tokens a sequence at most")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("localization.json"))
    options = parser.parse_args(arguments)
    if options.out.exists():
        parser.error(f"{options.out} exists; choose another --out")
    if options.recipe:
        recipe = load_recipe(options.recipe)
        corpus = read_corpus(recipe.corpus, seed=recipe.seed)
        probes, texts = build_probes(recipe, corpus), recipe_reference(recipe, corpus)
    else:
        probes, texts = load_probes(options.probes), reference_texts(options.reference)
    analysis = analyse_localization(
        load_model(options.model, dtype=options.dtype),
        load_tokenizer(options.model),
        probes,
        texts,
        n=options.n,
        max_length=options.max_length,
        seed=options.seed,
    )
    write_json(options.out, analysis.to_dict())
    console = Console(width=160)
    for table in localization_tables(analysis):
        console.print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
