"""What a recipe's values must satisfy beyond their types."""

import dataclasses
import inspect
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gradloc.config.schema import report_mismatch
from gradloc.config.yaml_source import Source
from gradloc.errors import GradlocError, MethodError
from gradloc.utils.names import did_you_mean, lookup
from gradloc.utils.value_errors import KINDS, kind_of

# TrainingArguments that gradloc must set itself -> what to do instead.
SET_BY_GRADLOC = {
    "output_dir": "gradloc trains inside the run folder; set 'output_dir' and 'name' of the recipe",
    "seed": "one seed serves the whole run; set 'seed' of the recipe",
    "data_seed": "one seed serves the whole run; set 'seed' of the recipe",
    "remove_unused_columns": "gradloc's batches need all their columns; remove this line",
    "resume_from_checkpoint": "start the run again and it continues by itself; remove this line",
}
# TrainingArguments that cannot work at 0 or below (max_steps may be -1, so it is not one).
_POSITIVE = (
    "gradient_accumulation_steps",
    "learning_rate",
    "num_train_epochs",
    "per_device_eval_batch_size",
    "per_device_train_batch_size",
)


def check_date(text: str) -> str:
    """Return an ISO date (``YYYY-MM-DD``) as it is.

    Raises:
        ValueError: It is none.
    """
    try:
        # fromisoformat alone takes 20230101 as well from Python 3.11 on.
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text) and date.fromisoformat(text):
            return text
    except ValueError:
        pass
    raise ValueError(f"'{text}' is not a date of the calendar; write it as \"2023-01-31\"")


def check_date_or_empty(text: str) -> str:
    """Return an ISO date or nothing as it is.

    Raises:
        ValueError: It is neither.
    """
    return text and check_date(text)


def check_file_name(text: str) -> str:
    """Return a name that can stand in a path as it is.

    Raises:
        ValueError: It holds other than letters, digits, dot, dash and underscore.
    """
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{,99}", text):
        return text
    raise ValueError(
        f"'{text[:120]}' becomes a folder name; use only letters, digits, '.', '-' and '_', "
        "100 at most"
    )


def check_arm_name(text: str) -> str:
    """Return a name that can name a folder and stand in an override's key as it is.

    Raises:
        ValueError: It holds other than letters, digits, dash and underscore.
    """
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{,99}", text):
        return text
    raise ValueError(
        "an arm's name may hold only letters, digits, '-' and '_', 100 at most; rename it"
    )


def check_names(
    source: Source,
    *,
    policies: Mapping[str, Callable],
    common: Iterable[str],
    readers: Mapping[str, Callable],
) -> None:
    """Note policies, their options and corpus readers that do not exist.

    Args:
        source: The recipe file.
        policies: The live table of policies; the options of one are its keyword-only parameters.
        common: Options that every policy takes beside its own.
        readers: The live table of corpus readers.
    """
    corpus = source.data.get("corpus")
    if isinstance(corpus, dict) and isinstance(corpus.get("source"), str):
        _find(source, "corpus.source", readers, corpus["source"])
    for name, arm in _arms(source):
        policy, options = arm.get("policy"), arm.get("options")
        found = isinstance(policy, str) and _find(source, f"arms.{name}.policy", policies, policy)
        if found and isinstance(options, dict):
            parameters = inspect.signature(found).parameters.values()
            known = [item.name for item in parameters if item.kind is item.KEYWORD_ONLY]
            known += common
            for option in options:
                if option not in known:
                    source.report(
                        f"arms.{name}.options.{option}",
                        f"no option of policy '{policy}'. {did_you_mean(option, known)}",
                    )


def check_arm_methods(
    source: Source, build_method: Callable[[str, Mapping[str, Any]], Any]
) -> None:
    """Note training methods, and options of theirs, that do not exist or cannot work.

    Args:
        source: The recipe file.
        build_method: Makes a method; a ``MethodError`` tells what cannot work.
    """
    for arm, data in _arms(source):
        named = data.get("methods")
        for name, options in named.items() if isinstance(named, dict) else ():
            key = f"arms.{arm}.methods.{name}"
            if not isinstance(options, dict):
                report_mismatch(source, key, ["map"], options)
                continue
            try:
                build_method(name, options)
            except MethodError as error:
                source.report(key, str(error))


def check_training(source: Source) -> None:
    """Note ``training`` keys and values that ``transformers.TrainingArguments`` does not take."""
    blocks = [("training", source.data.get("training"))]
    blocks += [(f"arms.{name}.training", arm.get("training")) for name, arm in _arms(source)]
    blocks = [(key, block) for key, block in blocks if isinstance(block, dict) and block]
    if not blocks:
        return
    # Imported here: it costs seconds, and only its field names and types are needed.
    from transformers import TrainingArguments

    hints = get_type_hints(TrainingArguments)
    fields = [item.name for item in dataclasses.fields(TrainingArguments) if item.init]
    for key, block in blocks:
        for name, value in block.items():
            if name in SET_BY_GRADLOC:
                source.report(f"{key}.{name}", f"is set by gradloc: {SET_BY_GRADLOC[name]}")
            elif name not in fields:
                source.report(f"{key}.{name}", _unknown_argument(name, fields))
            else:
                _check_argument(source, f"{key}.{name}", value, hints[name])


def training_key(key: str) -> str:
    """Where an unknown key of a recipe or arm belongs, if it is a training argument; or nothing."""
    owner, _, name = key.rpartition(".")
    if name in SET_BY_GRADLOC or not re.fullmatch(r"(arms\.[^.]+)?", owner):
        return ""
    from transformers import TrainingArguments

    known = {item.name for item in dataclasses.fields(TrainingArguments) if item.init}
    return f"{owner}.training.{name}".lstrip(".") if name in known else ""


def check_streaming(source: Source) -> None:
    """Note a streamed corpus whose training has no end: its length is not known beforehand."""
    corpus, training = (source.data.get(key) for key in ("corpus", "training"))
    if not (isinstance(corpus, dict) and corpus.get("streaming") is True):
        return
    max_steps = training.get("max_steps") if isinstance(training, dict) else None
    if not (isinstance(max_steps, int) and max_steps > 0):
        source.report(
            "corpus.streaming", "a streamed corpus has no known length; set training.max_steps"
        )


def _arms(source: Source) -> Iterator[tuple[str, dict]]:
    arms = source.data.get("arms")
    if isinstance(arms, dict):
        yield from ((name, arm) for name, arm in arms.items() if isinstance(arm, dict))


def _find(source: Source, key: str, table: Mapping[str, Any], name: str) -> Any:
    """What a name stands for, or ``None`` and a problem noted."""
    try:
        return lookup(table, name, "name")
    except GradlocError as error:
        source.report(key, str(error))
        return None


def _unknown_argument(name: str, fields: list[str]) -> str:
    hint = did_you_mean(name, fields)
    # The whole list of a hundred names helps nobody.
    hint = hint if hint.startswith("Did") else "See the documentation of that class."
    return f"unknown key, no field of transformers.TrainingArguments. {hint}"


def _check_argument(source: Source, key: str, value: Any, hint: Any) -> None:
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    enums = [part for part in parts if isinstance(part, type) and issubclass(part, Enum)]
    kinds = [KINDS.get(get_origin(part) or part, "") for part in parts]
    kinds += ["str"] * bool(enums)
    if any(get_origin(part) is Literal for part in parts):
        kinds += [kind_of(item) for part in parts for item in get_args(part)]
    found = kind_of(value)
    if found not in kinds and not (found == "int" and "float" in kinds):
        report_mismatch(source, key, kinds, value)
    elif enums and isinstance(value, str):
        # The hints say "or str" beside each enum; only the enum's values work.
        known = [member.value for enum in enums for member in enum if member.value]
        if value not in known:
            source.report(key, f"unknown name '{value}'. {did_you_mean(value, known)}")
    elif key.rpartition(".")[2] in _POSITIVE and value <= 0:
        source.report(key, f"must be greater than 0, found {value}")
