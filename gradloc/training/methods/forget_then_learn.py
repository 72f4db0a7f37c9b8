"""F-Learning: take the old facts out of the weights before the new ones are learned."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradloc.data.batches import collate, pad_token_id, training_rows
from gradloc.data.probes import Probe
from gradloc.errors import MethodError
from gradloc.models.wrappers import training_mode
from gradloc.training.freezing import check_trains_something, freeze_layers, scale_learning_rates
from gradloc.training.methods.base import Count, Method, Positive, Rows, TrainContext


@dataclass(frozen=True)
class ForgetThenLearn(Method):
    """theta' = theta - rate * (FT(theta, old facts) - theta), then train as usual from theta'.

    FT is a short training with AdamW (no weight decay, constant learning rate) on sentences with
    the old answers, all tokens counting. It trains what the plan trains, with the plan's
    learning-rate scales, so nothing else changes.

    Args:
        rate: How much of the change is subtracted, > 0.
        old_steps: Steps of the training on the old facts.
        learning_rate: Its learning rate; ``None``: that of the training.
        batch_size: Sentences a step.

    References: Ni et al. 2024, arXiv:2311.08011, section 3. Its rates for the subtraction were
        tuned for each model and data set; 0.3 is an assumption.
    """

    rate: Positive = 0.3
    old_steps: Count = 20
    learning_rate: Positive | None = None
    batch_size: Count = 8

    def prepare(self, context: TrainContext) -> None:
        """Fine-tune on the old facts, then step the other way.

        Raises:
            MethodError: No probe knows an old answer.
            SelectionError: The plan trains nothing.
        """
        check_trains_something(context.plan)
        texts, length = old_sentences(context.facts), context.max_length
        rows = list(training_rows(context.tokenizer, texts, max_length=length, packing=False))
        model = context.model.to(context.arguments.device)
        with freeze_layers(model, context.plan) as frozen:
            trained = [p for p in model.parameters() if p.requires_grad]
            start = [p.detach().clone() for p in trained]
            rate = self.learning_rate or context.arguments.learning_rate
            optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
            scale_learning_rates(optimizer, frozen.learning_rate_scales)
            with training_mode(model):
                self._fine_tune(model, rows, optimizer, context)
            for parameter, before in zip(trained, start, strict=True):
                parameter.grad = None
                parameter.data.copy_(subtract_change(before, parameter.data, self.rate))

    def _fine_tune(
        self, model: nn.Module, rows: Rows, optimizer: torch.optim.Optimizer, context: TrainContext
    ) -> None:
        arguments, order = context.arguments, random.Random(context.arguments.seed)
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        left: Rows = []
        torch.manual_seed(arguments.seed)  # dropout
        for _ in range(self.old_steps):
            while len(left) < min(self.batch_size, len(rows)):
                left += order.sample(rows, len(rows))
            chosen, left = left[: self.batch_size], left[self.batch_size :]
            batch = collate(chosen, pad_token_id(context.tokenizer))
            batch = {name: part.to(arguments.device) for name, part in batch.items()}
            model(**batch, use_cache=False).loss.backward()
            if arguments.max_grad_norm:
                nn.utils.clip_grad_norm_(trained, arguments.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()


def old_sentences(probes: Sequence[Probe]) -> list[str]:
    """Prompt, old answer and suffix of each probe that knows one.

    Raises:
        MethodError: No probe knows one.
    """
    texts = [probe.text(probe.old_targets[0])[0] for probe in probes if probe.old_targets]
    if not texts:
        raise MethodError(
            f"f_learning: none of the {len(probes)} localisation probes has old answers, so there "
            "is nothing to forget. Give probes of the group 'updated' with 'old_targets', or "
            "train this arm without f_learning."
        )
    return texts


def subtract_change(start: Tensor, tuned: Tensor, rate: float) -> Tensor:
    """start - rate * (tuned - start), computed in float32, in the dtype of ``start``.

    Example:
        >>> subtract_change(torch.tensor([1.0]), torch.tensor([1.5]), 0.3)
        tensor([0.8500])

    References: Ni et al. 2024, arXiv:2311.08011, equations 2 and 3; the negated task vector of
        Ilharco et al. 2022, arXiv:2212.04089.
    """
    return (start.float() - rate * (tuned.float() - start.float())).to(start.dtype)
