"""Training methods that compose with any plan: one module each, one table of them all.

Comes in: the name of a method and its options. Goes out: a ``Method``, which changes the data, the
model, the loss or the steps of one training. To add one, write a frozen dataclass on ``Method``
and enter it in ``METHODS``.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gradloc.errors import MethodError
from gradloc.training.methods.averaging import WeightAveraging
from gradloc.training.methods.badam import BAdam
from gradloc.training.methods.base import Loss, Method, Rows, TrainContext
from gradloc.training.methods.context_distillation import ContextDistillation
from gradloc.training.methods.forget_then_learn import ForgetThenLearn
from gradloc.training.methods.input_projection import InputProjection
from gradloc.training.methods.interpolation import InterpolateToStart
from gradloc.training.methods.lisa import Lisa
from gradloc.training.methods.lora import Lora
from gradloc.training.methods.mix_review import MixReview
from gradloc.training.methods.quadratic import EWC, L2ToStart
from gradloc.training.methods.recadam import RecAdam
from gradloc.training.methods.reference_kl import ReferenceKL
from gradloc.training.methods.replay import Replay
from gradloc.training.methods.schedule import Rewarm
from gradloc.training.methods.token_weights import TokenWeights
from gradloc.utils.names import did_you_mean, lookup

__all__ = ["METHODS", "Loss", "Method", "Rows", "TrainContext", "build_method", "build_methods"]

METHODS: dict[str, type[Method]] = {
    "input_projection": InputProjection,
    "interpolate_to_start": InterpolateToStart,
    "reference_kl": ReferenceKL,
    "replay": Replay,
    "mix_review": MixReview,
    "l2_to_start": L2ToStart,
    "ewc": EWC,
    "recadam": RecAdam,
    "weight_averaging": WeightAveraging,
    "rewarm": Rewarm,
    "token_weights": TokenWeights,
    "lora": Lora,
    "lisa": Lisa,
    "badam": BAdam,
    "f_learning": ForgetThenLearn,
    "context_distillation": ContextDistillation,
}


def build_method(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """A method with its options.

    Args:
        name: A key of ``METHODS``, or the import path of a class (``my_module:Mine``).
        options: Its options by name; what is missing has its default.

    Raises:
        MethodError: Unknown method or option, or an option that cannot work.
    """
    method_class = lookup(METHODS, name, "method", MethodError)
    options = dict(options or {})
    known = [item.name for item in dataclasses.fields(method_class)]
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known)
            raise MethodError(f"method {name!r} has no option {option!r}. {hint}")
    try:
        # Pydantic's strict mode takes lists for tuples in JSON only.
        method = TypeAdapter(method_class).validate_json(json.dumps(options), strict=True)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        rule = wrong["msg"].removeprefix("Input should be ")
        raise MethodError(
            f"method {name!r}: {wrong['loc'][0]} must be {rule}; found {wrong['input']!r}."
        ) from error
    except TypeError as error:
        raise MethodError(f"method {name!r}: options must be plain values ({error}).") from error
    method.check()
    return method


def build_methods(named: Mapping[str, Mapping[str, Any]]) -> list[Method]:
    """Methods in the order in which they are named.

    Raises:
        MethodError: As ``build_method``; or two of them bring a loss of their own.
    """
    methods = [build_method(name, options) for name, options in named.items()]
    losses = [
        name
        for name, method in zip(named, methods, strict=True)
        if type(method).loss is not Method.loss
    ]
    if len(losses) > 1:
        raise MethodError(
            f"{' and '.join(losses)} each replace the training loss; an arm can have one of them."
        )
    return methods
