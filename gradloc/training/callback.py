"""The Trainer adapter: measure, freeze and verify inside an ordinary training script.

When it acts: The Trainer builds its optimizer after a checkpoint has been loaded and before the
model is wrapped, but fires no event there and hands no callback its trainer. So the callback
finds its trainer once, when the Trainer has been built (``on_init_end``), and wraps that
instance's ``create_optimizer``: first the ordinary optimizer over everything trainable, then the
freeze. The parameter groups are those of a plain Trainer, so a checkpoint loads with or without
gradloc and with any other plan; Adam holds state for trained parameters only, since it makes
state when a gradient first arrives.
"""

import dataclasses
import logging
import sys
import weakref
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import Optimizer
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState

from gradloc.config.default import GradLocConfig
from gradloc.data.probes import ProbeSet, load_probes
from gradloc.errors import GradlocError, PlanMismatchError, SelectionError
from gradloc.localization.plan import LayerPlan, as_plan
from gradloc.models import load_tokenizer
from gradloc.training.announcement import announce
from gradloc.training.freezing import (
    FrozenLayers,
    check_trains_something,
    freeze_layers,
    scale_learning_rates,
)
from gradloc.training.methods.base import TrainContext
from gradloc.training.methods.input_projection import InputProjectionCallback
from gradloc.training.methods.interpolation import InterpolationCallback
from gradloc.training.methods.reference_kl import ReferenceKLCallback
from gradloc.training.protection import protecting_callbacks, set_momentum
from gradloc.training.step_savings import end_backward_above_frozen, save_work
from gradloc.training.trainer_hooks import (
    around_create_optimizer,
    note_resume,
    resumed_state,
    saved_checkpoint,
    shows_progress,
    trainer_of,
)
from gradloc.utils.io import PLAN_FILE

if TYPE_CHECKING:
    from gradloc.localization.profile import GradientProfile
    from gradloc.models.prefix_cache import PrefixCache

logger = logging.getLogger(__name__)

# The callback that froze a model, by the identity of its Trainer's arguments.
_froze: "weakref.WeakValueDictionary[int, GradLocCallback]" = weakref.WeakValueDictionary()


class GradLocCallback(TrainerCallback, ExportableState):
    """Train only the units of a plan, in any ``Trainer`` or TRL trainer.

    Give it in ``callbacks=[...]``, or call ``gradloc.attach(trainer, plan)`` afterwards. The
    plan is kept in every checkpoint; a resumed run uses it and refuses another. At the end of
    training every frozen tensor is proven to be bit for bit what it was.

    Args:
        plan: A plan, the path of its file, or ``None`` (only from ``from_probes``).
        config: How to protect, cache and compute. ``None``: the plan alone, unprotected.
        reference: Text whose behaviour is to be kept: JSONL with ``text``, a ``.txt`` file
            (passages between blank lines) or a list of texts. ``None``: the general passages
            that ship with gradloc.
        **fields: Fields of ``GradLocConfig`` that differ from ``config``.

    Raises:
        GradlocError: A field is unknown or out of range, or a file cannot be read.

    Attributes:
        config: The configuration.
        plan: The plan in force, ``None`` until it has been measured.
        profile: The profile it was selected from, if measured here.
        trainable_fraction: Parameters that train / all parameters of the model, 0-1.
        n_verified: Frozen tensors proven unchanged at the end of training.
        prefix_cache: The cache while training runs, with ``n_hits``, ``n_misses``, ``n_bytes``.
        projection: The callback that projects the steps, once training has begun; ``None``: none
            does.
        reference_kl: The callback that regularises the model towards the base; ``None``: none
            does.
        interpolate_to_start: The callback that keeps a share of the change at the end; ``None``:
            all of it stays.
    """

    def __init__(
        self,
        plan: LayerPlan | str | Path | dict | None = None,
        *,
        config: GradLocConfig | dict | None = None,
        reference: str | Path | Sequence[str] | None = None,
        **fields: Any,
    ):
        # Dictionaries come from a checkpoint: the Trainer rebuilds callbacks from their state.
        plan = LayerPlan.from_dict(plan) if isinstance(plan, dict) else plan
        self.plan: LayerPlan | None = as_plan(plan) if plan else None
        config = GradLocConfig(**config) if isinstance(config, dict) else config
        self.config = _configured(config or GradLocConfig(protect=False), fields)
        self.reference = reference if reference is None else _texts_of(reference)
        self.probes: ProbeSet | None = None
        self.prefix_cache: PrefixCache | None = None
        self.profile: GradientProfile | None = None
        self.trainable_fraction = float("nan")
        self.n_verified = 0
        self.projection: InputProjectionCallback | None = None
        self.reference_kl: ReferenceKLCallback | None = None
        self.interpolate_to_start: InterpolationCallback | None = None
        self._frozen: FrozenLayers | None = None
        self._hooks: list = []

    @classmethod
    def from_probes(
        cls,
        probes: ProbeSet | str | Path,
        *,
        reference: str | Path | Sequence[str] | None = None,
        policy: str | None = None,
        config: GradLocConfig | None = None,
        **fields: Any,
    ) -> "GradLocCallback":
        """Measure on probes when training starts, then select, freeze and protect.

        The published method is ``policy="rgn_above_mean"``: it chooses layers, and no more.

        Args:
            probes: Probe file or set. Probes whose ``split`` is ``evaluation`` and ``invariant``
                ones are left out.
            reference: As for ``GradLocCallback``.
            policy: A key of ``gradloc.localization.policies.POLICIES``; ``None``: the
                configuration's.
            config: How to measure, select and protect. ``None``: the default, ``GradLocConfig()``.
            **fields: Fields of ``GradLocConfig`` that differ from ``config``
                (``interpolation=0.5``), and options of the policy (``k=10``). Projected steps are
                shorter and need a higher learning rate. A resumed training measures the
                projection again, on the weights that it goes on from.

        Raises:
            GradlocError: The files cannot be read, no probe may choose layers, or a field or
                option is unknown or out of range.
        """
        fields |= {} if policy is None else {"policy": policy}
        callback = cls(None, config=config or GradLocConfig(), reference=reference, **fields)
        callback.probes = probes if isinstance(probes, ProbeSet) else load_probes(probes)
        # What can be known now is not left to the time when the model has been measured.
        from gradloc.localization.probe_profile import draw_probes

        draw_probes(callback.probes, 1, callback.config.draw_seed)
        return callback

    def state(self) -> dict:
        """What the Trainer keeps of this callback in ``trainer_state.json``."""
        arguments = {"plan": self.plan and self.plan.to_dict(), "config": asdict(self.config)}
        return {"args": arguments, "attributes": {}}

    def restore(self) -> None:
        """Give the model back its ``requires_grad`` flags; call it when training is done with."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        if self.projection is not None:
            self.projection.remove()
        self.prefix_cache = None  # its hooks are among those removed
        if self._frozen is not None:
            self._frozen.restore()
            self._frozen = None

    def on_init_end(self, args, state, control, **kwargs):
        """Find the trainer that is being built and get hold of its optimizer's making."""
        _freeze_with_optimizer(trainer_of(args, state, control), self)

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """Check that the freeze took place, and spare the frozen depth of the backward pass."""
        earlier = _froze.get(id(args))
        if earlier is not None and earlier is not self:
            # Transformers before 5 puts a new instance in place when the optimizer is made.
            vars(self).update(vars(earlier))
        if self._frozen is None:
            raise GradlocError(
                "GradLocCallback was added to a Trainer that already existed, so nothing was "
                "frozen. Pass it in callbacks=[...], or call gradloc.attach(trainer, callback)."
            )
        self._frozen.note_shards()
        if self.prefix_cache is not None:
            # What is seen once is not worth storing. A stream has no length, so the Trainer takes
            # as many epochs as a number can count.
            self.prefix_cache.keep_training_rows = 1 < state.num_train_epochs < sys.maxsize
        # The Trainer fails at its first save if a resumed state lacks a stateful callback.
        state.stateful_callbacks.setdefault(type(self).__name__, self.state())
        assert model is not None  # the Trainer always passes it
        end_backward_above_frozen(model)

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Let the processes see what the others have stored."""
        if self.prefix_cache is not None:
            self.prefix_cache.refresh()

    def on_save(self, args, state, control, **kwargs):
        """Put the plan beside the weights of each checkpoint, where people look for it."""
        if self.prefix_cache is not None:
            self.prefix_cache.refresh()
        folder = saved_checkpoint(args, state)
        if self.plan is not None and state.is_world_process_zero and folder.is_dir():
            self.plan.save(folder / PLAN_FILE)

    def on_train_end(self, args, state, control, **kwargs):
        """Prove that what was frozen is unchanged."""
        assert self._frozen is not None  # on_train_begin refused to go on without
        self.n_verified = self._frozen.verify()
        if self.prefix_cache is not None:
            self.prefix_cache.refresh()

    def _freeze(self, trainer: Trainer) -> None:
        """Decide on the plan and apply it; the optimizer exists, the model is not wrapped yet."""
        saved, model = _plan_in_checkpoint(trainer), _model_of(trainer)
        optimizer = trainer.optimizer
        assert isinstance(optimizer, Optimizer)  # it has just been made
        if self.plan is None:
            self.plan = saved or self._measure(trainer)
        elif saved is not None and saved.scale != self.plan.scale:
            raise PlanMismatchError(
                f"the checkpoint was trained with another plan ({saved.policy or 'by hand'}, "
                f"{len(saved.trained)} units) than the one given ({self.plan.policy or 'by hand'}, "
                f"{len(self.plan.trained)} units). Resume with the plan in the checkpoint's "
                f"{PLAN_FILE}, or start anew without resume_from_checkpoint."
            )
        check_trains_something(self.plan)
        self._frozen = freeze_layers(model, self.plan)
        if self._frozen.learning_rate_scales:
            self._hooks = scale_learning_rates(optimizer, self._frozen.learning_rate_scales)
        _froze[id(trainer.args)] = self
        self._protect(trainer, model, optimizer)
        hooks, self.prefix_cache = save_work(trainer, model, self.config, self._frozen.lowest_block)
        self._hooks += hooks
        n_parameters = sum(p.numel() for p in model.parameters())
        self.trainable_fraction = self._frozen.n_trainable / n_parameters
        if trainer.is_world_process_zero():
            announce(trainer, self.plan, self.trainable_fraction)

    def _protect(self, trainer: Trainer, model: nn.Module, optimizer: Optimizer) -> None:
        """Protect what is known from the training of what trains, as the configuration says."""
        for earlier in (self.projection, self.reference_kl, self.interpolate_to_start):
            if earlier is not None:  # of an earlier train()
                trainer.remove_callback(earlier)
        self.projection = self.reference_kl = self.interpolate_to_start = None
        # accelerate wraps the optimizer of an earlier train()
        optimizer = getattr(optimizer, "optimizer", optimizer)
        overridden = set_momentum(self.config, model, optimizer)
        if overridden and trainer.is_world_process_zero():
            logger.warning("gradloc overrides a training argument: %s.", overridden)
        methods, plan = self.config.methods(), self.plan
        if not methods or plan is None:
            return
        reads_text = not methods.keys().isdisjoint(("input_projection", "reference_kl"))
        context = TrainContext(
            model=model,
            tokenizer=_tokenizer(trainer) if reads_text else None,
            plan=plan,
            arguments=trainer.args,
            reference=self._reference(),
            dataset=trainer.train_dataset,
            max_length=self.config.max_tokens,
            seed=self.config.draw_seed,
            progress=shows_progress(trainer.args),
        )
        given = trainer.callback_handler.callbacks
        for callback in protecting_callbacks(self.config, context, given):
            if isinstance(callback, InputProjectionCallback):
                self.projection = callback
            elif isinstance(callback, ReferenceKLCallback):
                self.reference_kl = callback
                # Before the model computes in bfloat16 or is sharded; FSDP alone loads it later.
                if resumed_state(trainer) is None and not trainer.is_fsdp_enabled:
                    callback.record(model, context.progress)
            elif isinstance(callback, InterpolationCallback):
                self.interpolate_to_start = callback
            trainer.add_callback(callback)

    def _reference(self) -> Sequence[str]:
        return _texts_of(None) if self.reference is None else self.reference

    def _measure(self, trainer: Trainer) -> LayerPlan:
        """Measure on the first process and give every other the same plan."""
        if self.probes is None:
            raise GradlocError(
                "GradLocCallback needs a plan: GradLocCallback('plan.json') or "
                "GradLocCallback.from_probes('probes.jsonl')."
            )
        model = _model_of(trainer)
        if any(hasattr(parameter, "to_local") for parameter in model.parameters()):
            raise GradlocError(
                "The model was sharded when it was loaded, and gradients are measured on whole "
                "ones. Measure first (gradloc measure, gradloc select) and give the plan: "
                "GradLocCallback('plan.json')."
            )
        from accelerate.utils import broadcast_object_list

        from gradloc.training.plan_choice import choose_plan

        plans: list = [None]
        if trainer.accelerator.is_main_process:
            self.profile, plan = choose_plan(
                self.config,
                self.probes,
                self._reference(),
                model,
                _tokenizer(trainer),
                shows_progress(trainer.args),
            )
            plans = [plan]
        return broadcast_object_list(plans)[0]


def attach(trainer: Trainer, plan: LayerPlan | str | Path | GradLocCallback) -> GradLocCallback:
    """Let an existing trainer train only the units of a plan.

    Args:
        trainer: A trainer that has not begun to train.
        plan: A plan, the path of its file, or a ``GradLocCallback``.

    Returns:
        The callback, now among the trainer's.
    """
    callback = plan if isinstance(plan, GradLocCallback) else GradLocCallback(plan)
    trainer.add_callback(callback)
    saved = trainer.state.stateful_callbacks
    assert isinstance(saved, dict)  # a list only before the state is made
    saved.setdefault(type(callback).__name__, callback.state())
    _freeze_with_optimizer(trainer, callback)
    return callback


def _freeze_with_optimizer(trainer: Trainer, given: GradLocCallback) -> None:
    """Freeze as soon as this trainer has built its optimizer; once a trainer."""
    if trainer.is_deepspeed_enabled:
        raise GradlocError(
            "GradLocCallback does not work with DeepSpeed yet: ZeRO moves frozen weights by weight "
            "decay. Freeze with gradloc.freeze_layers(model, plan) before the Trainer is built, "
            "so that only trained parameters reach the engine."
        )

    def current() -> GradLocCallback:
        # Looked up anew: on resume the Trainer may have put a new instance in place of the first.
        return next(c for c in trainer.callback_handler.callbacks if isinstance(c, GradLocCallback))

    def before() -> None:
        # A plan is part of a callback's state; the script's own texts and configuration are not.
        current().config = given.config
        current().probes, current().reference = given.probes, given.reference
        current().restore()  # a second train() starts from the flags of the first

    note_resume(trainer)  # for the callbacks that protect
    around_create_optimizer(trainer, before, lambda: current()._freeze(trainer))


def _plan_in_checkpoint(trainer: Trainer) -> LayerPlan | None:
    """The plan of the checkpoint that is being resumed, if it has one."""
    state = resumed_state(trainer) or {}
    saved = state.get("stateful_callbacks", {}).get(GradLocCallback.__name__)
    saved = saved[-1] if isinstance(saved, list) else saved
    plan = (saved or {}).get("args", {}).get("plan")
    return LayerPlan.from_dict(plan, "the checkpoint's trainer_state.json") if plan else None


def _configured(config: GradLocConfig, fields: dict[str, Any]) -> GradLocConfig:
    """A configuration with other fields; names that are none are options of the policy.

    Raises:
        GradlocError: A name is neither, or there is no such policy.
    """
    from gradloc.localization.layer_selection import check_options

    changed = config.with_fields(**fields)
    try:
        check_options(changed.policy, changed.options)
    except SelectionError as error:
        known = [item.name for item in dataclasses.fields(GradLocConfig)]
        wrong = next((n for n in fields if n not in known and f"{n!r}" in str(error)), None)
        if wrong is None:
            raise
        raise SelectionError(f"{error} Or a field of GradLocConfig: {', '.join(known)}.") from error
    return changed


def _texts_of(reference: str | Path | Sequence[str] | None) -> list[str]:
    from gradloc.localization.probe_profile import reference_texts

    if reference is None or isinstance(reference, (str, Path)):
        return reference_texts(reference)
    return list(reference)


def _model_of(trainer: Trainer) -> nn.Module:
    assert isinstance(trainer.model, nn.Module)  # no Trainer is built without one
    return trainer.model


def _tokenizer(trainer: Trainer):
    tokenizer = trainer.processing_class
    if tokenizer is not None:
        return getattr(tokenizer, "tokenizer", tokenizer)
    model: Any = _model_of(trainer)
    return load_tokenizer(model.config._name_or_path)
