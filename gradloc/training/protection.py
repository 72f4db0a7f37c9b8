"""What a script asks for when it gives probes: a plan, and what protects the rest.

Comes in: probes, reference text and how to choose; later the model, and the rows that it will
train on. Goes out: a profile and a ``LayerPlan``, and the callbacks that projection the steps,
hold the model to what it knew and pull the weights back. It knows no Trainer.
"""

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from gradloc.config.recipe import MeasureConfig
from gradloc.data.batches import dataset_rows, pad_token_id
from gradloc.data.probes import ProbeSet
from gradloc.errors import MethodError
from gradloc.localization.cost import DEFAULT_KL_TOKENS
from gradloc.localization.plan import LayerPlan
from gradloc.localization.policies import (
    DEFAULT_POLICY,
    callback_step,
    check_options,
    select_layers,
)
from gradloc.localization.probe_profile import draw_probes, profile_probes
from gradloc.localization.profile import GradientProfile
from gradloc.models.units import find_units
from gradloc.training.methods.anchor_texts import encoded_rows, fact_texts
from gradloc.training.methods.input_projection import InputProjectionCallback, trained_projections
from gradloc.training.methods.interpolation import InterpolationCallback, check_shares
from gradloc.training.methods.reference_kl import ReferenceKLCallback

logger = logging.getLogger(__name__)

# Rows of each kind that a projection is made from: a few thousand tokens for as many inputs.
_PROJECTION_ROWS = 256
# What the default policy goes with: strength of the projection, weight of the KL to the base on
# facts,
# the share of the change that is kept, and Adam's first beta. With any other policy nothing is
# added that was not asked for.
DEFAULT_PROJECTION = 1.0
DEFAULT_KL = 1.0
DEFAULT_KEEP = 0.75
DEFAULT_MOMENTUM = 0.0
# The KL's gradient comes at every fourth step, four times as strong: cheaper than a steady one, and
# it protected better.
_KL_EVERY = 4
# Any other was chosen by the user.
_USUAL_MOMENTUM = 0.9


@dataclass(frozen=True)
class Localization:
    """How layers are to be chosen, and how what is known is to be protected.

    Args:
        probes: Probes about new and updated facts; evaluation and invariant ones are left out.
        reference: Texts whose behaviour is to be kept.
        policy: A key of ``gradloc.localization.policies.POLICIES``.
        options: Options of the policy.
        measure: Granularity, counts and lengths.
        projection: Strength of the projection, 0 for none. ``None``: 1 with the default policy,
        with
            which it was measured, and none with any other.
        kl: Weight of the KL to the base model on the passages on facts that ship with gradloc, 0
            for none. ``None``: 1 with the default policy, and none with any other.
        interpolation: Share of the change that stays when training ends, 1 for all of it; below
        1, norm
            weights and biases return altogether. ``None``: 0.75 with the default policy, 1 with any
            other.
        momentum: Adam's first beta. ``None``: 0 with the default policy in place of the usual
            0.9; else what the training arguments say.
        seed: Which probes and texts are drawn.

    Raises:
        MethodError: The strength or the weight is below 0, or the share or the momentum out of
            range.
        MeasurementError: No probe may choose layers.
        SelectionError: There is no such policy, or it has no such option.
    """

    probes: ProbeSet
    reference: Sequence[str]
    policy: str = DEFAULT_POLICY
    options: Mapping[str, Any] = field(default_factory=dict)
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    projection: float | None = None
    kl: float | None = None
    interpolation: float | None = None
    momentum: float | None = None
    seed: int = 0

    def __post_init__(self):
        # What can be told now is not left to the time when the model has been measured.
        check_options(self.policy, self.options)
        draw_probes(self.probes, 1, self.seed)
        if self.projection is not None and not self.projection >= 0:
            raise MethodError(
                f"projection: its strength must be 0 or more; found {self.projection!r}."
            )
        if self.kl is not None and not self.kl >= 0:
            raise MethodError(f"kl: its weight must be 0 or more; found {self.kl!r}.")
        if self.interpolation is not None:
            check_shares(self.interpolation, 0.0)
        if self.momentum is not None and not 0 <= self.momentum < 1:
            raise MethodError(f"momentum must lie in [0, 1); found {self.momentum!r}.")

    @property
    def strength(self) -> float:
        """Strength of the projection, 0 for none."""
        if self.projection is None:
            return DEFAULT_PROJECTION if self.policy == DEFAULT_POLICY else 0.0
        return self.projection

    @property
    def kl_weight(self) -> float:
        """Weight of the KL to the base on facts, 0 for none."""
        if self.kl is None:
            return DEFAULT_KL if self.policy == DEFAULT_POLICY else 0.0
        return self.kl

    @property
    def kept(self) -> float:
        """Share of the change that stays, 1 for all of it."""
        if self.interpolation is None:
            return DEFAULT_KEEP if self.policy == DEFAULT_POLICY else 1.0
        return self.interpolation

    def set_momentum(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Give an Adam optimizer the first beta that goes with the policy.

        Momentum goes on pushing where a document pulled some steps ago, though the model has learnt
        it by then: in a training that sees each document once or a few times, updates overshoot.

        Args:
            model: The model, frozen by the plan. Where adapters alone train, nothing is changed
                that was not asked for.
            optimizer: The Trainer's. One that is not torch's Adam or AdamW is left alone.

        Raises:
            MethodError: One was asked for in so many words, and the optimizer is another.
        """
        beta = self.momentum
        if beta is None and self.policy == DEFAULT_POLICY and trains_own_weights(model):
            beta = DEFAULT_MOMENTUM
        if beta is None:
            return
        # Others call something else by the name of betas (schedule-free ones, for instance).
        if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
            if self.momentum is not None:
                raise MethodError(
                    f"momentum={beta:g} sets the first beta of torch's Adam and AdamW; found "
                    f"{type(optimizer).__name__}. Leave it out and set adam_beta1, or what this "
                    "optimizer has instead, in the training arguments."
                )
            return
        for group in optimizer.param_groups:
            if self.momentum is not None or group["betas"][0] == _USUAL_MOMENTUM:
                group["betas"] = (beta, *group["betas"][1:])

    def choose(self, model: nn.Module, tokenizer) -> tuple[GradientProfile, LayerPlan]:
        """Measure the model and select units.

        Raises:
            GradlocError: Nothing to measure, or nothing to select.
        """
        profile = profile_probes(
            model, tokenizer, self.probes, list(self.reference), self.measure, seed=self.seed
        )
        step = callback_step(
            projected=bool(self.strength),
            kl_tokens=DEFAULT_KL_TOKENS if self.kl_weight else 0.0,
        )
        return profile, select_layers(profile, self.policy, **{"step": step, **self.options})

    def protect(
        self, model: nn.Module, tokenizer, dataset, given: Sequence[TrainerCallback] = ()
    ) -> list[TrainerCallback]:
        """What protects the rest from the training of what trains now.

        Args:
            model: The model, frozen by the plan.
            tokenizer: Its tokenizer.
            dataset: What the Trainer trains on.
            given: The Trainer's own callbacks. What is among them already is not added.

        Returns:
            At most an ``InputProjectionCallback``, a ``ReferenceKLCallback`` and a
            ``InterpolationCallback``; none of those that were not asked for, where adapters alone
            train.

        Raises:
            MethodError: One is asked for in so many words and cannot act, or stands among
                ``given`` as well; no text is long enough.
        """
        own = trains_own_weights(model)
        found: list[TrainerCallback] = []
        if self.strength and not _is_given(
            InputProjectionCallback, given, projection=self.projection
        ):
            found += self._projections(model, tokenizer, dataset)
        can_act = self.kl is not None or own
        if self.kl_weight and can_act and not _is_given(ReferenceKLCallback, given, kl=self.kl):
            found.append(
                ReferenceKLCallback.from_texts(
                    weight=self.kl_weight,
                    every=_KL_EVERY,
                    max_length=self.measure.max_length,
                    seed=self.seed,
                    tokenizer=tokenizer,
                )
            )
        can_act = self.interpolation is not None or (own and _trains_matrices(model))
        if (
            self.kept < 1
            and can_act
            and not _is_given(InterpolationCallback, given, interpolation=self.interpolation)
        ):
            if not _trains_matrices(model):
                raise MethodError(
                    f"interpolation={self.interpolation:g}: nothing but norms and biases "
                    f"trains, and those return to "
                    "where they were, so nothing would be left of the training. Leave "
                    "interpolation out, or "
                    "take a plan that trains more."
                )
            found.append(InterpolationCallback(self.kept))
        return found

    def _projections(self, model: nn.Module, tokenizer, dataset) -> list[InputProjectionCallback]:
        """The projection of what trains now: from reference text, facts and the rows to train on.

        None where it was not asked for in so many words and cannot act.
        """
        length = self.measure.max_length
        kept = list(self.reference)
        kept = random.Random(self.seed).sample(kept, min(_PROJECTION_ROWS, len(kept)))
        groups = [
            encoded_rows(tokenizer, texts, length)
            for texts in (kept, fact_texts(_PROJECTION_ROWS, self.seed))
        ]
        if new := dataset_rows(dataset, _PROJECTION_ROWS, length, self.seed):
            groups.append(new)
        else:
            logger.warning(
                "gradloc projections old text alone: the training rows hold no input_ids "
                "that could be read ahead."
            )
        try:
            projections = trained_projections(model, groups, pad_token_id(tokenizer), self.strength)
        except MethodError as error:
            if self.projection is not None:
                raise
            logger.warning("gradloc trains without a projection. %s", error)
            return []
        return [InputProjectionCallback(projections)]


def _is_given(
    kind: type[TrainerCallback], given: Sequence[TrainerCallback], **asked: float | None
) -> bool:
    """Whether the Trainer has a callback of a kind already.

    Raises:
        MethodError: It has, and the option that makes one was given as well.
    """
    if not any(isinstance(callback, kind) for callback in given):
        return False
    ((option, value),) = asked.items()
    if value is not None:
        raise MethodError(
            f"There is a callback {kind.__name__} beside GradLocCallback.from_probes(..., "
            f"{option}=...), and they would act twice. Leave one of them out."
        )
    return True


def _trains_matrices(model: nn.Module) -> bool:
    return any(p.requires_grad and p.dim() > 1 for p in model.parameters())


def trains_own_weights(model: nn.Module) -> bool:
    """Whether nothing but the model's own weights trains: no adapter does."""
    return not any(p.requires_grad for unit in find_units(model) for p in unit.adapters.values())
