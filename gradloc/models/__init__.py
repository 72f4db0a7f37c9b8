"""From the name of a model to the model and its tokenizer."""

from gradloc.models.loading import DTYPES, load_model, load_tokenizer, same_tokenizer
from gradloc.models.sources import PACKAGED, ModelSource, describe, fingerprint, resolve

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
