"""The model card of a checkpoint: what it is, how it was made, what it learned and lost."""

import functools
import re
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult as HubResult
from huggingface_hub import ModelCardData

from gradloc.config.yaml_source import parse_yaml
from gradloc.evaluation.results import ArmResult
from gradloc.localization.plan import LayerPlan
from gradloc.report.formatting import arm_methods, duration, learning_rate, percent, unit_name
from gradloc.report.metric_names import metric_label
from gradloc.report.plan_tables import plan_words
from gradloc.report.result_tables import VERSUS, versus_label
from gradloc.report.table import figure_cell, make_table, markdown_table
from gradloc.utils.io import write_text

TAGS = ["gradloc", "continual-pretraining"]

# Packaged models: the hub's name of the same weights, their licence and language.
_PACKAGED = {"smollm2-135m-instruct": ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0", "en")}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def write_model_card(
    checkpoint_dir: str | Path,
    *,
    base_model: str,
    recipe_text: str,
    plan: LayerPlan,
    training: dict[str, Any],
    result: ArmResult | None,
) -> Path:
    """Write ``README.md`` of a checkpoint.

    Args:
        checkpoint_dir: Folder of the weights.
        base_model: The model that was trained further. Only a hub id is written to the front
            matter, since the hub refuses a card that points to a file of somebody's machine.
        recipe_text: The resolved recipe as YAML.
        plan: What was trained.
        training: The content of ``training.json``.
        result: What the checkpoint learned and lost, if it was evaluated.

    Returns:
        Path of the card.
    """
    folder = Path(checkpoint_dir)
    recipe = parse_yaml(recipe_text) or {}
    recipe = recipe if isinstance(recipe, dict) else {}
    arm = str(training.get("arm") or plan.policy or "trained")
    name = f"{recipe.get('name') or folder.resolve().name}-{arm}"
    is_hub_id = _HUB_ID.fullmatch(base_model) and not Path(base_model).exists()
    named = base_model if is_hub_id and not base_model.endswith(".gguf") else None
    hub_id, licence, language = _PACKAGED.get(base_model, (named, None, None))
    front_matter = ModelCardData(
        model_name=name,
        base_model=hub_id,
        library_name="transformers",
        license=licence,
        language=language,
        pipeline_tag="text-generation",
        tags=TAGS,
        eval_results=_hub_results(result, str(recipe.get("name") or "gradloc")),
    )
    # A fence that is longer than any run of backticks inside.
    longest = max(map(len, re.findall(r"`+", recipe_text)), default=0)
    text = _template().render(
        front_matter=front_matter.to_yaml(),
        name=name,
        # A path would tell readers about somebody's disk and nothing about the model.
        base=f"[{hub_id}](https://huggingface.co/{hub_id})"
        if hub_id
        else f"`{Path(base_model).name}`",
        plan=plan,
        share=f"{percent(plan.trainable_fraction)} of its parameters"
        if plan.units
        else f"{len(plan.trained)} units",
        method=plan_words(plan),
        data=_data_rows(recipe.get("corpus") or {}),
        training=_training_rows(training),
        results=_result_rows(result) if result else [],
        recipe=recipe_text.strip(),
        fence="`" * max(3, longest + 1),
    )
    return write_text(folder / "README.md", text)


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gradloc.report"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["table"] = lambda heads, rows: markdown_table(make_table(heads, rows))
    return environment.get_template("card.md.j2")


def _hub_results(result: ArmResult | None, suite: str) -> list[HubResult] | None:
    """The checkpoint's own scores as the hub lists them."""
    found = [
        HubResult(
            task_type="text-generation",
            dataset_type="gradloc",
            dataset_name=f"gradloc probes ({suite})",
            metric_type=key,
            metric_name=f"{metric_label(key)} ({figure.unit})",
            metric_value=round(figure.value, 6),
        )
        for key, figure in (result.scores.items() if result else ())
        if figure.value is not None
    ]
    return found or None


def _data_rows(corpus: dict[str, Any]) -> list[tuple[str, str]]:
    if not corpus:
        return []
    rows = [("Source", f"`{corpus.get('source', 'jsonl')}`")]
    # Names alone: a folder of somebody's machine helps no reader.
    rows += [("File", f"`{Path(str(path)).name}`") for path in corpus.get("paths") or ()]
    if corpus.get("cutoff"):
        rows.append(("Cut-off", f"{corpus['cutoff']}; the model was trained on text from then on"))
    return rows


def _training_rows(training: dict[str, Any]) -> list[tuple[str, str]]:
    known = {
        "learning_rate": ("Peak learning rate", learning_rate),
        "n_steps": ("Steps", "{:,}".format),
        "train_seconds": ("Time", duration),
        "peak_rss_mib": ("Peak memory", "{:,.0f} MiB".format),
        "trainable_fraction": ("Parameters trained", percent),
        "methods": ("Methods", arm_methods),
    }
    return [
        (label, write(training[key]))
        for key, (label, write) in known.items()
        if training.get(key) not in (None, {})
    ]


def _result_rows(result: ArmResult) -> list[list]:
    """Gains, losses and the comparison with full training; plain scores without a baseline."""
    kinds = {"Gained": result.uptake, "Lost": result.forgetting, VERSUS: result.versus_full}
    if not any(kinds.values()):
        kinds = {"Score": result.scores}
    return [
        [
            kind,
            versus_label(key) if kind == VERSUS else metric_label(key),
            figure_cell(figure),
            unit_name(figure.unit, difference=kind in ("Gained", "Lost")),
            figure.note or f"{figure.n:,}",
        ]
        for kind, figures in kinds.items()
        for key, figure in figures.items()
    ]
