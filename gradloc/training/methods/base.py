"""What a training method may change, and nothing else it may.

Comes in: the context of one training. Goes out: for each method, what it changes of the data, the
model, the loss or the steps. A method composes with any plan and, as far as its hooks allow, with
any other method. It knows no recipe and builds no Trainer (``gradloc.experiments.train`` does).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import TrainerCallback, TrainingArguments

from gradloc.data.probes import Probe
from gradloc.localization.plan import LayerPlan

# Token rows, as the Trainer takes them: ``input_ids``, ``attention_mask`` and ``labels``.
Rows = list[dict[str, Any]]
# (model, inputs of one batch) -> loss of the batch, in nats.
Loss = Callable[[nn.Module, dict[str, Tensor]], Tensor]


@dataclass
class TrainContext:
    """One training, as far as a method may see it.

    Args:
        model: The model that will be trained, base weights loaded.
        tokenizer: Its fast tokenizer.
        plan: Which units train.
        arguments: Arguments of the Trainer; ``seed`` among them.
        reference: Texts whose behaviour is to be kept (text of before the cut-off).
        new_texts: The documents that are trained on, the first ones where they are streamed.
        facts: Probes that may be trained with: localisation probes with their old answers. None
            of them judges.
        max_length: Tokens a row at most.
        work_dir: A folder of this training for what a method wants to keep.
    """

    model: nn.Module
    tokenizer: Any
    plan: LayerPlan
    arguments: TrainingArguments
    reference: Sequence[str] = ()
    new_texts: Sequence[str] = ()
    facts: Sequence[Probe] = ()
    max_length: int = 128
    work_dir: Path = field(default_factory=Path)


class Method:
    """A training method; each of its hooks does nothing unless overridden.

    A subclass is a frozen dataclass whose fields are the options that a recipe may give. The
    hooks are called in the order in which they stand here, each once a training.
    """

    def check(self) -> None:
        """Refuse options that cannot work.

        Raises:
            MethodError: An option is out of range.
        """

    def training_arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        """``TrainingArguments`` by name, from those that the recipe gives."""
        return given

    def prepare(self, context: TrainContext) -> None:
        """Change the weights before training, or compute what the loss will need."""

    def rows(self, rows: Rows, context: TrainContext) -> Rows:
        """The rows to train on, from those of the update documents."""
        return rows

    def wrap(self, model: nn.Module, context: TrainContext) -> nn.Module:
        """The model that the Trainer gets, such as one with adapters."""
        return model

    def callbacks(self, context: TrainContext) -> list[TrainerCallback]:
        """Callbacks for the Trainer."""
        return []

    def loss(self, context: TrainContext) -> Loss | None:
        """A loss in place of the model's own; at most one method of a training has one."""
        return None

    def finish(self, model: nn.Module, context: TrainContext) -> nn.Module:
        """The model to save: an ordinary one, adapters merged, averages put in place."""
        return model
