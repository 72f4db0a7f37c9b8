"""How a training script's layers are chosen: measured on its probes, then selected."""

from collections.abc import Sequence

from torch import nn

from gradloc.config.default import GradLocConfig
from gradloc.config.recipe import MeasureConfig
from gradloc.data.probes import ProbeSet
from gradloc.localization.layer_selection import select_layers
from gradloc.localization.plan import LayerPlan
from gradloc.localization.probe_profile import profile_probes
from gradloc.localization.profile import GradientProfile
from gradloc.training.methods.method_table import build_methods, step_shape


def measure_config(config: GradLocConfig) -> MeasureConfig:
    """How the gradient profile is measured."""
    return MeasureConfig(
        granularity=config.granularity,
        reduction=config.reduction,
        n_probes=config.n_probes,
        n_reference=config.n_reference,
        reference_loss=config.reference_loss,
        max_length=config.max_tokens,
    )


def choose_plan(
    config: GradLocConfig,
    probes: ProbeSet,
    reference: Sequence[str],
    model: nn.Module,
    tokenizer,
    progress: bool | None = None,
) -> tuple[GradientProfile, LayerPlan]:
    """Measure the model and select units.

    Args:
        config: Policy and measuring; what protects has a part in the predicted cost.
        probes: Probes about new and updated facts; evaluation and invariant ones are left out.
        reference: Texts whose behaviour is to be kept.
        model: The model.
        tokenizer: Its tokenizer.
        progress: Show a progress bar; ``None``: when on a terminal.

    Raises:
        GradlocError: Nothing to measure, or nothing to select.
    """
    profile = profile_probes(
        model,
        tokenizer,
        probes,
        list(reference),
        measure_config(config),
        seed=config.draw_seed,
        progress=progress,
    )
    step = step_shape(build_methods(config.methods()).values(), config.max_tokens)
    return profile, select_layers(profile, config.policy, **{"step": step, **config.options})
