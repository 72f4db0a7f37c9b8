"""What a training method sees of a training, and the hooks by which it changes it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn
from transformers import TrainerCallback, TrainingArguments

from gradloc.data.probes import Probe
from gradloc.localization.plan import LayerPlan

# Types of options, with the bounds that ``method_table.build_method`` checks.
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]

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
        reference: Anchor texts: text from before the cut-off, whose behaviour should stay.
        facts: Probes that may be trained with: localisation probes with their old answers. None
            of them is used in evaluation.
        dataset: What the Trainer trains on; ``None`` until all rows are made.
        max_length: Tokens a row at most.
        prepared: What methods keep from one hook to a later one, by a name of their own.
        seed: Seed of what is drawn; ``None``: that of the arguments.
        progress: Show a progress bar of what is prepared; ``None``: when on a terminal.
    """

    model: nn.Module
    tokenizer: Any
    plan: LayerPlan
    arguments: TrainingArguments
    reference: Sequence[str] = ()
    facts: Sequence[Probe] = ()
    dataset: Any = None
    max_length: int = 128
    prepared: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    progress: bool | None = None

    @property
    def draw_seed(self) -> int:
        """Seed of what is drawn."""
        return self.arguments.seed if self.seed is None else self.seed


class Method:
    """A training method; each of its hooks does nothing unless overridden.

    A subclass is a frozen dataclass whose fields are the options that a recipe may give; bounds
    are pydantic ``Field``s. Hooks are called once a training, in this order.
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
        """The model to save: an ordinary one, adapters merged."""
        return model
