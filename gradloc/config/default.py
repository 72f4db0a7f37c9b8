"""What gradloc does when nothing else is said: the one place where the default is defined."""

import json
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from gradloc.errors import GradlocError, MethodError
from gradloc.utils.numbers import check_number


def _option(default: Any, meaning: str) -> Any:
    return field(default=default, metadata={"help": meaning})


@dataclass(frozen=True)
class GradLocConfig:
    """How layers are chosen, and how what is known is protected while they train.

    All fields are plain values, so ``HfArgumentParser`` and ``TrlParser`` take the class beside
    ``TrainingArguments``.

    Args:
        policy: A key of ``gradloc.localization.policies.POLICIES``.
        policy_options: Options of the policy (``{"k": 10}``), as a dictionary or as JSON.
        granularity: ``sublayer`` (attention and MLP apart) or ``block``.
        reduction: ``mean_of_norms`` or ``norm_of_mean``.
        n_probes: Probes measured at most.
        n_reference: Reference texts measured at most.
        reference_loss: ``all`` tokens of the reference text, or a ``random_span`` of it.
        max_tokens: Tokens of a probe or text that count, in measuring and in protecting.
        protect: Whether the four fields below have their protecting values where they are
            ``None``. ``None``: with the default policy only.
        projection: Strength of the projection of each step away from the inputs of reference
            text, shipped facts and the training rows (``InputProjectionCallback``); 0: none.
            ``None``: 1 if protecting.
        kl: Weight of the KL to the base model on the shipped passages on facts
            (``ReferenceKLCallback``); 0: none. ``None``: 1 if protecting.
        interpolation: Share of each weight matrix's change that stays when training ends; norm
            weights and biases return to their start (``InterpolationCallback``). 1: all of the
            change stays, theirs too. ``None``: 0.75 if protecting.
        momentum: Adam's first beta, in place of the training arguments' ``adam_beta1``.
            ``None``: 0 if protecting, else the arguments' value.
        kl_every: The KL acts at every n-th step only, n times as strong.
        cache: Folder for the hidden states that enter the lowest trained block, from which later
            epochs begin. ``None``: no cache. A corpus that is seen once is not stored.
        cache_dtype: ``float32`` (the same bits as without a cache) or ``bfloat16`` (half the
            size).
        cache_max_gib: Size of the cache on disk at most, GiB.
        bfloat16: Parts to compute in bfloat16 while the rest keeps its precision: ``prefix``
            (all below the lowest trained block), ``suffix``, ``head``.
        label_loss: Compute head and loss at labelled positions only. ``None``: where the trainer
            uses the model's own loss and the model allows it.
        draw_seed: Which probes and texts are drawn.

    Raises:
        GradlocError: A value is out of range.

    Example:
        >>> GradLocConfig().resolved().interpolation
        0.75
        >>> GradLocConfig(policy="top_rgn_k", policy_options='{"k": 2}').options
        {'k': 2}
    """

    policy: str = _option("interference_ratio", "Selection policy.")
    policy_options: dict | str | None = _option(None, "Options of the policy, as JSON.")
    granularity: Literal["sublayer", "block"] = _option("sublayer", "What one unit is.")
    reduction: Literal["mean_of_norms", "norm_of_mean"] = _option(
        "mean_of_norms", "How gradient norms of sequences become one of the unit."
    )
    n_probes: int = _option(24, "Probes measured at most.")
    n_reference: int = _option(24, "Reference texts measured at most.")
    reference_loss: Literal["all", "random_span"] = _option(
        "all", "Tokens of the reference text that have a loss."
    )
    max_tokens: int = _option(128, "Tokens of a probe or reference text that count.")
    protect: bool | None = _option(
        None, "Protect what is known. Unset: with the default policy only."
    )
    projection: float | None = _option(
        None, "Strength of the input projection, 0 for none. Unset: 1 if protecting."
    )
    kl: float | None = _option(
        None, "Weight of the KL to the base model on facts, 0 for none. Unset: 1 if protecting."
    )
    interpolation: float | None = _option(
        None, "Share of the change that stays at the end. Unset: 0.75 if protecting, else 1."
    )
    momentum: float | None = _option(
        None, "Adam's first beta. Unset: 0 if protecting, else adam_beta1."
    )
    kl_every: int = _option(4, "The KL acts at every n-th step, n times as strong.")
    cache: str | None = _option(None, "Folder of the prefix cache. Unset: none.")
    cache_dtype: Literal["float32", "bfloat16"] = _option("float32", "Type of cached states.")
    cache_max_gib: float = _option(20.0, "Size of the prefix cache at most, GiB.")
    bfloat16: list[str] | None = _option(
        None, "Parts to compute in bfloat16: prefix, suffix, head."
    )
    label_loss: bool | None = _option(
        None, "Compute the loss at labelled positions only. Unset: where that is possible."
    )
    draw_seed: int = _option(0, "Which probes and texts are drawn.")

    def __post_init__(self):
        if isinstance(self.bfloat16, str):
            raise GradlocError(f"bfloat16={self.bfloat16!r}: give a list, [{self.bfloat16!r}].")
        object.__setattr__(self, "bfloat16", list(self.bfloat16) if self.bfloat16 else None)
        object.__setattr__(self, "cache", None if self.cache is None else str(self.cache))
        _ = self.options
        for name in ("projection", "kl"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise MethodError(f"{name}: its strength must be 0 or more; found {value!r}.")
        if self.interpolation is not None:
            check_number("interpolation", self.interpolation, 0, 1, above=True, error=MethodError)
        if self.momentum is not None and not 0 <= self.momentum < 1:
            raise MethodError(f"momentum must lie in [0, 1); found {self.momentum!r}.")
        for name in ("n_probes", "n_reference", "kl_every"):
            if getattr(self, name) < 1:
                raise GradlocError(f"{name} must be 1 or more; found {getattr(self, name)!r}.")

    @property
    def options(self) -> dict[str, Any]:
        """Options of the policy as a dictionary."""
        given = self.policy_options or {}
        if isinstance(given, str):
            try:
                given = json.loads(given)
            except ValueError as error:
                raise GradlocError(
                    f"policy_options={self.policy_options!r} is no JSON ({error}). Write it like "
                    """'{"k": 10}'."""
                ) from error
        if not isinstance(given, dict):
            raise GradlocError(f"policy_options={given!r}: give a dictionary of options.")
        return given

    def with_fields(self, **changes: Any) -> "GradLocConfig":
        """A copy with other values; names that are no field are options of the policy."""
        own = {item.name for item in fields(self)}
        options = {name: value for name, value in changes.items() if name not in own}
        changes = {name: value for name, value in changes.items() if name in own}
        changed = replace(self, **changes)
        return replace(changed, policy_options={**changed.options, **options} or None)

    def resolved(self) -> "GradLocConfig":
        """A copy in which strengths that were left open have the values that are in force.

        ``momentum`` stays ``None`` where the training arguments decide.
        """
        protect = self.protect
        if protect is None:
            protect = self.policy == GradLocConfig.policy
        in_force = (
            {"projection": 1.0, "kl": 1.0, "interpolation": 0.75, "momentum": 0.0}
            if protect
            else {"projection": 0.0, "kl": 0.0, "interpolation": 1.0, "momentum": None}
        )
        found = {name: getattr(self, name) for name in in_force}
        found = {n: in_force[n] if value is None else value for n, value in found.items()}
        return replace(self, protect=protect, **found)

    def methods(self) -> dict[str, dict[str, Any]]:
        """What protects, as a recipe's arm spells it: method -> options that are not its own."""
        found = self.resolved()
        named: dict[str, dict[str, Any]] = {}
        if found.projection:
            named["input_projection"] = {} if found.projection == 1 else {
                "strength": found.projection
            }  # fmt: skip
        if found.kl:
            weight = {} if found.kl == 1 else {"weight": found.kl}
            named["reference_kl"] = {"source": "facts", "every": found.kl_every, **weight}
        if found.interpolation is not None and found.interpolation < 1:
            named["interpolate_to_start"] = {"interpolation": found.interpolation}
        return named

    def training_arguments(self) -> dict[str, Any]:
        """The ``TrainingArguments`` that go with it."""
        momentum = self.resolved().momentum
        return {} if momentum is None else {"adam_beta1": momentum}


# What an arm of a recipe may start from.
PRESETS: dict[str, GradLocConfig] = {"protected": GradLocConfig()}
