"""The table of training methods, and how a method is made from its name and options."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gradloc.errors import MethodError
from gradloc.localization.cost.step_shape import StepShape
from gradloc.localization.layer_selection import callback_step
from gradloc.training.methods.base import Method
from gradloc.training.methods.context_distillation import ContextDistillation
from gradloc.training.methods.forget_then_learn import ForgetThenLearn
from gradloc.training.methods.input_projection import InputProjection
from gradloc.training.methods.interpolation import InterpolateToStart
from gradloc.training.methods.lora import Lora
from gradloc.training.methods.quadratic import EWC, L2ToStart
from gradloc.training.methods.reference_kl import ReferenceKL
from gradloc.training.methods.replay import Replay
from gradloc.utils.names import did_you_mean, lookup
from gradloc.utils.value_errors import rule

METHODS: dict[str, type[Method]] = {
    "input_projection": InputProjection,
    "interpolate_to_start": InterpolateToStart,
    "reference_kl": ReferenceKL,
    "replay": Replay,
    "l2_to_start": L2ToStart,
    "ewc": EWC,
    "lora": Lora,
    "f_learning": ForgetThenLearn,
    "context_distillation": ContextDistillation,
}


def method_named(name: str) -> type[Method]:
    """The class of a method: an entry of ``METHODS``, or one of your own (``my_module:Mine``).

    Raises:
        MethodError: There is none of this name, or it is no dataclass on ``Method``.
    """
    found = lookup(METHODS, name, "method", MethodError)
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise MethodError(
            f"method {name!r} is no subclass of gradloc.training.methods.base.Method; found "
            f"{found!r}."
        )
    if "__dataclass_fields__" not in vars(found):
        raise MethodError(f"method {name!r} is no dataclass; write @dataclass(frozen=True).")
    return found


def build_method(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """A method with its options.

    Args:
        name: As for ``method_named``.
        options: Its options by name; what is missing has its default.

    Raises:
        MethodError: Unknown method or option, or an option that cannot work.
    """
    method_class = method_named(name)
    options = dict(options or {})
    known = [item.name for item in dataclasses.fields(method_class)]  # type: ignore[arg-type] - it is one
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known)
            raise MethodError(f"method {name!r} has no option {option!r}. {hint}")
    try:
        # Pydantic's strict mode takes lists for tuples in JSON only.
        return TypeAdapter(method_class).validate_json(json.dumps(options), strict=True)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        raise MethodError(f"method {name!r}: {wrong['loc'][0]} {rule(wrong)}.") from error
    except TypeError as error:
        raise MethodError(f"method {name!r}: options must be plain values ({error}).") from error


def build_methods(named: Mapping[str, Mapping[str, Any]]) -> dict[str, Method]:
    """Methods by the names that recipes use, in their order.

    Raises:
        MethodError: As ``build_method``; or two of them bring a loss of their own.
    """
    methods = {name: build_method(name, options) for name, options in named.items()}
    losses = [name for name, method in methods.items() if type(method).loss is not Method.loss]
    if len(losses) > 1:
        raise MethodError(
            f"{' and '.join(losses)} each replace the training loss; an arm can have one of them."
        )
    return methods


def step_shape(methods: Iterable[Method], max_length: int) -> StepShape:
    """What methods do to the cost of a step with sequences of so many tokens at most."""
    projected, kl_tokens = False, 0.0
    for method in methods:
        if isinstance(method, ReferenceKL):
            kl_tokens += method.kl_tokens(max_length)
        projected = projected or isinstance(method, InputProjection)
    return callback_step(projected=projected, kl_tokens=kl_tokens)
