"""Train with facts injected into ordinary text, and say how they were learned and forgotten.

    python -m evaluation.studies.acquisition run
    python -m evaluation.studies.acquisition analyze runs/acquisition

From the root of a clone. ``run`` takes 45 minutes on one thread.
"""

import argparse
import dataclasses
import functools
import sys
from pathlib import Path

import rich
from transformers import Trainer, TrainingArguments

from gradloc.config.recipe import Recipe
from gradloc.data.batches import collate, pad_token_id, training_rows
from gradloc.data.corpora.readers import read_corpus
from gradloc.data.probes import ProbeSet
from gradloc.errors import GradlocError
from gradloc.experiments.recipes import load_recipe
from gradloc.models import load_model, load_tokenizer
from gradloc.models.label_loss import score_labels_only
from gradloc.report.page import write_page
from gradloc.utils.io import write_json

from .analysis import analyse
from .injection import Fact, Injection, injected_rows, manual_texts, plan_injection
from .page import acquisition_page, acquisition_tables
from .recording import RECORD_FILE, AcquisitionCallback, AcquisitionRecord

RECIPE = Path(__file__).with_name("recipe.yaml")


def find_facts(recipe: Recipe, config: Injection) -> list[Fact]:
    """The facts of the recipe's corpus that are injected, and the controls."""
    corpus = read_corpus(recipe.corpus, seed=recipe.seed)
    fraction = recipe.probes.localization_fraction
    probes = ProbeSet(corpus.probes).split_by_entity(fraction, recipe.seed)
    return plan_injection(config, corpus.update, probes)


def train(recipe: Recipe, config: Injection, measure_every: int) -> AcquisitionRecord:
    """Train on the Python manual with the facts injected; the record is in the run's folder."""
    facts = find_facts(recipe, config)
    tokenizer, length = load_tokenizer(recipe.model), recipe.corpus.max_length
    arguments = TrainingArguments(
        output_dir=str(recipe.run_dir),
        seed=recipe.seed,
        save_strategy="no",
        report_to="none",
        # The rows lie in the order of the updates.
        train_sampling_strategy="sequential",
        **recipe.training,
    )
    packed = training_rows(tokenizer, manual_texts(), max_length=length, packing=True)
    rows = injected_rows(
        facts,
        # A passage needs a whole row; the rest at the end is left out.
        [row for row in packed if len(row["input_ids"]) == length],
        tokenizer,
        n_steps=arguments.max_steps,
        per_step=arguments.train_batch_size * arguments.gradient_accumulation_steps,
        seed=recipe.seed,
    )
    injected = [fact for fact in facts if fact.scenario]
    recorder = AcquisitionCallback(
        [probe for fact in facts for probe in fact.probes],
        tokenizer,
        measure_every,
        exposures={fact.entity: fact.steps for fact in injected},
        scenarios={fact.entity: fact.scenario for fact in injected},
    )
    model = load_model(recipe.model, dtype=recipe.dtype)
    score_labels_only(model)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=functools.partial(collate, pad_token_id=pad_token_id(tokenizer)),
        callbacks=[recorder],
    )
    trainer.train()
    return recorder.record


def analyze(folder: Path, window: int | None = None, against_control: bool = False) -> None:
    """Print the tables; write ``acquisition_analysis.json`` and the page beside the record."""
    record = AcquisitionRecord.load(folder / RECORD_FILE)
    found = analyse(record, window=window, against_control=against_control)
    write_json(folder / "acquisition_analysis.json", found.to_dict())
    for table in acquisition_tables(found):
        rich.print(table)
    print(write_page(acquisition_page(found, folder.name), folder / "acquisition.html"))


def main(words: list[str] | None = None) -> None:
    """Read the arguments and do what they say."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.studies.acquisition", description=__doc__.split("\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train, record, analyze")
    run.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="keys of recipe.yaml")
    for field in dataclasses.fields(Injection):
        name = f"--{field.name.replace('_', '-')}"
        run.add_argument(name, type=int, default=field.default, help="default: %(default)s")
    run.add_argument("--measure-every", type=int, default=8, help="steps; default: %(default)s")
    again = commands.add_parser("analyze", help="analyze a record once more")
    again.add_argument("folder", type=Path, help=f"holds {RECORD_FILE}")
    again.add_argument("--window", type=int, help="steps after an exposure that its effect takes")
    again.add_argument(
        "--against-control", action="store_true", help="subtract what the controls gained"
    )
    given = vars(parser.parse_args(words))
    try:
        if given.pop("command") == "analyze":
            analyze(**given)
        else:
            recipe = load_recipe(RECIPE, given.pop("overrides"))
            measure_every = given.pop("measure_every")
            train(recipe, Injection(**given), measure_every)
            analyze(recipe.run_dir)
    except GradlocError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
