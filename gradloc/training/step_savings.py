"""What no step of a frozen model needs: logits without a label, blocks and gradients that rest."""

import logging
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import Trainer

from gradloc.config.default import GradLocConfig
from gradloc.errors import GradlocError
from gradloc.models.label_loss import score_labels_only

if TYPE_CHECKING:
    from gradloc.models.prefix_cache import PrefixCache

logger = logging.getLogger(__name__)


def save_work(
    trainer: Trainer, model: nn.Module, config: GradLocConfig, lowest_block: int | None
) -> tuple[list[Any], "PrefixCache | None"]:
    """Leave out what no step needs: logits without a label, blocks that never change.

    Args:
        trainer: The trainer, its model not wrapped yet.
        model: Its model, frozen.
        config: Cache, bfloat16 parts, and whether the loss is computed at labels only.
        lowest_block: The lowest block that trains.

    Returns:
        Hooks to remove when training is done with, and the cache, which is among them.

    Raises:
        GradlocError: A part was asked for and cannot act.
    """
    # Another loss than the model's own may read the logits of every position.
    own_loss = (
        type(trainer).compute_loss is Trainer.compute_loss
        and trainer.compute_loss_func is None
        and trainer.label_smoother is None
    )
    if trainer.args.n_gpu > 1:
        _check_replicas(config)
        own_loss = False
    hooks: list[Any] = []
    cache = None
    if config.label_loss or (config.label_loss is None and own_loss):
        try:
            hooks.append(score_labels_only(model))
        except GradlocError as error:
            if config.label_loss:
                raise
            logger.info("%s It computes its own loss at all positions.", error)
    if config.cache is not None:
        from gradloc.models.prefix_cache import CacheConfig, PrefixCache

        kept = CacheConfig(config.cache, config.cache_dtype, config.cache_max_gib)
        cache = PrefixCache(model, lowest_block, kept, trainer.accelerator.process_index)
        hooks.append(cache)
    if config.bfloat16:
        from gradloc.models.mixed_precision import compute_in_bfloat16

        hooks.append(compute_in_bfloat16(model, config.bfloat16, lowest_block))
    return hooks, cache


def _check_replicas(config: GradLocConfig) -> None:
    """Refuse hooks on the model where the Trainer copies it to several GPUs at each step."""
    for name in ("cache", "bfloat16", "label_loss"):
        if getattr(config, name):
            raise GradlocError(
                f"GradLocCallback({name}=...) does not work where one process trains on "
                "several GPUs (nn.DataParallel). Start one for each (torchrun --nproc-per-node "
                "gpu train.py), show one alone (CUDA_VISIBLE_DEVICES=0), or leave it out."
            )


def end_backward_above_frozen(model: Any) -> None:
    """Let the backward pass end at the lowest trained block where activations are checkpointed.

    Checkpointing makes the embeddings' output require gradients, which carries the backward pass
    through every frozen block. Only its reentrant form needs that. The model is asked and not the
    training arguments: these change their names and defaults between versions of Transformers.
    """
    functions = [getattr(m, "_gradient_checkpointing_func", None) for m in model.modules()]
    options = [getattr(f, "keywords", {}) for f in functions if f is not None]
    if not options or model.get_input_embeddings().weight.requires_grad:
        return
    hooked = any(
        getattr(model, name, None) for name in ("_require_grads_hooks", "_require_grads_hook")
    )
    if any(each.get("use_reentrant", True) for each in options):
        if not hooked:  # Transformers before 5 leaves it to the user
            model.enable_input_require_grads()
        logger.warning(
            "Checkpointing is reentrant, so the backward pass runs through all frozen blocks. Set "
            "gradient_checkpointing_kwargs={'use_reentrant': False}."
        )
    elif hooked:
        model.disable_input_require_grads()
