"""Stay near the base model's behaviour: a KL penalty on anchor texts.

No copy of the base model is kept while training: what it predicts is recorded before.
"""

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gradloc.errors import MethodError
from gradloc.models.wrappers import evaluation_mode, unwrap
from gradloc.training.methods.anchor_texts import (
    Source,
    anchor_rows,
    drawn,
    encoded_rows,
    fact_texts,
)
from gradloc.training.methods.base import Count, CountOrZero, Method, Positive, TrainContext
from gradloc.training.methods.base_targets import (
    BaseTargets,
    base_targets,
    parts_within_memory,
    position_logits,
)
from gradloc.training.methods.coarse_kl import coarse_kl
from gradloc.training.methods.extra_loss import ExtraLoss, Weights, add_to_gradients, are_sharded
from gradloc.training.trainer_hooks import (
    ResumableCallback,
    resumed_checkpoint,
    saved_checkpoint,
    shows_progress,
)
from gradloc.utils.numbers import check_number

TARGETS_FILE = "reference_kl.safetensors"


class ReferenceKLCallback(ResumableCallback, ExtraLoss):
    """Train on loss + ``weight`` x KL(base || model), in nats per token of anchor text.

    The model runs without dropout, as the base did, so the penalty and its gradient are zero (but
    for rounding) until the weights move. Texts are taken in an order that depends on ``seed`` and
    the step alone: each is seen once before any is seen again, and a resumed training equals an
    uninterrupted one. Under DDP and FSDP2 each process takes other texts.

    Args:
        targets: What the base model predicts, from ``base_targets``; or use ``from_texts``.
        weight: Factor of the penalty.
        batch_size: Texts a step, on each process.
        every: Only at every n-th step, n times as strong.
        seed: Seed of the order.

    Raises:
        MethodError: An option is out of range, or DeepSpeed trains.

    Example:
        >>> penalty = ReferenceKLCallback.from_texts(old_texts)   # doctest: +SKIP
        >>> Trainer(model, processing_class=tokenizer,   # doctest: +SKIP
        ...         callbacks=[GradLocCallback(plan), penalty])

    References:
        Li and Hoiem 2016, arXiv:1606.09282 section 3 (distillation from the model before
        training keeps what it did). Theirs is on the new data, with a temperature; this is on
        anchor texts, without.
    """

    log_key = "reference_kl_nats"
    takes_shards = True

    def __init__(
        self,
        targets: BaseTargets | None,
        *,
        weight: float = 1.0,
        batch_size: int = 8,
        every: int = 1,
        seed: int = 0,
    ):
        super().__init__(weight, every)
        check_number("reference_kl: batch_size", batch_size, 1, whole=True, error=MethodError)
        self.targets, self.batch_size, self.seed = targets, batch_size, seed
        # Records the targets when training starts: (model, processing_class, progress)
        # -> targets.
        self._record: Callable[[nn.Module, Any, bool | None], BaseTargets] | None = None
        self._is_recorded = False

    @classmethod
    def from_texts(
        cls,
        texts: Sequence[str] | None = None,
        *,
        top_k: int = 64,
        max_length: int = 128,
        n_texts: int = 256,
        seed: int = 0,
        tokenizer=None,
        **options: Any,
    ) -> "ReferenceKLCallback":
        """Keep the model near what it predicts on texts when training starts.

        The predictions are saved in each checkpoint, since a resumed training starts from weights
        that have moved.

        Args:
            texts: Text whose behaviour should stay. ``None``: the passages on people, places,
                companies and works that ship with gradloc.
            top_k: Tokens kept of each position's distribution; the rest counts as one event. 0:
                all.
            max_length: Tokens of a text that count.
            n_texts: How many texts at most.
            seed: Which of them, where there are more, and their order.
            tokenizer: ``None``: the Trainer's ``processing_class``.
            **options: ``weight``, ``batch_size`` and ``every`` as above.

        Raises:
            MethodError: An option is out of range, or there is no text.
        """
        if isinstance(texts, str) or (texts is not None and not len(texts)):
            raise MethodError("ReferenceKLCallback.from_texts takes a list of texts.")
        check_number("reference_kl: n_texts", n_texts, 1, whole=True, error=MethodError)
        chosen = fact_texts(n_texts, seed) if texts is None else drawn(texts, n_texts, seed)

        def record(model: nn.Module, processing_class, progress: bool | None) -> BaseTargets:
            reader = tokenizer or getattr(processing_class, "tokenizer", processing_class)
            if reader is None:
                raise MethodError(
                    "ReferenceKLCallback.from_texts needs a tokenizer: its own or the Trainer's "
                    "processing_class."
                )
            rows = encoded_rows(reader, chosen, max_length)
            return base_targets(model, rows, top_k=top_k, progress=progress)

        callback = cls(None, seed=seed, **options)
        callback._record = record
        return callback

    def record(self, model: nn.Module, progress: bool | None = None) -> None:
        """Record what ``from_texts`` asked for now, and not when training starts."""
        if self._record is not None:
            self.targets = self._record(unwrap(model), None, progress)
            self._is_recorded = True

    def on_train_begin(self, args, state, control, model, processing_class=None, **kwargs):
        """Note what trains, and record or read the predictions that were asked for."""
        super().on_train_begin(args, state, control, model=model)
        if self._record is None:
            return
        if state.global_step == 0:
            if not self._is_recorded:
                self.targets = self._record(unwrap(model), processing_class, shows_progress(args))
            self._is_recorded = False  # a second training starts from other weights
            return
        path = resumed_checkpoint(args, state) / TARGETS_FILE
        try:
            self.targets = BaseTargets.from_tensors(load_file(path))
        except (OSError, SafetensorError, KeyError) as error:
            raise MethodError(
                f"{path} cannot be read: it holds what the base model predicted. Start again, or "
                "resume without ReferenceKLCallback (GradLocCallback.from_probes(..., kl=0))."
            ) from error

    def on_save(self, args, state, control, **kwargs):
        """Put predictions that were recorded here beside each checkpoint's weights."""
        folder = saved_checkpoint(args, state)
        if self._record is None or self.targets is None or not state.is_world_process_zero:
            return
        if folder.is_dir():
            save_file(self.targets.to_tensors(), folder / TARGETS_FILE)

    def add_gradients(
        self, model: nn.Module, parameters: Weights, turn: int, factor: float, args
    ) -> Tensor:
        """Add the gradient on this turn's texts; see ``ExtraLoss.add_gradients``."""
        assert self.targets is not None  # since training began
        rows = self.targets.rows
        size = min(self.batch_size, len(rows))
        first = (turn * args.world_size + args.process_index) * size
        indices = shuffled(len(rows), first, size, self.seed)
        trained = list(parameters.values())
        n_positions = sum(len(rows[index]) - 1 for index in indices)
        total = torch.zeros((), device=trained[0].device)
        sharded = are_sharded(parameters)
        # Processes that share weights have to pass through the model equally often.
        parts = [indices] if sharded else parts_within_memory(model, rows, indices, len(indices))
        with evaluation_mode(model), torch.enable_grad():
            for part in parts:
                logits = position_logits(model, [rows[index] for index in part])
                kl = coarse_kl(logits, self.targets.of_rows(part)) / n_positions
                if sharded:  # FSDP2 averages and divides gradients as they arrive
                    (kl * factor).backward()
                else:  # DDP would take an arrival for that of the Trainer's own loss
                    extras = torch.autograd.grad(kl * factor, trained, allow_unused=True)
                    add_to_gradients(trained, extras)
                total += kl.detach()
        return total


def shuffled(n: int, first: int, count: int, seed: int) -> list[int]:
    """Entries ``first`` to ``first + count`` of one random order of ``range(n)`` after another.

    Example:
        >>> sorted(shuffled(4, 0, 4, seed=0)) == sorted(shuffled(4, 4, 4, seed=0)) == [0, 1, 2, 3]
        True
    """
    return [_order(n, place // n, seed)[place % n] for place in range(first, first + count)]


@functools.lru_cache(maxsize=8)
def _order(n: int, epoch: int, seed: int) -> list[int]:
    return random.Random(f"{seed} {epoch}").sample(range(n), n)


@dataclass(frozen=True)
class ReferenceKL(Method):
    """KL penalty on anchor texts.

    Args:
        weight: Factor of the penalty, in nats per token as the loss is.
        batch_size: Texts a step.
        source: ``reference``: the context's reference texts; ``facts``: passages on people and
            places that ship with gradloc.
        n_texts: How many texts at most.
        top_k: Tokens kept of each position's distribution; the rest counts as one event. 0: all.
        every: Only at every n-th step, n times as strong.
    """

    weight: Positive = 1.0
    batch_size: Count = 8
    source: Source = "reference"
    n_texts: Count = 256
    top_k: CountOrZero = 64
    every: Count = 1

    def kl_tokens(self, max_length: int) -> float:
        """Tokens that a step passes through the model for this, on average, for the cost model."""
        from gradloc.localization.cost.step_shape import KL_LENGTH

        length = min(KL_LENGTH, max_length) if self.source == "facts" else max_length
        return self.batch_size * length / self.every

    def prepare(self, context: TrainContext) -> None:
        """Record what the base model predicts."""
        rows = anchor_rows(context, self.source, self.n_texts)
        context.prepared["reference_kl"] = base_targets(
            context.model, rows, top_k=self.top_k, progress=context.progress
        )

    def callbacks(self, context: TrainContext) -> list[ReferenceKLCallback]:
        """The penalty, on what ``prepare`` recorded.

        Where it was not called, predictions are recorded when training starts, and each checkpoint
        carries them: a resumed model has moved.
        """
        options: dict[str, Any] = {
            "weight": self.weight,
            "batch_size": self.batch_size,
            "every": self.every,
            "seed": context.draw_seed,
        }
        if "reference_kl" in context.prepared:
            return [ReferenceKLCallback(context.prepared["reference_kl"], **options)]
        return [
            ReferenceKLCallback.from_texts(
                None if self.source == "facts" else context.reference,
                top_k=self.top_k,
                n_texts=self.n_texts,
                max_length=context.max_length,
                tokenizer=context.tokenizer,
                **options,
            )
        ]
