"""What a script asks for when it gives probes: a plan for its model, and a shield for its steps.

Comes in: probes, reference text and how to choose; later the model, and the rows that it will
train on. Goes out: a profile and a ``LayerPlan``, and an ``InputShieldCallback``. It knows no
Trainer.
"""

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from gradloc.batches import dataset_rows, pad_token_id
from gradloc.errors import MethodError
from gradloc.measuring import profile_probes
from gradloc.methods.input_shield import InputShieldCallback, trained_shields
from gradloc.methods.kept_texts import encoded_rows
from gradloc.plan import LayerPlan
from gradloc.probes import ProbeSet
from gradloc.profile import GradientProfile
from gradloc.recipe import MeasureConfig
from gradloc.selection import DEFAULT_POLICY, select_layers, step_setting

logger = logging.getLogger(__name__)

# Rows of each kind that a shield is made from: a few thousand tokens for as many inputs.
_SHIELD_ROWS = 256


@dataclass(frozen=True)
class Localization:
    """How layers are to be chosen, and how their steps are to be shielded.

    Args:
        probes: Probes about new and updated facts; evaluation and invariant ones are left out.
        reference: Texts whose behaviour is to be kept.
        policy: A key of ``gradloc.selection.POLICIES``.
        options: Options of the policy.
        measure: Granularity, counts and lengths.
        shield: Strength of the shield, 0 for none. ``None``: 1 with the default policy, with
            which it was measured, and none with any other.
        seed: Which probes and texts are drawn.

    Raises:
        MethodError: The strength is below 0.
    """

    probes: ProbeSet
    reference: Sequence[str]
    policy: str = DEFAULT_POLICY
    options: Mapping[str, Any] = field(default_factory=dict)
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    shield: float | None = None
    seed: int = 0

    def __post_init__(self):
        if self.shield is not None and not self.shield >= 0:
            raise MethodError(f"shield: its strength must be 0 or more; found {self.shield!r}.")

    @property
    def strength(self) -> float:
        """Strength of the shield, 0 for none."""
        if self.shield is None:
            return 1.0 if self.policy == DEFAULT_POLICY else 0.0
        return self.shield

    def choose(self, model: nn.Module, tokenizer) -> tuple[GradientProfile, LayerPlan]:
        """Measure the model and select units.

        Raises:
            GradlocError: Nothing to measure, or nothing to select.
        """
        profile = profile_probes(
            model, tokenizer, self.probes, list(self.reference), self.measure, seed=self.seed
        )
        options = {"setting": step_setting(shielded=bool(self.strength)), **self.options}
        return profile, select_layers(profile, self.policy, **options)

    def protect(self, model: nn.Module, tokenizer, dataset) -> InputShieldCallback | None:
        """The shield of what trains now, from reference text and from the rows to train on.

        Args:
            model: The model, frozen by the plan.
            tokenizer: Its tokenizer.
            dataset: What the Trainer trains on.

        Returns:
            ``None`` where no shield is asked for, or none can act: adapters alone train.

        Raises:
            MethodError: A shield is asked for in so many words and none can act, or no text is
                long enough.
        """
        if not self.strength:
            return None
        length = self.measure.max_length
        kept = list(self.reference)
        kept = random.Random(self.seed).sample(kept, min(_SHIELD_ROWS, len(kept)))
        groups = [encoded_rows(tokenizer, kept, length)]
        if new := dataset_rows(dataset, _SHIELD_ROWS, length, self.seed):
            groups.append(new)
        else:
            logger.warning(
                "gradloc shields the reference text alone: the training rows hold no input_ids "
                "that could be read ahead."
            )
        try:
            shields = trained_shields(model, groups, pad_token_id(tokenizer), self.strength)
        except MethodError as error:
            if self.shield is not None:
                raise
            logger.warning("gradloc trains without a shield. %s", error)
            return None
        return InputShieldCallback(shields)
