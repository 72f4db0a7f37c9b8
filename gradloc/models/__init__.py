"""From the name of a model to the model and its tokenizer."""

from typing import TYPE_CHECKING, Any

from gradloc.models.sources import PACKAGED, ModelSource, describe, fingerprint, resolve

if TYPE_CHECKING:
    from gradloc.models.loading import DTYPES, load_model, load_tokenizer, same_tokenizer

__all__ = [
    "DTYPES",
    "PACKAGED",
    "ModelSource",
    "describe",
    "fingerprint",
    "load_model",
    "load_tokenizer",
    "resolve",
    "same_tokenizer",
]


def __getattr__(name: str) -> Any:
    """Load torch when a model is asked for; plans and recipes are read without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gradloc.models import loading

    return getattr(loading, name)
