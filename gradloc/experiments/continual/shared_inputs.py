"""What all arms of continual training share.

<output_dir>/<name>/recipe.yaml       the recipe, with every arm that has been run
<output_dir>/<name>/documents.jsonl   all documents but the evaluation items, dated
<output_dir>/<name>/probes.jsonl      all probes
<output_dir>/<name>/periods.json      the stages, and what was left out; written last
<output_dir>/<name>/profile.json      gradients of the base model on the first stage's probes
<output_dir>/<name>/base_scores.json  scores of the base model on all items
"""

from dataclasses import dataclass
from pathlib import Path

from gradloc.config.recipe import Recipe
from gradloc.data.probes import Probe, ProbeSet
from gradloc.experiments.continual.periods import Period

RECIPE_FILE = "recipe.yaml"
PROBES_FILE = "probes.jsonl"
PERIODS_FILE = "periods.json"
BASE_SCORES_FILE = "base_scores.json"


@dataclass(frozen=True)
class Division:
    """How continual training divides time, and when it measures.

    Args:
        by: ``month``, ``quarter`` or ``year``: one stage each.
        first: First period, such as ``2025-03``; empty: that of the recipe's cut-off.
        last: Last period; empty: that of the last document.
        measure: ``each``: the plan of every stage is measured anew, on the stage's own probes with
            its model; ``once``: all stages take the plan of the first.
    """

    by: str = "month"
    first: str = ""
    last: str = ""
    measure: str = "each"


@dataclass(frozen=True)
class SharedInputs:
    """What every arm begins with.

    Args:
        recipe: The recipe.
        division: How time is divided.
        periods: All periods from the first to the last.
        stages: Those that are trained on, in order.
        probes: All probes; those that choose layers are dated, or serve in every stage.
        notes: What was left out, and why.
    """

    recipe: Recipe
    division: Division
    periods: tuple[Period, ...]
    stages: tuple[Period, ...]
    probes: ProbeSet
    notes: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Folder of the training."""
        return self.recipe.run_dir

    def stage_probes(self, stage: Period) -> ProbeSet:
        """The probes of a stage: every evaluation probe, and what may choose its layers.

        Evaluation probes of all periods are there because they say which documents are left out
        of training.
        """
        judged = [probe for probe in self.probes if probe.split == "evaluation"]
        local = [probe for probe in self.probes if chooses_layers_of(probe, stage)]
        return ProbeSet((*judged, *local[: self.recipe.probes.max_localization]))


def chooses_layers_of(probe: Probe, stage: Period) -> bool:
    """Whether a probe may choose the layers of a stage: dated in it, or without a date."""
    return probe.split == "localization" and (not probe.date or stage.holds(probe.date))
