"""The model card of a checkpoint: what it is, how it was made, what it learned and lost."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult as HubResult
from huggingface_hub import ModelCard, ModelCardData

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

# Packaged models: the hub's name of the same weights, and their licence.
_PACKAGED = {"smollm2-135m-instruct": ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0", "en")}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class _Base:
    """What a card may say of the base model; ``None`` where it is not known."""

    hub_id: str | None
    licence: str | None
    language: str | None


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
    base = _base(base_model)
    card_data = ModelCardData(
        model_name=name,
        base_model=base.hub_id,
        library_name="transformers",
        license=base.licence,
        language=base.language,
        pipeline_tag="text-generation",
        tags=TAGS,
        eval_results=_hub_results(result, recipe),
    )
    sections = [
        f"# {name}",
        _what_it_is(base_model, base, plan),
        "## Method",
        _pairs("Setting", plan_words(plan)),
        "## Data",
        _data(recipe),
        "## Training",
        _training(training),
        *(["## Results", _results(result)] if result else []),
        "## How to load it",
        _loading(),
        "## Recipe",
        _fenced(recipe_text.strip(), "yaml"),
    ]
    body = "\n\n".join(sections)
    card = ModelCard(f"---\n{card_data.to_yaml()}\n---\n\n{body}\n")
    return write_text(folder / "README.md", str(card))


def _base(base_model: str) -> _Base:
    if base_model in _PACKAGED:
        return _Base(*_PACKAGED[base_model])
    is_hub_id = _HUB_ID.fullmatch(base_model) and not Path(base_model).exists()
    is_hub_id = is_hub_id and not base_model.endswith(".gguf")
    return _Base(base_model if is_hub_id else None, None, None)


def _hub_results(result: ArmResult | None, recipe: dict) -> list[HubResult] | None:
    """The checkpoint's own scores as the hub lists them."""
    if result is None:
        return None
    suite = str(recipe.get("name") or "gradloc")
    found = [
        HubResult(
            task_type="text-generation",
            dataset_type="gradloc",
            dataset_name=f"gradloc probes ({suite})",
            metric_type=key,
            metric_name=f"{metric_label(key)} ({figure.unit})",
            metric_value=round(figure.value, 6),
        )
        for key, figure in result.scores.items()
        if figure.value is not None
    ]
    return found or None


def _what_it_is(base_model: str, base: _Base, plan: LayerPlan) -> str:
    known = f"[{base.hub_id}](https://huggingface.co/{base.hub_id})"
    # A path would tell readers about somebody's disk and nothing about the model.
    shown = known if base.hub_id else f"`{Path(base_model).name}`"
    share = percent(plan.trainable_fraction) if plan.units else f"{len(plan.trained)} units"
    return (
        f"This is {shown}, pretrained further on newer text with gradloc: only the part of the "
        f"network where the new facts pull ({share} of its parameters) was trained, and the rest "
        "is bit for bit that of the base model."
        if plan.frozen
        else f"This is {shown}, pretrained further on newer text with gradloc. All of its "
        "parameters were trained."
    )


def _data(recipe: dict) -> str:
    corpus = recipe.get("corpus") or {}
    if not corpus:
        return "The recipe does not name its corpus."
    rows = [("Source", f"`{corpus.get('source', 'jsonl')}`")]
    # Names alone: a folder of somebody's machine helps no reader.
    rows += [("File", f"`{Path(str(path)).name}`") for path in corpus.get("paths") or ()]
    if corpus.get("cutoff"):
        rows.append(("Cut-off", f"{corpus['cutoff']}; the model was trained on text from then on"))
    return _pairs("Corpus", rows)


def _training(training: dict[str, Any]) -> str:
    known = {
        "learning_rate": ("Peak learning rate", learning_rate),
        "n_steps": ("Steps", lambda value: f"{value:,}"),
        "train_seconds": ("Time", duration),
        "peak_rss_mib": ("Peak memory", lambda value: f"{value:,.0f} MiB"),
        "trainable_fraction": ("Parameters trained", percent),
    }
    rows = [
        (label, write(training[key]))
        for key, (label, write) in known.items()
        if training.get(key) is not None
    ]
    if methods := training.get("methods"):
        rows.append(("Methods", arm_methods(methods)))
    return _pairs("Training", rows) if rows else "Nothing was recorded of the training."


def _results(result: ArmResult) -> str:
    """Gains, losses and the comparison with full training; plain scores without a baseline."""
    kinds = {"Gained": result.uptake, "Lost": result.forgetting, VERSUS: result.versus_full}
    if not any(kinds.values()):
        kinds = {"Score": result.scores}
    rows = [
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
    return (
        "Gained: on new and updated facts, higher is better. Lost: of what the base model had, "
        "lower is better. Against full training: forgetting is compared at equal uptake.\n\n"
        + markdown_table(make_table(["Kind", "Metric", "Value [95 % interval]", "Unit", "n"], rows))
    )


def _loading() -> str:
    code = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'path = "."  # this folder, or the name of this repository\n'
        "tokenizer = AutoTokenizer.from_pretrained(path)\n"
        "model = AutoModelForCausalLM.from_pretrained(path)"
    )
    return (
        f"{_fenced(code, 'python')}\n\nThe weights are ordinary ones: gradloc is not needed. "
        "`plan.json` says what was trained, `recipe.yaml` how."
    )


def _fenced(text: str, language: str) -> str:
    """A code block whose fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _pairs(head: str, rows: list[tuple[str, str]]) -> str:
    return markdown_table(make_table([head, "Value"], rows))
